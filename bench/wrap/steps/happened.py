"""What happened in a step of a program, and how most of its steps are.

A step that holds something that most do not, such as an evaluation, is no step like the others.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(kw_only=True, slots=True)
class Happened:
    """Since the last step ended."""

    items: int = 0
    """By the first dimension of what loaders yielded."""
    num_batches: int = 0
    data_wait_s: float = 0.0
    num_backward: int = 0
    accumulated: int = 0
    """Fewest backward passes before an update; 0 where there were none."""
    kinds: set[str] = field(default_factory=set)
    """What may distinguish a step from the others."""
    loaders: set[int] = field(default_factory=set)
    """Whose batches came, by the identity of their data."""


class Usual:
    """How most steps are, as far as they have been seen."""

    def __init__(self) -> None:
        self._num_steps = 0
        self._kinds: Counter[str] = Counter()
        self._backwards: Counter[int] = Counter()
        self._num_usual = self._num_batches = 0
        self._batch_items = 0.0
        self._sizes: Counter[float] = Counter()

    def unusual(self, happened: Happened) -> list[str]:
        """Note a step, and return what it held that most steps do not."""
        self._num_steps += 1
        found: list[str] = []
        if happened.kinds:  # most steps hold nothing, and cost next to nothing
            self._kinds.update(happened.kinds)
            # What two steps in three hold belongs to the step; not what every second one holds.
            found = sorted(
                kind for kind in happened.kinds if 3 * self._kinds[kind] <= 2 * self._num_steps
            )
        number = happened.num_backward
        self._backwards[number] += 1
        if 2 * self._backwards[number] <= self._num_steps:
            most, times = self._backwards.most_common(1)[0]
            if number != most and 2 * times > self._num_steps:
                found.append(f"{number} backward passes, not {most}")
        if not found:
            self._num_usual += 1
            self._num_batches += happened.num_batches
            if happened.num_batches:
                self._sizes[happened.items / happened.num_batches] += 1
        return found

    def is_of_usual_size(self, happened: Happened) -> bool:
        """Whether its batches are as large as most are, or there is no such size."""
        if not self._sizes or not happened.num_batches:
            return True
        times, size = max((times, size) for size, times in self._sizes.items())
        return happened.items == size * happened.num_batches or 2 * times < self._sizes.total()

    def items(self, happened: Happened) -> int | None:
        """Items of a step; None without loaders.

        A loader that is read ahead of gives an epoch's first step two batches and its last none:
        each step has as many as steps have on average, of the size that came last.
        """
        if happened.num_batches:
            self._batch_items = happened.items / happened.num_batches
        if not self._batch_items:
            return None
        per_step = max(1, round(self._num_batches / max(1, self._num_usual)))
        return max(1, round(self._batch_items * per_step))
