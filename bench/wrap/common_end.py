"""All ranks of a program end after the same step, so that none waits for one that is gone.

Rank 0 decides. It leaves the number of the last step in the trial's folder, where the others look
at each end of a step, and takes part in one step more: what it sends in that step reaches the
others after the note is there. Ranks that do not send in each step may be further by then; they
end at once.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_NOTE = "last-step"


class CommonEnd:
    """One rank's count of ends of steps, and the one that is to be the last."""

    def __init__(self, folder: Path) -> None:
        self._note = folder / _NOTE
        self._num_steps = 0
        self._last_step: int | None = None

    def count_step(self) -> None:
        """A step has ended."""
        self._num_steps += 1

    def decide(self, *, num_ranks: int) -> None:
        """Let all ranks end soon; said again, it changes nothing."""
        if self._last_step is not None:
            return
        self._last_step = self._num_steps + (num_ranks > 1)
        new = self._note.with_suffix(".new")
        with contextlib.suppress(OSError):  # the parent has taken the folder away: it ends all
            new.write_text(str(self._last_step))
            os.replace(new, self._note)

    def is_due(self) -> bool:
        """Whether this rank is to end now."""
        if self._last_step is None:
            with contextlib.suppress(FileNotFoundError):
                self._last_step = int(self._note.read_text())
        return self._last_step is not None and self._num_steps >= self._last_step
