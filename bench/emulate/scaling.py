"""Thousands of ranks, or another link, from one recorded step.

Data-parallel ranks do the same compute however many they are, so a trace recorded among a few ranks
is replayed among many: the groups that run across replicas grow, those of tensor parallelism stay.
The batch of a rank stays (weak scaling). What one rank computes under another tensor or pipeline
layout is another measurement, not a replay. FSDP's shards get smaller with more ranks, which makes
its optimizer step shorter than recorded here: that part stays as it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.core.errors import UsageError
from bench.core.nouns import Layout
from bench.emulate.simulate import Prices, Regroup, replay
from bench.emulate.stragglers import StragglerEstimate, straggler_step_s
from bench.emulate.trace import StepTrace
from bench.hardware.collectives import Group


@dataclass(frozen=True, kw_only=True, slots=True)
class ScaledStep:
    """Means over the traced steps, in seconds, simulated for one number of devices."""

    layout: Layout
    step_s: float
    low_s: float
    """The step at the fast end of the link's error band."""
    high_s: float
    compute_s: float
    comm_total_s: float
    comm_exposed_s: float
    stragglers: StragglerEstimate


def scale_devices(
    traces: Sequence[StepTrace],
    *,
    recorded: Layout,
    devices: Sequence[int],
    model: Prices,
    seed: int = 0,
) -> list[ScaledStep]:
    """Simulate the traced steps for each number of devices, replicas added or taken away.

    `recorded` is the layout of the run, `model` the link to simulate. Raises `UsageError` when a
    number of devices is no multiple of the tensor-parallel ranks.
    """
    layouts = [_resized(recorded, devices=count) for count in devices]
    return [
        scale_to(traces, recorded=recorded, layout=layout, model=model, seed=seed)
        for layout in layouts
    ]


def scale_to(
    traces: Sequence[StepTrace],
    *,
    recorded: Layout,
    layout: Layout,
    model: Prices,
    seed: int = 0,
) -> ScaledStep:
    """Simulate the traced steps for one layout; ValueError when there are none."""
    if not traces:
        raise ValueError("there is no traced step to simulate")
    regroup = regroup_for(recorded=recorded, layout=layout, model=model)
    middle = [replay(trace, model=model, regroup=regroup) for trace in traces]
    low, high = (
        [replay(trace, model=model, regroup=regroup, bound=bound) for trace in traces]
        for bound in ("low_s", "high_s")
    )
    return ScaledStep(
        layout=layout,
        step_s=_mean([one.step_s for one in middle]),
        low_s=_mean([one.step_s for one in low]),
        high_s=_mean([one.step_s for one in high]),
        compute_s=_mean([one.compute_s for one in middle]),
        comm_total_s=_mean([one.comm_total_s for one in middle]),
        comm_exposed_s=_mean([one.comm_exposed_s for one in middle]),
        stragglers=straggler_step_s(middle, num_ranks=layout.devices, seed=seed),
    )


def regroup_for(*, recorded: Layout, layout: Layout, model: Prices) -> Regroup:
    """Return what each recorded group is among `layout`'s ranks on the model's nodes.

    Groups are told apart by size: tensor-parallel ranks, replicas, or all ranks. Raises
    `UsageError` where replicas and tensor-parallel ranks are equally many, and the returned
    function ValueError for a group of another size.
    """
    if recorded.pipeline > 1 or layout.pipeline > 1 or recorded.tensor != layout.tensor:
        raise UsageError("only data-parallel ranks can be added to a recorded step; measure again")
    if recorded.data == 1 < layout.data:
        raise UsageError("a step recorded without replicas has no gradients to reduce; use --dp 2")
    if recorded.tensor == recorded.data > 1:
        raise UsageError(
            f"a step recorded with tp {recorded.tensor} x dp {recorded.data} cannot tell the two "
            "kinds of collectives apart; record it with another --dp"
        )
    tensor, world = layout.tensor, layout.devices
    groups = {
        recorded.devices: model.group_of(range(world)),
        recorded.data: model.group_of(range(0, world, tensor)),
        recorded.tensor: model.group_of(range(tensor)),
        1: Group(1),
    }

    def regroup(group: Group) -> Group:
        if group.num_ranks not in groups:
            raise ValueError(f"a group of {group.num_ranks} is none of the recorded layout's")
        return groups[group.num_ranks]

    return regroup


def _resized(recorded: Layout, *, devices: int) -> Layout:
    data, rest = divmod(devices, recorded.tensor * recorded.pipeline)
    if data < 1 or rest:
        raise UsageError(
            f"--devices {devices} is no multiple of tp {recorded.tensor} x pp {recorded.pipeline}"
        )
    return replace(recorded, mode="simulated", data=data)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
