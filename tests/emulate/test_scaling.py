"""One recorded step among other numbers of ranks and on other nodes."""

from dataclasses import dataclass, replace

import pytest
from step_traces import Happening, RoundPrices, trace_of

from bench.core.errors import UsageError
from bench.core.nouns import Layout
from bench.emulate.scaling import regroup_for, scale_devices, scale_to
from bench.hardware.collectives import Cost, Group, Op

DDP = Layout(mode="emulated", strategy="ddp", data=4)
TP_DDP = Layout(mode="emulated", strategy="tp", tensor=4, data=2)
STEP: list[Happening] = [("issue", 0, 0.5), ("wait", 0, 0.0)]


@dataclass(frozen=True)
class PerRank(RoundPrices):
    """A second for each rank, ten for each node after the first."""

    def cost(self, op: Op, *, num_bytes: int, group: Group) -> Cost:
        seconds = group.num_ranks + 10.0 * (group.num_nodes - 1)
        return Cost(seconds, seconds / 2, seconds * 2, "alpha-beta", "ring")


def test_replicas_are_added_to_a_recorded_step() -> None:
    trace = trace_of(STEP, sizes_bytes=[10], groups=[Group(4)])
    steps = scale_devices([trace], recorded=DDP, devices=[1, 2, 512], model=PerRank())
    assert [one.layout.devices for one in steps] == [1, 2, 512]
    assert [one.step_s for one in steps] == pytest.approx([0.5, 2.5, 512.5])
    assert [one.low_s for one in steps] == pytest.approx([0.5, 1.5, 256.5])
    assert [one.high_s for one in steps] == pytest.approx([0.5, 4.5, 1024.5])
    assert [one.comm_exposed_s for one in steps] == pytest.approx([0, 2, 512])
    assert {one.compute_s for one in steps} == {0.5}
    assert {one.layout.mode for one in steps} == {"simulated"}


def test_stragglers_come_with_the_number_of_ranks() -> None:
    traces = [
        trace_of([("issue", 0, work_s), ("wait", 0, 0.0)], sizes_bytes=[10], groups=[Group(4)])
        for work_s in (0.1, 0.3)
    ]
    two, many = scale_devices(
        traces, recorded=DDP, devices=[2, 4096], model=RoundPrices(s_per_100_bytes=0.0)
    )
    assert two.stragglers.mean_s == pytest.approx(0.25)
    assert many.stragglers.mean_s == pytest.approx(0.3)
    assert two.step_s == many.step_s == pytest.approx(0.2)


def test_tensor_parallel_groups_stay_when_replicas_are_added() -> None:
    happenings: list[Happening] = [("issue", 0, 0.0), ("wait", 0, 0.0)]
    happenings += [("issue", 1, 0.0), ("wait", 1, 0.0)]
    trace = trace_of(happenings, sizes_bytes=[10, 10], groups=[Group(4), Group(2)])
    (step,) = scale_devices([trace], recorded=TP_DDP, devices=[32], model=PerRank())
    assert step.step_s == pytest.approx(4 + 8)


def test_the_nodes_are_those_of_the_simulated_link() -> None:
    """Replicas of tp 4 on nodes of 4 are each on a node of their own."""
    model = PerRank(node_size=4)
    regroup = regroup_for(recorded=TP_DDP, layout=replace(TP_DDP, data=8), model=model)
    assert regroup(Group(4)) == Group(4, 1)
    assert regroup(Group(2)) == Group(8, 8)
    assert regroup(Group(8)) == Group(32, 8)
    with pytest.raises(ValueError, match="group of 3"):
        regroup(Group(3))


@pytest.mark.parametrize(
    ("recorded", "layout", "words"),
    [
        (replace(TP_DDP, data=4), replace(TP_DDP, data=8), "another --dp"),
        (DDP, TP_DDP, "measure again"),
        (replace(TP_DDP, data=1), TP_DDP, "use --dp 2"),
    ],
)
def test_what_a_step_cannot_tell_is_refused(recorded: Layout, layout: Layout, words: str) -> None:
    trace = trace_of(STEP, sizes_bytes=[10])
    with pytest.raises(UsageError, match=words):
        scale_to([trace], recorded=recorded, layout=layout, model=RoundPrices())


def test_devices_that_tensor_parallel_ranks_do_not_divide_are_refused() -> None:
    trace = trace_of(STEP, sizes_bytes=[10])
    with pytest.raises(UsageError, match="no multiple of tp 4"):
        scale_devices([trace], recorded=TP_DDP, devices=[6], model=RoundPrices())
