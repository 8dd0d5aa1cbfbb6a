"""A step's communication on the fake device: what ddp and fsdp would issue, at plausible moments.

Gradients of a backward pass come evenly over the last two thirds of a step, since backward takes
twice the time of forward (arXiv 2104.04473, section 2), and go out in buckets. FSDP gathers eight
units before their use, twice, and scatters their gradients, and waits each time, as on a CPU.
"""

from __future__ import annotations

from bench.core.errors import UsageError
from bench.core.nouns import Layout
from bench.emulate.replay.recording import Collective, Mark, StepTrace
from bench.hardware.costs.collectives import Op
from bench.hardware.costs.cost import CostModel

FSDP_UNITS = 8
GRADIENT_BYTES = 4


def fake_trace(
    step_s: float, *, layout: Layout, num_parameters: int, model: CostModel
) -> StepTrace:
    """Return the trace of a step that computes for `step_s`, on a link that takes no time.

    Raises UsageError for what only a real net knows: tensor-parallel and pipeline messages.
    """
    num_bytes = GRADIENT_BYTES * num_parameters
    if layout.strategy == "ddp":
        count = -(-num_bytes // layout.bucket_bytes)
        sizes = [
            min(layout.bucket_bytes, num_bytes - i * layout.bucket_bytes) for i in range(count)
        ]
        issues: list[tuple[Op, int, float]] = [
            ("all_reduce", size, step_s * (1 + 2 * (index + 1) / count) / 3)
            for index, size in enumerate(sizes)
        ]
        return _trace(step_s, issues, layout=layout, model=model, waits_at_once=False)
    if layout.strategy == "fsdp":
        ops: tuple[Op, ...] = ("all_gather", "all_gather", "reduce_scatter")
        names = [op for op in ops for _ in range(FSDP_UNITS)]
        share = num_bytes // FSDP_UNITS
        issues = [
            (op, share, step_s * (index + 1) / (len(names) + 1)) for index, op in enumerate(names)
        ]
        return _trace(step_s, issues, layout=layout, model=model, waits_at_once=True)
    raise UsageError(
        f"the fake device knows the messages of ddp and fsdp, not of {layout.strategy}; "
        "use --device cpu"
    )


def _trace(
    step_s: float,
    issues: list[tuple[Op, int, float]],
    *,
    layout: Layout,
    model: CostModel,
    waits_at_once: bool,
) -> StepTrace:
    group = model.group_of(range(layout.devices))
    collectives = tuple(
        Collective(
            op=op,
            num_bytes=size,
            group=group,
            modelled_s=0.0,
            issued_s=at_s,
            start_s=at_s,
            end_s=at_s,
        )
        for op, size, at_s in issues
    )
    marks: list[Mark] = []
    for index, (_, _, at_s) in enumerate(issues):
        marks.append(Mark(kind="issue", collective=index, start_s=at_s, end_s=at_s))
        wait_s = at_s if waits_at_once else step_s
        marks.append(Mark(kind="wait", collective=index, start_s=wait_s, end_s=wait_s))
    marks.sort(key=lambda mark: mark.start_s)
    return StepTrace(duration_s=step_s, collectives=collectives, marks=tuple(marks))
