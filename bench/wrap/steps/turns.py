"""Which of several that take turns ends a step: optimizers, or modules that are called.

It is the one after whose every turn all others have theirs, and of several such the one that came
last: a generator after its discriminator's five updates, AdamW beside Muon, the last layer's
optimizer where each parameter has one. Until each has had two turns none ends a step; those that
have none within the fifty of another are not waited for, nor is one that had turns before a new one
came and has none within ten of that. So a fold, or a phase of a training, goes on with its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

MOST_TURNS = 50
FEW_TURNS = 10
MOST_WITHOUT_END = 200
"""Turns of another without one of who ends a step: more than a critic has for a generator's one."""


def last_of_cycle(turns: Sequence[int]) -> int:
    """Return the one that ends each cycle of the turns; where there is none, the rarest."""
    names = list(dict.fromkeys(turns))
    for name in reversed(names):
        places = [place for place, turn in enumerate(turns) if turn == name]
        if all(len(set(turns[start:end])) == len(names) for start, end in pairwise(places)):
            return name
    counts = Counter(turns)
    return min(reversed(names), key=lambda name: counts[name])


class Turns:
    """Settles who ends a step, from the order of the first turns."""

    def __init__(self) -> None:
        self.closer: int | None = None
        """Whose turn ends a step; None until it is settled."""
        self.is_final = False
        """Whether newcomers change nothing, while who ends a step is there."""
        self._turns: list[int] = []
        self._counts: Counter[int] = Counter()
        self._before: set[int] = set()
        """Who had turns before the last newcomer, and has had none since."""
        self._left: set[int] = set()
        """Who is not waited for any more."""
        self._patience = FEW_TURNS
        self._step: object = None
        self._num_without_end = 0
        self._most_without_end = MOST_WITHOUT_END

    def has_seen(self, name: int) -> bool:
        """Whether it has had a turn."""
        return name in self._counts

    def ends_step(self, name: int, *, num_known: int | None) -> bool:
        """Note a turn, and return whether it ends a step.

        `num_known`: how many there are, with those that have had no turn; None where it shows only
        by their turns.
        """
        if name not in self._counts:
            self._add(name)
        self._counts[name] += 1
        if self.closer is None:
            self._turns.append(name)
            if self._is_seen(num_known):
                self._left |= self._before
                self._before = set()
                self.closer = last_of_cycle(self._turns)
                # Each of many parameters may have its own.
                self._most_without_end = MOST_WITHOUT_END * max(1, len(self._counts) - 1)
        return name == self.closer

    def lacks_end(self, *, step: object) -> bool:
        """Note a turn that ends no step; return whether who should end it is not waited for now.

        `step` is the same object until a step ends.
        """
        if step is not self._step:
            self._step, self._num_without_end = step, 0
        self._num_without_end += 1
        if self._num_without_end < self._most_without_end:
            return False
        self._left |= self._counts.keys()
        self._counts.clear()
        self._unsettle()
        return True

    def forget(self, name: int) -> None:
        """Leave out one that is gone."""
        self._counts.pop(name, None)
        self._before.discard(name)
        self._left.discard(name)
        self._turns = [turn for turn in self._turns if turn != name]
        if self.closer == name:
            self.closer = None

    def is_left(self, name: int) -> bool:
        """Whether it is not waited for any more."""
        return name in self._left

    def _unsettle(self) -> None:
        self.closer, self._step = None, None
        self._turns.clear()

    def _add(self, name: int) -> None:
        if name in self._left:  # it was only late
            self._patience = MOST_TURNS
        if self.closer is not None and not self.is_final and name not in self._before:
            self._before = set(self._counts)
            self._counts.clear()
            self._unsettle()
        self._left.discard(name)
        self._before.discard(name)

    def _is_seen(self, num_known: int | None) -> bool:
        most = max(self._counts.values())
        if most >= MOST_TURNS:
            return True
        if num_known is not None:
            num_waited = num_known - len(self._left)
            if num_waited > len(self._counts):
                num_missing = num_waited - len(self._counts)
                return num_missing == len(self._before) and most >= self._patience
            if num_waited == 1:
                return True
        return min(self._counts.values()) >= 2
