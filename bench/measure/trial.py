"""One trial in a process of its own: `python -m bench.measure.trial FD`.

The request comes as one line on standard input, which then stays open: when it closes, the parent
is gone and so is the trial. Messages go to the file descriptor as JSON lines: the stage reached,
the running estimate once a second, and at the end the columns of the row, or what went wrong in a
code that a row can carry. Exit code 0: a result or a failure was told; anything else is a crash.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from typing import Any, BinaryIO

from bench.core.errors import BenchError
from bench.core.statistics import median
from bench.measure import summary, window
from bench.measure.clock import Clock, FakeClock, HostClock
from bench.measure.engine import Engine
from bench.measure.request import TrialRequest
from bench.measure.warmup import Warmup, warm_up
from bench.results.schema import Row

PROGRESS_STEPS = 50
"""The running estimate rests on this many of the latest steps."""


class Messages:
    """JSON lines to the parent."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def send(self, event: str, **values: Any) -> None:
        """Write one message at once."""
        line = json.dumps({"event": event, **values}, allow_nan=False)
        self._stream.write(line.encode() + b"\n")
        self._stream.flush()

    def stage(self, name: str) -> None:
        """Tell what is being done."""
        self.send("stage", name=name)


def main() -> int:
    """Run the trial that standard input asks for."""
    messages = Messages(os.fdopen(int(sys.argv[1]), "wb", buffering=0))
    request = TrialRequest.from_json(sys.stdin.readline())
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    if request.cpu_ids and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, request.cpu_ids)
    try:
        if request.config.device == "fake":
            _run_fake(request, messages)
        else:
            _run_torch(request, messages)
    except BenchError as error:
        messages.send("failure", code="error", detail=str(error))
    except Exception as error:  # the one place where anything a workload raises becomes a row
        traceback.print_exc()
        messages.send("failure", **_failure(request, error))
    return 0


def _exit_with_parent() -> None:
    # Not through sys.stdin: its lock would be held when a loader worker is forked, and the worker,
    # which closes its copy of it, would wait for that lock for ever.
    while os.read(0, 1024):
        pass
    # The trial leads a process group of its own: its loader workers end with it.
    if os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(3)


def _failure(request: TrialRequest, error: Exception) -> dict[str, str]:
    """Name the failure by code, with the last line of what was raised."""
    lines = str(error).strip().splitlines() or [""]
    detail = f"{type(error).__name__}: {lines[0]}"[:500]
    if isinstance(error, MemoryError):
        return {"code": "out_of_memory", "detail": detail}
    if request.config.device != "fake":
        from bench.devices.torch_adapter import adapter_for

        if adapter_for(request.config.device).is_out_of_memory(error):
            return {"code": "out_of_memory", "detail": detail}
    text = str(error)
    lacks_operator = isinstance(error, NotImplementedError) or "not implemented for" in text
    return {"code": "unsupported_op" if lacks_operator else "error", "detail": detail}


def _run_fake(request: TrialRequest, messages: Messages) -> None:
    from bench.measure.fake_engine import FakeEngine

    clock = FakeClock()
    engine = FakeEngine(request, clock=clock)
    warmup, measured, recompiled = _measure(engine, request, clock=clock, messages=messages)
    row = summary.speed_columns(measured)
    row |= summary.latency_columns(measured, workload=engine.workload, phase=engine.phase)
    row |= summary.traffic_columns(
        workload=engine.workload, phase=engine.phase, dtype=request.config.dtype
    )
    row |= summary.cold_columns(warmup, cold_s={}, config=request.config, median_s=None)
    _send_result(
        messages, row, request=request, warmup=warmup, measured=measured, recompiled=recompiled
    )


def _run_torch(request: TrialRequest, messages: Messages) -> None:
    start_s = time.perf_counter()
    messages.stage("import")

    from bench.measure.torch_engine import TorchEngine

    engine = TorchEngine(request, on_stage=messages.stage)
    import_s = time.perf_counter() - start_s
    engine.build()
    engine.cold_s["import"] += import_s
    init_peak_bytes = engine.adapter.peak_allocated_bytes()
    warmup, measured, recompiled = _measure(engine, request, clock=HostClock(), messages=messages)
    median_s = median(measured.step_s) if measured.step_s else None
    row = summary.speed_columns(measured)
    row |= summary.wait_columns(measured, uses_loader=engine.uses_loader)
    row |= summary.latency_columns(measured, workload=engine.workload, phase=engine.phase)
    row |= summary.traffic_columns(
        workload=engine.workload, phase=engine.phase, dtype=request.config.dtype
    )
    row |= summary.cold_columns(
        warmup, cold_s=engine.cold_s, config=request.config, median_s=median_s
    )
    row |= {
        "mem_alloc_peak_bytes": engine.adapter.peak_allocated_bytes(),
        "mem_reserved_peak_bytes": engine.adapter.peak_reserved_bytes(),
        "mem_init_peak_bytes": init_peak_bytes,
        "num_parameters": engine.num_parameters,
    }
    reasons, detail = _correctness(engine, row)
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


def _correctness(engine: Any, row: Row) -> tuple[list[str], str]:
    """Fill the columns of correctness; return reason codes and a line in words."""
    reasons, details = [], []
    # A loss that is not finite has no place in the file: its row says so in words.
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
    engine: Engine, request: TrialRequest, *, clock: Clock, messages: Messages
) -> tuple[Warmup, window.Window, bool]:
    """Warm up, then measure; the flag says whether torch.compile made graphs in the window."""
    messages.stage("warmup")
    warmup = warm_up(engine, clock=clock, limits=request.limits)
    if hasattr(engine, "adapter"):
        engine.adapter.reset_peak_memory()
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
        engine, clock=clock, should_stop=should_stop, expected_step_s=warmup.step_s[-1]
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


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Skips the interpreter's teardown, which waits for loader workers and device contexts.
    os._exit(code)
