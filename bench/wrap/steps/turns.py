"""Which of several that take turns ends a step: optimizers, or modules that are called.

It is the one after whose every turn all others have theirs, and of several such the one that came
last: a generator after its discriminator's five updates, AdamW beside Muon, the last layer's
optimizer where each parameter has one. Until each has had two turns none ends a step; those that
have none within the fifty of another are not waited for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

MOST_TURNS = 50


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
        """Whether newcomers change nothing any more."""
        self._turns: list[int] = []
        self._counts: Counter[int] = Counter()

    def has_seen(self, name: int) -> bool:
        """Whether it has had a turn."""
        return name in self._counts

    def ends_step(self, name: int, *, num_known: int | None) -> bool:
        """Note a turn, and return whether it ends a step.

        `num_known`: how many there are, with those that have had no turn; None where it shows only
        by their turns.
        """
        if name not in self._counts and not self.is_final:
            self.closer = None
        self._counts[name] += 1
        if self.closer is None:
            self._turns.append(name)
            if self._is_seen(num_known):
                self.closer = last_of_cycle(self._turns)
        return name == self.closer

    def forget(self, name: int) -> None:
        """Leave out one that is gone."""
        self._counts.pop(name, None)
        self._turns = [turn for turn in self._turns if turn != name]
        if self.closer == name:
            self.closer = None

    def _is_seen(self, num_known: int | None) -> bool:
        if max(self._counts.values()) >= MOST_TURNS:
            return True
        if num_known is not None and len(self._counts) < num_known:
            return False
        return num_known == 1 or min(self._counts.values()) >= 2
