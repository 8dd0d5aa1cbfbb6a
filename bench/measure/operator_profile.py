"""An operator profile of one configuration, in a process of its own.

`python -m bench.measure.operator_profile`: the request comes as one line on standard input, as for
a trial; the last line of standard output is the profile as JSON. Nothing here is a measurement of
speed: the profiler slows what it watches, so only the shares of time between classes of operators
are kept and laid over the step that trials measured. How much of a step its kernels cover is judged
by steps without the profiler, which neither slows the host nor takes seconds to start there. Calls,
FLOPs and bytes come from one more step, from shapes: `operator_count`.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from msgspec import to_builtins
from msgspec.structs import replace

from bench.hardware.operators import Operators
from bench.measure.asking import answer, pin
from bench.measure.engine.torch_engine import TorchEngine
from bench.measure.messages import TrialRequest
from bench.measure.operator_count import class_of, count_step
from bench.measure.timing.clock import Clock

WARM_STEPS = 3
MAX_STEPS = 5
ENOUGH_S = 5.0
"""Profiled steps end after this time; shares settle within a few."""
OPERATORS, KERNELS = "operators on the host", "device kernels"
UNTIMED = "none: the profiler does not see this device's kernels"
"""What was timed. The host only queues an accelerator's kernels: its times would be no kernels'."""
_OPTIMIZER = "Optimizer.step"


def profile_request(request: TrialRequest) -> dict[str, Any]:
    """Build the configuration, profile some of its steps, count one; return the profile."""
    pin(request.cpu_ids)
    engine = TorchEngine(request)
    engine.build(is_checked=False)  # a trial's row has the check
    for _ in range(WARM_STEPS):
        engine.step()
    engine.adapter.synchronize()
    operators = count_step(engine.step)
    engine.adapter.synchronize()
    _, step_s = _steps(engine)
    clock, seconds, steps = _profiled(engine)
    covered_s = sum(seconds.values()) / steps
    if clock != UNTIMED:
        operators = with_times(operators, seconds, per=float(steps))
    return {
        "steps": steps,
        "step_s": step_s,
        "clock": clock,
        "covered_frac": min(1.0, covered_s / step_s) if clock == KERNELS else 1.0,
        "operators": to_builtins(operators),
    }


def _steps(engine: TorchEngine) -> tuple[int, float]:
    clock = Clock()
    engine.adapter.synchronize()
    start_s = clock.now_s()
    steps = 0
    while steps < MAX_STEPS and (steps == 0 or clock.now_s() - start_s < ENOUGH_S):
        engine.step()
        steps += 1
    engine.adapter.synchronize()
    return steps, (clock.now_s() - start_s) / steps


def device_activity(device_type: str) -> Any:
    """Return the profiler's name for this device's kernels, or None where it cannot see them."""
    names = {"cuda": "CUDA", "xpu": "XPU", "hpu": "HPU", "mtia": "MTIA"}
    if device_type == torch._C._get_privateuse1_backend_name():
        names[device_type] = "PrivateUse1"
    activity = getattr(torch.profiler.ProfilerActivity, names.get(device_type, ""), None)
    known: set[Any] = torch.profiler.supported_activities()  # type: ignore[no-untyped-call]
    return activity if activity in known else None


def _profiled(engine: TorchEngine) -> tuple[str, dict[str, float], int]:
    activity = device_activity(engine.device.type) if engine.adapter.is_asynchronous else None
    activities = {torch.profiler.ProfilerActivity.CPU, *([] if activity is None else [activity])}
    # The first step after the profiler's start carries its own set-up, and is discarded.
    schedule = torch.profiler.schedule(wait=0, warmup=1, active=1, repeat=1)
    with torch.profiler.profile(
        activities=activities, schedule=schedule, acc_events=True
    ) as profiler:
        engine.step()
        engine.adapter.synchronize()
        profiler.step()
        steps, _ = _steps(engine)
    events = profiler.events()
    if not engine.adapter.is_asynchronous:
        return OPERATORS, times_by_class(events, on_device=False), steps
    kernels = {} if activity is None else times_by_class(events, on_device=True)
    return (KERNELS if sum(kernels.values()) > 0 else UNTIMED), kernels, steps


def times_by_class(events: Any, *, on_device: bool) -> dict[str, float]:
    """Seconds by class in profiler events; what the optimizer ran is its own class.

    A kernel's time belongs to the operator that launched it, an operator's own time leaves out the
    operators inside it.
    """
    seconds: dict[str, float] = defaultdict(float)
    for event in events:
        if str(event.name).startswith("aten::"):
            micros = event.self_device_time_total if on_device else event.self_cpu_time_total
            kind = "optimizer" if _is_in_optimizer(event) else class_of(str(event.name))
            seconds[kind] += micros * 1e-6
    return seconds


def _is_in_optimizer(event: Any) -> bool:
    while event is not None and _OPTIMIZER not in str(event.name):
        event = event.cpu_parent
    return event is not None


def with_times(
    operators: list[Operators], seconds: dict[str, float], *, per: float
) -> list[Operators]:
    """Give each class its time; dtypes of one class share it by bytes, which is what they move.

    Time of classes that were not counted goes to `other`, with no work to explain it.
    """
    moved: dict[str, float] = defaultdict(float)
    for one in operators:
        moved[one.kind] += one.bytes
    timed = []
    for one in operators:
        share = one.bytes / moved[one.kind] if moved[one.kind] else 1.0
        timed.append(replace(one, time_s=seconds.get(one.kind, 0.0) * share / per))
    uncounted_s = sum(time_s for kind, time_s in seconds.items() if kind not in moved)
    if uncounted_s:
        nothing: Any = dict.fromkeys(("calls", "flops", "bytes", "least_bytes"), 0)
        timed.append(Operators(kind="other", dtype="fp32", time_s=uncounted_s / per, **nothing))
    return timed


if __name__ == "__main__":
    answer(profile_request, TrialRequest)
