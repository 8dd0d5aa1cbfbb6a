"""One trial in a process of its own: `python -m bench.measure.trial FD`.

The request comes as one line on standard input, which then stays open: when it closes, the parent
is gone and so is the trial. Messages go to the file descriptor as JSON lines: the stage reached,
the running estimate once a second, and at the end the columns of the row, or what went wrong in a
code that a row can carry. Exit code 0: a result or a failure was told; anything else is a crash.
A trial on several real devices is as many processes: `bench.measure.rank_trial`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any, NoReturn

from bench.core.errors import BenchError
from bench.core.statistics import median
from bench.measure import summary, window
from bench.measure.clock import Clock, FakeClock, HostClock
from bench.measure.engine import Engine
from bench.measure.messages import Messages
from bench.measure.modelled_link import is_of_virtual_ranks
from bench.measure.request import TrialRequest
from bench.measure.warmup import Warmup, warm_up
from bench.results.schema import Row

if TYPE_CHECKING:
    from bench.measure.torch_engine import TorchEngine
    from bench.parallel.ranks import Ranks

PROGRESS_STEPS = 50
"""The running estimate rests on this many of the latest steps."""


def main() -> int:
    """Run the trial that standard input asks for."""
    messages = Messages(int(sys.argv[1]))
    request = TrialRequest.from_json(sys.stdin.readline())
    threading.Thread(target=exit_with_parent, daemon=True).start()
    if request.cpu_ids and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, request.cpu_ids)
    try:
        run_request(request, messages)
    except BenchError as error:
        messages.send("failure", code=error.reason, detail=str(error))
    except Exception as error:  # the one place where anything a workload raises becomes a row
        traceback.print_exc()
        messages.send("failure", **failure_of(error, device=request.config.device))
    return 0


def run_request(request: TrialRequest, messages: Messages, *, ranks: Ranks | None = None) -> None:
    """Run the trial in this process, as one of several ranks or alone."""
    if request.config.device == "fake":
        _run_fake(request, messages)
    else:
        _run_torch(request, messages, ranks=ranks)


def exit_with_parent() -> None:
    """Wait for standard input to close, then end this process and its own."""
    # Not through sys.stdin: its lock would be held when a loader worker is forked, and the worker,
    # which closes its copy of it, would wait for that lock for ever.
    while os.read(0, 1024):
        pass
    # The trial leads a process group of its own: its loader workers end with it.
    if os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(3)


def failure_of(error: Exception, *, device: str) -> dict[str, str]:
    """Name the failure by code, with the last line of what was raised."""
    lines = str(error).strip().splitlines() or [""]
    detail = f"{type(error).__name__}: {lines[0]}"[:500]
    if isinstance(error, MemoryError):
        return {"code": "out_of_memory", "detail": detail}
    if device != "fake":
        from bench.devices.torch_adapter import adapter_for

        if adapter_for(device).is_out_of_memory(error):
            return {"code": "out_of_memory", "detail": detail}
    text = str(error)
    lacks_operator = isinstance(error, NotImplementedError) or "not implemented for" in text
    return {"code": "unsupported_op" if lacks_operator else "error", "detail": detail}


def _run_fake(request: TrialRequest, messages: Messages) -> None:
    from bench.measure.fake_engine import FakeEngine
    from bench.measure.spread_rows import fake_spread_rows

    clock = FakeClock()
    engine = FakeEngine(request, clock=clock)
    warmup, measured, recompiled = _measure(engine, request, clock=clock, messages=messages)
    told, spread_columns = fake_spread_rows(
        measured,
        layout=request.config.layout,
        num_parameters=engine.workload.num_parameters(),
        seed=request.config.seed,
    )
    row = summary.speed_columns(told) | spread_columns
    row |= summary.latency_columns(told, workload=engine.workload, phase=engine.phase)
    row |= summary.traffic_columns(
        workload=engine.workload, phase=engine.phase, dtype=request.config.dtype
    )
    row |= summary.cold_columns(warmup, cold_s={}, config=request.config, median_s=None)
    _send_result(
        messages, row, request=request, warmup=warmup, measured=measured, recompiled=recompiled
    )


def _run_torch(request: TrialRequest, messages: Messages, *, ranks: Ranks | None) -> None:
    start_s = time.perf_counter()
    messages.stage("import")

    from bench.measure.spread_rows import spread_rows

    config = request.config
    data_seed = config.seed
    if ranks is not None:
        from bench.parallel.ranks import bind_device, data_rank, start_group

        bind_device(ranks, device=config.device)
        if config.layout.mode == "real":  # a throttled group is made with its link
            start_group(ranks, device=config.device)
        data_seed += data_rank(ranks.rank, layout=config.layout)
    engine = _make_engine(request, messages, data_seed=data_seed, ranks=ranks)
    # Destroying a DDP joins gloo's thread with the interpreter locked, and that thread wants it.
    messages.kept = engine
    import_s = time.perf_counter() - start_s
    engine.build()
    engine.cold_s["import"] += import_s
    init_peak_bytes = engine.adapter.peak_allocated_bytes()
    warmup, measured, recompiled = _measure(
        engine, request, clock=HostClock(), messages=messages, ranks=ranks
    )
    median_s = median(measured.step_s) if measured.step_s else None
    told, spread_columns, spread_reasons = spread_rows(engine, measured, seed=config.seed)
    row = summary.speed_columns(told) | spread_columns
    row |= summary.wait_columns(measured, uses_loader=engine.uses_loader)
    latency = summary.latency_columns(told, workload=engine.workload, phase=engine.phase)
    row |= {
        name: value * config.layout.data
        if name.endswith("_tok_per_s") and isinstance(value, float)
        else value
        for name, value in latency.items()
    }
    row |= summary.traffic_columns(
        workload=engine.workload, phase=engine.phase, dtype=request.config.dtype
    )
    row |= summary.cold_columns(
        warmup, cold_s=engine.cold_s, config=request.config, median_s=median_s
    )
    row["num_parameters"] = engine.num_parameters
    if engine.granted is not None:
        row["chip_limit"] = engine.granted.label
    if config.layout.strategy != "pp":  # there one device held every stage
        row |= {
            "mem_alloc_peak_bytes": engine.adapter.peak_allocated_bytes(),
            "mem_reserved_peak_bytes": engine.adapter.peak_reserved_bytes(),
            "mem_init_peak_bytes": init_peak_bytes,
        }
    reasons, detail = _correctness(engine, row)
    reasons += spread_reasons
    if ranks is not None:
        row["rss_peak_bytes"] = _rss_peak_bytes()
        row["import_s"] = None  # torch was imported to find the other ranks, before any clock ran
        reasons, detail = _of_all_ranks(ranks, reasons=reasons, detail=detail)
    _send_result(
        messages,
        row,
        request=request,
        warmup=warmup,
        measured=measured,
        recompiled=recompiled,
        reasons=reasons,
        detail=detail,
    )


def _make_engine(
    request: TrialRequest, messages: Messages, *, data_seed: int, ranks: Ranks | None
) -> TorchEngine:
    from bench.measure.pipeline_engine import PipelineEngine
    from bench.measure.torch_engine import TorchEngine

    if request.config.layout.strategy == "pp":
        return PipelineEngine(request, on_stage=messages.stage)
    return TorchEngine(request, on_stage=messages.stage, data_seed=data_seed, ranks=ranks)


def _of_all_ranks(ranks: Ranks, *, reasons: list[str], detail: str) -> tuple[list[str], str]:
    """Return, at rank 0, what any rank found wrong with its output; each is waited for."""
    every = ranks.gather([reasons, detail])
    codes = [code for found, _ in every for code in found]
    details = [f"rank {rank}: {words}" for rank, (_, words) in enumerate(every) if words]
    return list(dict.fromkeys(codes)), "; ".join(details)


def _rss_peak_bytes() -> int:
    """Peak resident memory of this rank; its agent's would be the parent's to see."""
    import resource

    # Kilobytes on Linux, bytes on macOS: getrusage(2).
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


def _correctness(engine: Any, row: Row) -> tuple[list[str], str]:
    """Fill the columns of correctness; return reason codes and a line in words."""
    reasons, details = [], []
    # A loss that is not finite has no place in the file: its row says so in words.
    # Of virtual ranks' gradients there are none, so that theirs would be no training's loss.
    if not is_of_virtual_ranks(engine.layout):
        row["loss_first"], row["loss_last"] = (_finite(value) for value in engine.losses())
    problem = engine.output_problem()
    if problem is not None:
        code, words = problem
        reasons.append(code)
        details.append(words)
    check = engine.check
    if check is not None:
        row["check_value"] = check.value
        row["check_error_frac"] = check.error_frac
        row["check_tolerance_frac"] = check.tolerance_frac
        if check.error_frac is None:
            reasons.append("nonfinite")
            details.append("the output at tiny is not finite")
        elif check.is_wrong:
            reasons.append("wrong_output")
            details.append(
                f"output at tiny is {check.error_frac:.2g} from the CPU's fp32 result, "
                f"tolerance {check.tolerance_frac:.2g}"
            )
    return reasons, "; ".join(details)


def _finite(value: float | None) -> float | None:
    return value if value is not None and abs(value) < float("inf") else None


def _measure(
    engine: Engine,
    request: TrialRequest,
    *,
    clock: Clock,
    messages: Messages,
    ranks: Ranks | None = None,
) -> tuple[Warmup, window.Window, bool]:
    """Warm up, then measure; the flag says whether torch.compile made graphs in the window."""
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
            messages.send(
                "progress",
                elapsed_s=elapsed_s,
                steps=len(step_s),
                step_s=sum(latest) / len(latest),
            )
        return enough(elapsed_s, step_s)

    measured = window.run_window(
        engine,
        clock=clock,
        should_stop=should_stop,
        expected_step_s=warmup.step_s[-1],
        agree=agree,
    )
    return warmup, measured, engine.recompiles() != graphs


def _send_result(
    messages: Messages,
    row: Row,
    *,
    request: TrialRequest,
    warmup: Warmup,
    measured: window.Window,
    recompiled: bool,
    reasons: list[str] | None = None,
    detail: str = "",
) -> None:
    wait_frac = row.get("data_wait_frac")
    reasons = [
        *(reasons or []),
        *summary.trial_reasons(
            measured,
            warmup=warmup,
            limits=request.limits,
            recompiled=recompiled,
            wait_frac=wait_frac if isinstance(wait_frac, float) else None,
        ),
    ]
    messages.send(
        "result",
        row=row,
        reasons=reasons,
        detail=detail,
        window_start_s=measured.start_s,
        window_end_s=measured.end_s,
        samples={
            "warmup_step_s": warmup.step_s,
            "step_s": measured.step_s,
            "step_clock": measured.step_clock,
            "data_wait_s": [count.data_wait_s for count in measured.counts]
            if wait_frac is not None
            else None,
        },
    )


def leave(code: int) -> NoReturn:
    """End at once: the interpreter's teardown waits for loader workers and device contexts."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    leave(main())
