"""A cost model whose every collective takes a given time, and what a trace on it must hold."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch

from bench.emulate.group import Emulation, start_emulation
from bench.emulate.replay import StepTrace
from bench.hardware.costs.collectives import Cost, Group, Op, group_of


class FixedModel:
    """Takes `seconds`, or what `seconds(op, num_bytes, group)` says; notes what was asked.

    The band is half and double.
    """

    def __init__(
        self,
        seconds: float | Callable[[Op, int, Group], float] = 0.0,
        *,
        node_size: int | None = None,
    ) -> None:
        self._seconds = seconds
        self._node_size = node_size
        self.asked: list[tuple[Op, int, Group]] = []

    def cost(self, op: Op, *, num_bytes: int, group: Group) -> Cost:
        self.asked.append((op, num_bytes, group))
        seconds = self._seconds
        time_s = seconds(op, num_bytes, group) if callable(seconds) else seconds
        return Cost(time_s, time_s / 2, time_s * 2, "alpha-beta", "ring")

    def group_of(self, ranks: Sequence[int]) -> Group:
        return group_of(ranks, node_size=self._node_size)


def round_prices(s_per_100_bytes: float = 1.0, *, node_size: int | None = None) -> FixedModel:
    """Price a second for each 100 bytes, whoever takes part."""

    def seconds(op: Op, num_bytes: int, group: Group) -> float:
        assert group.num_ranks > 1, "one rank has nobody to talk to"
        return s_per_100_bytes * num_bytes / 100

    return FixedModel(seconds, node_size=node_size)


@contextmanager
def emulated(
    model: FixedModel, *, num_ranks: int = 4, device: str = "cpu", is_timed: bool = True
) -> Iterator[Emulation]:
    """Emulate a link of this model until the block ends."""
    started = start_emulation(
        num_ranks=num_ranks, model=model, device=torch.device(device), is_timed=is_timed
    )
    try:
        yield started
    finally:
        started.close()


def assert_consistent(trace: StepTrace) -> None:
    """What every trace holds: an order that can be lived, and nothing early."""
    cursor_s, issued, waited = 0.0, set(), set()
    for mark in trace.marks:
        assert cursor_s <= mark.start_s <= mark.end_s
        cursor_s = mark.end_s
        if mark.kind == "issue":
            assert mark.collective not in issued
            issued.add(mark.collective)
        else:
            assert mark.collective in issued - waited
            assert mark.end_s >= trace.collectives[mark.collective].end_s
            waited.add(mark.collective)
    assert issued == waited == set(range(len(trace.collectives)))
    assert cursor_s <= trace.duration_s
    for one in trace.collectives:
        assert one.issued_s <= one.start_s
        assert one.end_s - one.start_s == pytest.approx(one.modelled_s, abs=1e-9)
