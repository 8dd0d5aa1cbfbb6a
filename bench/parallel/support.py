"""Whether a workload can be spread as a layout asks; said in one line before anything runs.

Counts, and which flags go together, are checked where flags become layouts. Torch-free, so that
the command line can answer at once. What only the net itself knows (a plan that names a module it
does not have) is found when the net is built.

A mitigation trades the exact average of gradients in every step for fewer bytes. Gradient
accumulation, larger buckets and fewer devices also spare the link, change no algorithm, and are
flags of their own. What loss such a run ends with is for real ranks to tell: virtual ranks have no
gradients.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from bench.core.errors import UsageError, one_of
from bench.core.nouns import Layout
from bench.workload import Phase, TensorPlan, Workload

Half = Literal["fp16", "bf16"]
Averaging = Literal["postlocalsgd", "diloco"]
LARGEST = 10**6
"""Of a rank or a period; beyond it a number is a slip."""


@dataclass(frozen=True, kw_only=True)
class Mitigation:
    """What a name such as powersgd-4+fp16 asks for."""

    half: Half | None = None
    """Gradients (with diloco, the weights' change) travel in this dtype."""
    powersgd_rank: int | None = None
    averaging: Averaging | None = None
    period_steps: int = 1
    """Optimizer steps from one communication to the next."""

    @property
    def is_none(self) -> bool:
        """Whether gradients are averaged in full, in every step."""
        return self == Mitigation()


NAMES = ["fp16", "bf16", "powersgd-R", "postlocalsgd-H", "diloco-H"]
"""fp16, bf16: gradients travel in this dtype (the hooks of
https://docs.pytorch.org/docs/stable/ddp_comm_hooks.html). powersgd-R: each gradient matrix travels
as two factors of rank R, errors fed back (https://arxiv.org/abs/1905.13727). postlocalsgd-H:
replicas step alone and average their weights every H steps (https://arxiv.org/abs/1808.07217).
diloco-H: the same, with an outer Nesterov step by their mean change
(https://arxiv.org/abs/2311.08105)."""
COMBINED = ("powersgd-R+fp16", "powersgd-R+bf16", "diloco-H+fp16", "diloco-H+bf16")
"""Pairs that go together: what the first sends is sent in the second's dtype."""


def parse_mitigation(text: str) -> Mitigation:
    """Read `--mitigate`; '' is none. Raises UsageError in one line."""
    found = Mitigation()
    for part in text.split("+") if text.strip() else ():
        one = _parse_one(part.strip().lower())
        is_other = found.powersgd_rank is not None or found.averaging is not None
        if is_other if "half" not in one else found.half is not None:
            raise UsageError(
                f"--mitigate {text}: these do not go together; what does is {', '.join(COMBINED)}"
            )
        found = replace(found, **one)
    if found.averaging == "postlocalsgd" and found.half is not None:
        raise UsageError(
            f"--mitigate {text}: postlocalsgd sends the weights themselves, which {found.half} "
            f"would round; what goes together is {', '.join(COMBINED)}"
        )
    return found


def _parse_one(part: str) -> dict[str, Any]:
    kind, _, number = part.partition("-")
    if part in get_args(Half):
        return {"half": part}
    if kind not in ("powersgd", *get_args(Averaging)):
        raise one_of("--mitigate", part, NAMES, hint="(R a rank, H a period in steps)")
    letter, least = ("R", 1) if kind == "powersgd" else ("H", 2)
    if not (number.isascii() and number.isdigit() and least <= int(number) <= LARGEST):
        raise UsageError(
            f"--mitigate {part}: {letter} in {kind}-{letter} is a whole number from {least} "
            f"to {LARGEST}, such as {kind}-4"
        )
    if kind == "powersgd":
        return {"powersgd_rank": int(number)}
    return {"averaging": kind, "period_steps": int(number)}


LEAST_COMPILED_BUCKET_BYTES = 2**20
"""torch's first bucket (torch.distributed._DEFAULT_FIRST_BUCKET_BYTES), its compiler's least."""


def check_refused(
    workload: Workload, phase: Phase, *, strategy: str | None, is_compiled: bool
) -> None:
    """Raise UsageError for what the workload itself says that its phase cannot do."""
    asked = {str(strategy): f"--parallel {strategy}"}
    asked |= {"compile": "--compile"} if is_compiled else {}
    for name, why in workload.refused(phase).items():
        if name in asked:
            raise UsageError(f"{asked[name]} is not for {_name(workload)}-{phase.name}: {why}")


def _name(workload: Workload) -> str:
    return type(workload).__module__.rpartition(".")[-1].removeprefix("_workload_")


def check_layout(
    workload: Workload, phase: Phase, layout: Layout, *, is_compiled: bool = False
) -> None:
    """Raise UsageError if `layout` cannot be meant for this phase of the workload."""
    if layout.strategy == "fsdp" and layout.tensor > 1:
        raise UsageError(
            "--parallel fsdp divides the batch alone; with --tp or --pp give --parallel tp or pp, "
            "and --dp for the copies of it"
        )
    if not phase.is_training and layout.data > 1 and layout.strategy != "fsdp":
        raise UsageError(
            f"copies of the net communicate nothing in {phase.name}: their throughput is that of "
            f"one device, times their number; {_instead(workload, phase, of='ddp')}"
        )
    for flag, is_set in (("--grad-accum", layout.grad_accum > 1), ("--mitigate", layout.mitigate)):
        if is_set and not phase.is_training:
            raise UsageError(f"{flag} is for training; {phase.name} has no gradients")
    if layout.strategy == "pp":
        _check_pipeline(workload, phase, layout)
    elif layout.tensor > 1:
        _check_tensor(workload, phase, layout)
    _check_mitigation(layout)
    least_bytes = LEAST_COMPILED_BUCKET_BYTES
    if is_compiled and phase.is_training and layout.bucket_bytes < least_bytes:
        raise UsageError(
            f"--bucket-mib {layout.bucket_bytes / 2**20:g} with --compile: torch cuts a compiled "
            f"net into buckets of at least {least_bytes / 2**20:g} MiB; give more, or leave "
            "--compile out"
        )


def _instead(workload: Workload, phase: Phase, *, of: str) -> str:
    """Name the other ways in which this phase can be spread: 'use --parallel ddp or fsdp'."""
    is_possible = {
        "ddp": phase.is_training,
        "tp": workload.tensor_parallel_plan(phase) is not None,
        "fsdp": True,
    }
    refused = {of, *workload.refused(phase)}
    names = [name for name, is_one in is_possible.items() if is_one and name not in refused]
    return f"use --parallel {' or '.join(names)}" if names else "run one device"


def _check_tensor(workload: Workload, phase: Phase, layout: Layout) -> None:
    name = _name(workload)
    plan = workload.tensor_parallel_plan(phase)
    if plan is None:
        raise UsageError(
            f"workload {name} has no plan for tensor parallelism; "
            f"{_instead(workload, phase, of='tp')}, or give it the method tensor_parallel_plan"
        )
    for what, size in plan.divides.items():
        if size % layout.tensor:
            raise UsageError(
                f"{what} {size} of {name} cannot be divided by {layout.tensor} devices; "
                f"possible here: {_nearest(plan, layout.tensor)}"
            )


def _nearest(plan: TensorPlan, wanted: int) -> str:
    common = math.gcd(*plan.divides.values())
    allowed = [count for count in range(1, common + 1) if common % count == 0]
    place = bisect.bisect(allowed, wanted)
    return " or ".join(map(str, allowed[max(place - 1, 0) : place + 1]))


def _check_pipeline(workload: Workload, phase: Phase, layout: Layout) -> None:
    from bench.emulate.pipeline import check_pipeline, num_stages

    if not phase.is_training:
        raise UsageError(
            f"--parallel pp is simulated for training steps, not for {phase.name}; "
            f"{_instead(workload, phase, of='pp')}"
        )
    if type(workload).check_stages is Workload.check_stages:
        raise UsageError(
            f"workload {_name(workload)} cannot be cut into pipeline stages; "
            f"{_instead(workload, phase, of='pp')}, or give it check_stages and pipeline_stages"
        )
    check_pipeline(layout)
    workload.check_stages(num_stages(layout))


def _check_mitigation(layout: Layout) -> None:
    mitigation = parse_mitigation(layout.mitigate)
    if mitigation.is_none:
        return
    if layout.strategy == "fsdp":
        raise UsageError(
            f"--mitigate {layout.mitigate} acts on the gradients of copies; fsdp has shards: "
            "use --parallel ddp"
        )
    if layout.strategy == "pp":
        raise UsageError(f"--mitigate {layout.mitigate} is not simulated for stages; use ddp")
    if layout.strategy == "tp" and layout.data == 1:
        raise UsageError(
            f"--mitigate {layout.mitigate} acts on the gradients that copies exchange; "
            "use --parallel ddp, or tp with --dp 2 or more"
        )
