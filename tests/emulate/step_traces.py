"""Synthetic steps and a link with round prices, for tests of the simulation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bench.emulate.replay.trace import Collective, Mark, StepTrace
from bench.hardware.costs.collectives import Cost, Group, Op

Happening = tuple[Literal["issue", "wait", "drain"], int, float]
"""What happens after some seconds of compute, and to which collective."""


@dataclass(frozen=True)
class RoundPrices:
    """A second for each 100 bytes, whoever takes part; the band is half and double."""

    s_per_100_bytes: float = 1.0
    node_size: int | None = None

    def cost(self, op: Op, *, num_bytes: int, group: Group) -> Cost:
        assert group.num_ranks > 1, "one rank has nobody to talk to"
        seconds = self.s_per_100_bytes * num_bytes / 100
        return Cost(seconds, seconds / 2, seconds * 2, "alpha-beta", "ring")

    def group_of(self, ranks: Sequence[int]) -> Group:
        nodes = {rank // self.node_size for rank in ranks} if self.node_size else {0}
        return Group(len(ranks), len(nodes))


def trace_of(
    happenings: Sequence[Happening],
    *,
    sizes_bytes: Sequence[int],
    last_s: float = 0.0,
    groups: Sequence[Group] | None = None,
) -> StepTrace:
    """Live a step by ticking: collective i takes a second for each 100 bytes on its link.

    Written apart from the simulation, as its reference: one tick is a millisecond, and each tick
    the lane and both links look at what they may do.
    """
    return _Ticking(happenings, sizes_bytes=sizes_bytes, last_s=last_s, groups=groups).trace()


class _Ticking:
    """Compute, two links and a clock, all in whole milliseconds."""

    def __init__(
        self,
        happenings: Sequence[Happening],
        *,
        sizes_bytes: Sequence[int],
        last_s: float,
        groups: Sequence[Group] | None,
    ) -> None:
        self.sizes_bytes = sizes_bytes
        self.groups = groups or [Group(2)] * len(sizes_bytes)
        self.todo = [(kind, index, round(work_s * 1000)) for kind, index, work_s in happenings]
        self.last_ms = round(last_s * 1000)
        self.now_ms = 0
        self.issued_ms: dict[int, int] = {}
        self.start_ms: dict[int, int] = {}
        self.end_ms: dict[int, int] = {}
        self.queues: tuple[list[int], list[int]] = ([], [])
        self.marks: list[Mark] = []

    def trace(self) -> StepTrace:
        for kind, index, work_ms in self.todo:
            self.tick(work_ms)
            begin_ms = self.now_ms
            if kind == "issue":
                self.issued_ms[index] = begin_ms
                self.queues[self.groups[index].num_nodes > 1].append(index)
                self.look()
            else:
                while index not in self.end_ms or self.end_ms[index] > self.now_ms:
                    self.tick(1)
            self.marks.append(
                Mark(
                    kind=kind,
                    collective=index,
                    start_s=begin_ms / 1000,
                    end_s=self.now_ms / 1000,
                )
            )
        self.tick(self.last_ms)
        duration_ms = self.now_ms
        while len(self.end_ms) < len(self.issued_ms):
            self.tick(1)
        return StepTrace(
            duration_s=duration_ms / 1000,
            collectives=tuple(self.collective(index) for index in range(len(self.sizes_bytes))),
            marks=tuple(self.marks),
        )

    def tick(self, num_ms: int) -> None:
        for _ in range(num_ms):
            self.now_ms += 1
            self.look()

    def look(self) -> None:
        """Let each link begin with its next collective if it carries nothing."""
        for queue in self.queues:
            while queue:
                is_busy = any(
                    self.end_ms[other] > self.now_ms
                    for other in self.start_ms
                    if self.same_link(other, queue[0])
                )
                if is_busy:
                    break
                index = queue.pop(0)
                self.start_ms[index] = self.now_ms
                self.end_ms[index] = self.now_ms + self.sizes_bytes[index] * 10

    def same_link(self, one: int, other: int) -> bool:
        return (self.groups[one].num_nodes > 1) == (self.groups[other].num_nodes > 1)

    def collective(self, index: int) -> Collective:
        return Collective(
            op="all_reduce",
            num_bytes=self.sizes_bytes[index],
            group=self.groups[index],
            modelled_s=self.sizes_bytes[index] / 100,
            issued_s=self.issued_ms[index] / 1000,
            start_s=self.start_ms[index] / 1000,
            end_s=self.end_ms[index] / 1000,
        )
