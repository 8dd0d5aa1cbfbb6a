"""Which waiting requests are served together, and how long to wait for more.

The same rule in real and in simulated time: it reads no clock. A batch holds requests of one shape,
so that nothing is padded. Left out: batches whose requests come and go while they are served.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol


class Waiting(Protocol):
    """A request that waits."""

    @property
    def came_s(self) -> float:
        """When it came to the queue."""

    @property
    def shape(self) -> Hashable:
        """Requests go together where this is equal."""


@dataclass(frozen=True, kw_only=True)
class BatchRule:
    """Serve a full batch at once, any other once its first request has waited `max_wait_s`."""

    max_batch: int = 1
    max_wait_s: float = 0.0

    def decide(self, waiting: Sequence[Waiting], *, now_s: float) -> list[int] | float:
        """Places of what to serve now, or until when to wait for more; inf where none waits.

        `waiting` is in the order of arrival. Whoever has waited long enough goes first; before
        that, the first batch that is full.
        """
        if not waiting:
            return math.inf
        first = waiting[0]
        due_s = first.came_s + self.max_wait_s
        batches: dict[Hashable, list[int]] = {}
        for place, request in enumerate(waiting):
            if due_s <= now_s and request.shape != first.shape:
                continue
            batch = batches.setdefault(request.shape, [])
            batch.append(place)
            if len(batch) == self.max_batch:
                return batch
        return batches[first.shape] if due_s <= now_s else due_s
