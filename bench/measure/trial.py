"""One trial in a process of its own: `python -m bench.measure.trial FD`.

The request comes as one line on standard input, which then stays open: when it closes, the parent
is gone and so is the trial. Messages go to the file descriptor as JSON lines: the stage reached,
the running estimate once a second, and at the end the columns of the row, or what went wrong in a
code that a row can carry. Exit code 0: a result or a failure was given; anything else is a crash.
A trial on several real devices is as many processes: `bench.measure.ranks.rank_trial`.
"""

from __future__ import annotations

import resource
import sys
import time
import traceback

from bench.core.errors import BenchError
from bench.measure.asking import end_with_parent, failure_of, leave, peak_rss_bytes, pin
from bench.measure.engine.engine import Engine, FakeEngine
from bench.measure.messages import Messages, Samples, StepsSoFar, TrialRequest, TrialResult, decode
from bench.measure.timing import summary
from bench.measure.timing.clock import Clock, FakeClock, HostClock
from bench.measure.timing.warmup import warm_up
from bench.measure.timing.window import measured_enough, run_window
from bench.measure.trial_result import Measured, Problems, fake_columns, of_all_ranks, torch_columns
from bench.parallel.ranks import Ranks, bind_device, start_group
from bench.results.schema import Row

PROGRESS_STEPS = 50
"""The running estimate rests on this many of the latest steps."""


def main() -> int:
    """Run the trial that standard input asks for."""
    messages = Messages(int(sys.argv[1]))
    request = decode(sys.stdin.readline(), TrialRequest)
    end_with_parent()
    pin(request.cpu_ids)
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
        clock = FakeClock()
        engine = FakeEngine(request, clock=clock)
        measured = _measure(engine, request, clock=clock, messages=messages)
        row = fake_columns(engine, measured)
        _send(messages, row, request=request, measured=measured, problems=[])
    else:
        _run_torch(request, messages, ranks=ranks)


def _run_torch(request: TrialRequest, messages: Messages, *, ranks: Ranks | None) -> None:
    start_s = time.perf_counter()
    messages.stage("import")
    config = request.config
    if ranks is not None:
        bind_device(ranks, device=config.device)
        if config.layout.mode == "real":  # a throttled group is made with its link
            start_group(ranks, device=config.device)
    from bench.measure.engine.torch_engine import TorchEngine
    from bench.measure.pipeline.pipeline_engine import PipelineEngine

    kind = PipelineEngine if config.layout.strategy == "pp" else TorchEngine
    engine = kind(request, on_stage=messages.stage, ranks=ranks)
    # Destroying a DDP joins gloo's thread with the interpreter locked, and that thread wants it.
    messages.kept = engine
    import_s = time.perf_counter() - start_s
    engine.build()
    engine.cold_s["import"] += import_s
    measured = _measure(engine, request, clock=HostClock(), messages=messages, ranks=ranks)
    row, problems = torch_columns(engine, measured)
    if ranks is not None:
        # Its own: its agent's would be the parent's to see.
        row["rss_peak_bytes"] = peak_rss_bytes(resource.getrusage(resource.RUSAGE_SELF))
        row["import_s"] = None  # torch was imported to find the other ranks, before any clock ran
        problems = of_all_ranks(problems, ranks=ranks)
    _send(messages, row, request=request, measured=measured, problems=problems)


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
    enough = measured_enough(request.limits)

    def should_stop(elapsed_s: float, step_s: list[float]) -> bool:
        if step_s:
            latest = step_s[-PROGRESS_STEPS:]
            mean_s = sum(latest) / len(latest)
            messages.send(StepsSoFar(elapsed_s=elapsed_s, steps=len(step_s), step_s=mean_s))
        return enough(elapsed_s, step_s)

    measured = run_window(
        engine,
        clock=clock,
        should_stop=should_stop,
        expected_step_s=warmup.step_s[-1],
        agree=agree,
    )
    return Measured(warmup=warmup, window=measured, has_recompiled=engine.recompiles() != graphs)


def _send(
    messages: Messages, row: Row, *, request: TrialRequest, measured: Measured, problems: Problems
) -> None:
    """Send the parent everything, with the reasons that the window itself gives."""
    warmup, window = measured.warmup, measured.window
    window_reasons = summary.trial_reasons(
        window, warmup=warmup, limits=request.limits, recompiled=measured.has_recompiled
    )
    waits_s = [count.data_wait_s for count in window.counts]
    result = TrialResult(
        row=row,
        reasons=[*dict.fromkeys(code for code, _ in problems), *window_reasons],
        detail="; ".join(words for _, words in problems if words),
        window_start_s=window.start_s,
        window_end_s=window.end_s,
        samples=Samples(
            warmup_step_s=warmup.step_s,
            step_s=window.step_s,
            step_clock=window.step_clock,
            data_wait_s=waits_s if "data_wait_s" in row else None,
        ),
    )
    messages.send(result)


if __name__ == "__main__":
    leave(main())
