"""Synthetic steps, for tests of the simulation."""

from collections.abc import Sequence
from typing import Literal

from bench.emulate.replay import Collective, Mark, StepTrace
from bench.hardware.costs.collectives import Group

Happening = tuple[Literal["issue", "wait", "drain"], int, float]
"""What happens after some seconds of compute, and to which collective."""


def trace_of(
    happenings: Sequence[Happening],
    *,
    sizes_bytes: Sequence[int],
    last_s: float = 0.0,
    groups: Sequence[Group] | None = None,
) -> StepTrace:
    """Run a step by ticking: collective i takes a second for each 100 bytes on its link.

    Written apart from the simulation, as its reference: one tick is a millisecond, and each tick
    the lane and both links look at what they may do.
    """
    places = groups or [Group(2)] * len(sizes_bytes)
    now_ms = 0
    issued_ms: dict[int, int] = {}
    start_ms: dict[int, int] = {}
    end_ms: dict[int, int] = {}
    queues: tuple[list[int], list[int]] = ([], [])
    marks: list[Mark] = []

    def is_busy(wanted: int) -> bool:
        return any(
            end_ms[other] > now_ms
            for other in start_ms
            if (places[other].num_nodes > 1) == (places[wanted].num_nodes > 1)
        )

    def look() -> None:
        """Let each link begin with its next collective if it carries nothing."""
        for queue in queues:
            while queue and not is_busy(queue[0]):
                index = queue.pop(0)
                start_ms[index] = now_ms
                end_ms[index] = now_ms + sizes_bytes[index] * 10

    def tick(num_ms: int) -> None:
        nonlocal now_ms
        for _ in range(num_ms):
            now_ms += 1
            look()

    for kind, index, work_s in happenings:
        tick(round(work_s * 1000))
        begin_ms = now_ms
        if kind == "issue":
            issued_ms[index] = begin_ms
            queues[places[index].num_nodes > 1].append(index)
            look()
        else:
            while index not in end_ms or end_ms[index] > now_ms:
                tick(1)
        marks.append(
            Mark(kind=kind, collective=index, start_s=begin_ms / 1000, end_s=now_ms / 1000)
        )
    tick(round(last_s * 1000))
    duration_s = now_ms / 1000
    while len(end_ms) < len(issued_ms):
        tick(1)
    collectives = tuple(
        Collective(
            op="all_reduce",
            num_bytes=size,
            group=places[index],
            modelled_s=size / 100,
            issued_s=issued_ms[index] / 1000,
            start_s=start_ms[index] / 1000,
            end_s=end_ms[index] / 1000,
        )
        for index, size in enumerate(sizes_bytes)
    )
    return StepTrace(duration_s=duration_s, collectives=collectives, marks=tuple(marks))
