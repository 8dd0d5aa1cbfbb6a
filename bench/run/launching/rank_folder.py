"""The folder that a trial's ranks on one machine share, and what it takes to be rid of them.

torch's agent starts each rank in a session of its own and hands no descriptors on: the request is a
file, the pipe to the parent has a name, and every rank leaves its process id, so that one that is
deaf to a polite request is ended too. Ranks also end when the parent does: all read its pipe.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Self


class RankFolder:
    """Made on entry; gone, with every rank, on exit."""

    def __init__(self, request: bytes) -> None:
        self._request = request

    def __enter__(self) -> Self:
        self.path = Path(tempfile.mkdtemp(prefix="bench-ranks-"))
        (self.path / "request.json").write_bytes(self._request)
        return self

    def open_pipe(self) -> tuple[int, int]:
        """Return both ends of a pipe that rank 0 can open by its name, `messages`."""
        name = self.path / "messages"
        os.mkfifo(name)
        receive = os.open(name, os.O_RDONLY | os.O_NONBLOCK)
        return receive, os.open(name, os.O_WRONLY)

    def environment(self) -> dict[str, str]:
        """What ranks on one machine need: gloo talks over the loopback, whatever the host's name.

        A choice of the user's is left alone.
        """
        loopback = "lo0" if sys.platform == "darwin" else "lo"
        given = os.environ.get("GLOO_SOCKET_IFNAME", loopback)
        return {"GLOO_SOCKET_IFNAME": given}

    def __exit__(self, *_: object) -> None:
        for note in self.path.glob("*.pid"):
            text = note.read_text()
            if text:
                with contextlib.suppress(ProcessLookupError):  # ended, as it should have
                    os.killpg(int(text), signal.SIGKILL)
        shutil.rmtree(self.path, ignore_errors=True)
