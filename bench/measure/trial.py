"""One trial in a process of its own: `python -m bench.measure.trial FD`.

The request comes as one line on standard input, which then stays open: when it closes, the parent
is gone and so is the trial. Messages go to the file descriptor as JSON lines: the stage reached,
the running estimate once a second, and at the end the columns of the row, or what went wrong in a
code that a row can carry. Exit code 0: a result or a failure was given; anything else is a crash.
A trial on several real devices is as many processes: `bench.measure.ranks.rank_trial`.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING

from bench.core.errors import BenchError
from bench.measure.ending import exit_with_parent, failure_of, leave
from bench.measure.engine.engine import Engine
from bench.measure.messages import Messages, StepsSoFar, TrialRequest, decode
from bench.measure.timing import window
from bench.measure.timing.clock import Clock, FakeClock, HostClock
from bench.measure.timing.warmup import warm_up
from bench.measure.trial_result import (
    Findings,
    Measured,
    fake_columns,
    of_all_ranks,
    rank_columns,
    send_result,
    torch_columns,
)

if TYPE_CHECKING:
    from bench.parallel.ranks import Ranks

PROGRESS_STEPS = 50
"""The running estimate rests on this many of the latest steps."""


def main() -> int:
    """Run the trial that standard input asks for."""
    messages = Messages(int(sys.argv[1]))
    request = decode(sys.stdin.readline(), TrialRequest)
    threading.Thread(target=exit_with_parent, daemon=True).start()
    if request.cpu_ids and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, request.cpu_ids)
    try:
        run_request(request, messages)
    except Exception as error:  # the one place where anything a workload raises becomes a row
        if not isinstance(error, BenchError):
            traceback.print_exc()
        messages.send(failure_of(error, device=request.config.device))
    return 0


def run_request(request: TrialRequest, messages: Messages, *, ranks: Ranks | None = None) -> None:
    """Run the trial in this process, as one of several ranks or alone."""
    if request.config.device == "fake":
        _run_fake(request, messages)
    else:
        _run_torch(request, messages, ranks=ranks)


def _run_fake(request: TrialRequest, messages: Messages) -> None:
    from bench.measure.engine.fake_engine import FakeEngine

    clock = FakeClock()
    engine = FakeEngine(request, clock=clock)
    measured = _measure(engine, request, clock=clock, messages=messages)
    row = fake_columns(engine, measured, config=request.config)
    send_result(messages, row, request=request, measured=measured, findings=Findings())


def _run_torch(request: TrialRequest, messages: Messages, *, ranks: Ranks | None) -> None:
    start_s = time.perf_counter()
    messages.stage("import")
    data_seed = _join(ranks, request=request)
    from bench.measure.engine.torch_engine import TorchEngine
    from bench.measure.pipeline.pipeline_engine import PipelineEngine

    if request.config.layout.strategy == "pp":
        engine: TorchEngine = PipelineEngine(request, on_stage=messages.stage)
    else:
        engine = TorchEngine(request, on_stage=messages.stage, data_seed=data_seed, ranks=ranks)
    # Destroying a DDP joins gloo's thread with the interpreter locked, and that thread wants it.
    messages.kept = engine
    import_s = time.perf_counter() - start_s
    engine.build()
    engine.cold_s["import"] = engine.cold_s.get("import", 0.0) + import_s
    init_peak_bytes = engine.adapter.peak_allocated_bytes()
    measured = _measure(engine, request, clock=HostClock(), messages=messages, ranks=ranks)
    row, findings = torch_columns(
        engine, measured, config=request.config, init_peak_bytes=init_peak_bytes
    )
    if ranks is not None:
        row |= rank_columns()
        findings = of_all_ranks(findings, ranks=ranks)
    send_result(messages, row, request=request, measured=measured, findings=findings)


def _join(ranks: Ranks | None, *, request: TrialRequest) -> int:
    """Bind a rank to its device and its group; return the seed of this process's data."""
    config = request.config
    if ranks is None:
        return config.seed
    from bench.parallel.ranks import bind_device, data_rank, start_group

    bind_device(ranks, device=config.device)
    if config.layout.mode == "real":  # a throttled group is made with its link
        start_group(ranks, device=config.device)
    return config.seed + data_rank(ranks.rank, layout=config.layout)


def _measure(
    engine: Engine,
    request: TrialRequest,
    *,
    clock: Clock,
    messages: Messages,
    ranks: Ranks | None = None,
) -> Measured:
    """Warm up, then measure."""
    agree = None if ranks is None else ranks.agree
    messages.stage("warmup")
    warmup = warm_up(engine, clock=clock, limits=request.limits, agree=agree)
    engine.begin_window()
    messages.stage("window")
    graphs = engine.recompiles()
    enough = window.measured_enough(request.limits)

    def should_stop(elapsed_s: float, step_s: list[float]) -> bool:
        if step_s:
            latest = step_s[-PROGRESS_STEPS:]
            mean_s = sum(latest) / len(latest)
            messages.send(StepsSoFar(elapsed_s=elapsed_s, steps=len(step_s), step_s=mean_s))
        return enough(elapsed_s, step_s)

    measured = window.run_window(
        engine,
        clock=clock,
        should_stop=should_stop,
        expected_step_s=warmup.step_s[-1],
        agree=agree,
    )
    return Measured(warmup=warmup, window=measured, has_recompiled=engine.recompiles() != graphs)


if __name__ == "__main__":
    leave(main())
