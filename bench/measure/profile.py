"""An operator profile of one configuration, in a process of its own.

`python -m bench.measure.profile`: the request comes as one line on standard input, as for a trial;
the last line of standard output is the profile as JSON. Nothing here is a measurement of speed: the
profiler slows what it watches, so only the shares of time between classes of operators are kept and
laid over the step that trials measured. FLOPs and bytes come from one more step, from shapes.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from bench.core.errors import BenchError
from bench.hardware.operators import Operators, to_dicts
from bench.measure.operator_count import class_of, count_step
from bench.measure.request import TrialRequest
from bench.measure.torch_engine import TorchEngine

WARM_STEPS = 3
MAX_STEPS = 10
ENOUGH_S = 5.0
"""Profiled steps end after this time; shares settle within a few."""
_OPTIMIZER = "Optimizer.step"


def profile_request(request: TrialRequest) -> dict[str, Any]:
    """Build the configuration, profile some of its steps, count one; return the profile."""
    engine = TorchEngine(request, on_stage=lambda _stage: None)
    engine.build()
    for _ in range(WARM_STEPS):
        engine.step()
    engine.synchronize()
    operators = count_step(engine.step)
    engine.synchronize()
    seconds, steps, step_s = _profiled(engine)
    is_device = engine.is_asynchronous
    covered_s = sum(seconds.values()) / steps
    return {
        "steps": steps,
        "profiled_step_s": step_s,
        "clock": "device kernels" if is_device else "operators on the host",
        "covered_frac": min(1.0, covered_s / step_s) if is_device else 1.0,
        "operators": to_dicts(with_times(operators, seconds, per=float(steps))),
    }


def _profiled(engine: TorchEngine) -> tuple[dict[str, float], int, float]:
    """Seconds by class over all profiled steps, how many there were, and one step's wall time."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if engine.device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    steps = 0
    start_s = time.monotonic()
    with torch.profiler.profile(activities=activities, acc_events=True) as profiler:
        while steps < MAX_STEPS and (steps == 0 or time.monotonic() - start_s < ENOUGH_S):
            engine.step()
            steps += 1
        engine.synchronize()
        step_s = (time.monotonic() - start_s) / steps
    on_device = engine.is_asynchronous and len(activities) > 1
    return times_by_class(profiler.events(), on_device=on_device), steps, step_s


def times_by_class(events: Any, *, on_device: bool) -> dict[str, float]:
    """Seconds by class in profiler events; what the optimizer ran is its own class.

    A kernel's time belongs to the operator that launched it, an operator's own time leaves out the
    operators inside it.
    """
    seconds: dict[str, float] = {}
    for event in events:
        name = str(event.name)
        if not name.startswith("aten::"):
            continue
        micros = event.self_device_time_total if on_device else event.self_cpu_time_total
        kind = "optimizer" if _is_in_optimizer(event) else class_of(name)
        seconds[kind] = seconds.get(kind, 0.0) + micros * 1e-6
    return seconds


def _is_in_optimizer(event: Any) -> bool:
    parent: Any = event
    while parent is not None:
        if _OPTIMIZER in str(parent.name):
            return True
        parent = parent.cpu_parent
    return False


def with_times(
    operators: list[Operators], seconds: dict[str, float], *, per: float
) -> list[Operators]:
    """Give each class its time; dtypes of one class share it by bytes, which is what they move.

    Time of classes that were not counted goes to `other`, with no work to explain it.
    """
    timed = []
    for one in operators:
        alike = sum(other.bytes for other in operators if other.kind == one.kind)
        share = one.bytes / alike if alike else 1.0
        timed.append(replace(one, time_s=seconds.get(one.kind, 0.0) * share / per))
    counted = {one.kind for one in operators}
    uncounted_s = sum(time_s for kind, time_s in seconds.items() if kind not in counted)
    if uncounted_s:
        timed.append(
            Operators(kind="other", dtype="fp32", calls=0, flops=0.0, bytes=0.0, least_bytes=0.0,
                      time_s=uncounted_s / per)
        )  # fmt: skip
    return timed


def main(profile: Callable[[TrialRequest], dict[str, Any]] = profile_request) -> int:
    """Profile what standard input asks for; a refusal is one line of JSON as well."""
    request = TrialRequest.from_json(sys.stdin.readline())
    if request.cpu_ids and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, request.cpu_ids)
    try:
        answer = profile(request)
    except BenchError as error:
        answer = {"refused": str(error)}
    print(json.dumps(answer, allow_nan=False))
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # Skips the interpreter's teardown, which waits for loader workers and device contexts.
    os._exit(code)
