"""One trial in a process of its own: `python -m bench.measure.trial FD`.

The request comes as one line on standard input, which then stays open: when it closes, the parent
is gone and so is the trial. Messages go to the file descriptor as JSON lines: the stage reached,
the running estimate once a second, and at the end the columns of the row, or what went wrong in a
code that a row can carry. Exit code 0: a result or a failure was given; anything else is a crash.
A trial on several real devices is as many processes: `bench.measure.ranks.rank_trial`.

Columns are made when the window is over: reading memory's peaks, tracing a modelled link's steps
and looking at the output disturb no step that counts. In mode `simulated` steps are measured on a
link that takes no time: the row's are replays of them on the link, and so are those of further
links that are asked for: their compute was measured once. Everything else was measured in
the window; what comes after it (traced steps on an accelerator, the contended end of the bracket)
never enters the speed. What was seen from outside the process is its parent's.
"""

from __future__ import annotations

import math
import resource
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any

from bench.core.errors import BenchError
from bench.core.nouns import Layout
from bench.hardware.costs.cost import model_of
from bench.measure.asking import end_with_parent, failure_of, leave, peak_rss_bytes, pin
from bench.measure.communication.communication import (
    MOST_TRACES,
    communication_columns,
    fake_trace,
)
from bench.measure.declarations import declaration_problems
from bench.measure.engine.engine import Engine, FakeEngine, StepCount, Stepping
from bench.measure.messages import Messages, Samples, StepsSoFar, TrialRequest, TrialResult, decode
from bench.measure.timing import summary
from bench.measure.timing.validity import Problems
from bench.measure.timing.warmup import Warmup, warming_up
from bench.measure.timing.window import (
    Agree,
    Window,
    measured_enough,
    window_of,
)
from bench.parallel.ranks import Ranks, bind_device, start_group
from bench.results.schema import Row

if TYPE_CHECKING:
    from bench.measure.engine.torch_engine import TorchEngine

PROGRESS_STEPS = 50
"""The running estimate rests on this many of the latest steps."""
CHECKED = ("value", "error_frac", "tolerance_frac")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Steps of one trial, as the clock saw them."""

    warmup: Warmup
    window: Window
    has_recompiled: bool
    """Whether torch.compile made graphs in the window."""


def fake_columns(engine: FakeEngine, measured: Measured, *, link: str) -> Row:
    """Return the columns of a trial in simulated time."""
    layout, reported = engine.config.layout, measured.window
    row: Row = {}
    if link:
        kind: Any = {"layout": replace(layout, mode="simulated"), "model": model_of(link)}
        num_parameters = engine.workload.num_parameters()
        traces = [
            fake_trace(step_s, num_parameters=num_parameters, **kind)
            for step_s in reported.step_s[-MOST_TRACES:]
        ]
        row, _, step_s = communication_columns(traces, **kind)
        row["overlap"] = "yes" if layout.strategy == "ddp" else "none: waited for at once"
        reported = _replayed(reported, step_s=step_s, counts=reported.counts[-len(step_s) :])
    reported = _of_all_replicas(reported, layout=layout)
    row |= _step_columns(reported, engine=engine)
    return row | summary.cold_columns(measured.warmup, config=engine.config, cold_s={}, step_s=())


def torch_columns(engine: TorchEngine, measured: Measured) -> tuple[Row, Problems]:
    """Return the columns of a trial on a device, and what is wrong with it."""
    config, step_s = engine.config, measured.window.step_s
    row, reasons = _columns_over(config.layout.link, engine=engine, measured=measured.window)
    row |= summary.cold_columns(measured.warmup, config=config, cold_s=engine.cold_s, step_s=step_s)
    row |= {"num_parameters": engine.num_parameters, "optimizer": engine.optimizer_label}
    if engine.granted is not None:
        row["chip_limit"] = engine.granted.label
    if config.layout.strategy != "pp":  # there one device held every stage
        row["mem_alloc_peak_bytes"] = engine.adapter.peak_allocated_bytes()
        row["mem_reserved_peak_bytes"] = engine.adapter.peak_reserved_bytes()
        row["mem_init_peak_bytes"] = engine.init_peak_bytes
    # A loss that is not finite has no place in the file: its row says so in words.
    # Of virtual ranks' gradients there are none, so that theirs would be no training's loss.
    if config.layout.devices == 1 or config.layout.mode in ("real", "throttled"):
        for name, loss in zip(("loss_first", "loss_last"), engine.losses(), strict=True):
            row[name] = loss if loss is not None and math.isfinite(loss) else None
    found = [engine.output_problem()]
    if (check := engine.check) is not None:
        row |= {f"check_{figure}": getattr(check, figure) for figure in CHECKED}
        found.append(check.problem)
    if engine.lacks_graphs():
        reasons.append("no_cuda_graphs")
    problems = [*filter(None, found), *((code, "") for code in reasons)]
    return row, problems + declaration_problems(engine)


def _columns_over(link: str, *, engine: TorchEngine, measured: Window) -> tuple[Row, list[str]]:
    """Return the columns of the steps over this link, '' where none is modelled, and reasons."""
    reported, spread, reasons = layout_columns(engine, measured, link=link)
    row = _step_columns(reported, engine=engine)
    row |= summary.wait_columns(reported, uses_loader=engine.uses_loader)
    return row | spread, reasons


def _step_columns(reported: Window, *, engine: FakeEngine | TorchEngine) -> Row:
    sequences = engine.workload.batch_size(engine.phase) * engine.config.layout.data
    row = summary.speed_columns(reported)
    row |= summary.latency_columns(reported, phase=engine.phase, sequences=sequences)
    return row | summary.item_columns(engine.resident)


def layout_columns(engine: Engine, measured: Window, *, link: str) -> tuple[Window, Row, list[str]]:
    """Return the window that the row's speed comes from, all devices counted; columns; reasons."""
    layout, modelled = engine.layout, engine.link
    if layout.is_single and layout.grad_accum == 1:
        return measured, {}, []
    if layout.strategy == "pp":
        from bench.measure.engine.pipeline_engine import PipelineEngine

        assert isinstance(engine, PipelineEngine)
        return *engine.simulated(measured, model=model_of(link)), []
    row: Row = {"overlap": engine.overlap or None}
    if modelled is None:
        return _of_all_replicas(measured, layout=layout), row, []
    modelled.traces.end()
    linked, reasons, step_s = communication_columns(
        [notes.trace for _, notes in modelled.traces.kept],
        layout=layout,
        model=model_of(link),
        ran_s=() if layout.mode == "simulated" else measured.step_s,
        waits_hide=modelled.waits_hide,
    )
    row |= linked
    if layout.mode == "simulated":
        first = len(measured.counts) - modelled.traces.num_seen
        counts = [measured.counts[first + number] for number, _ in modelled.traces.kept]
        measured = _replayed(measured, step_s=step_s, counts=counts)
    else:
        row |= modelled.contended_columns(measured.step_s, row=row)
    return _of_all_replicas(measured, layout=layout), row, reasons


def _replayed(measured: Window, *, step_s: list[float], counts: Sequence[StepCount]) -> Window:
    """Return the window whose steps are the traced ones as they would be on the link."""
    end_s = sum(step_s) + measured.apart_s  # which the window's length is without
    return replace(measured, step_s=step_s, counts=list(counts), start_s=0.0, end_s=end_s)


def _of_all_replicas(measured: Window, *, layout: Layout) -> Window:
    """Count what the data replicas processed together: each does what this one did."""
    return replace(measured, counts=[count.times(layout.data) for count in measured.counts])


def main(run: Callable[[TrialRequest, Messages], None]) -> int:
    """Run the trial that standard input asks for."""
    messages = Messages(int(sys.argv[1]))
    request = decode(sys.stdin.readline(), TrialRequest)
    end_with_parent()
    pin(request.cpu_ids)
    try:
        run(request, messages)
    except Exception as error:  # the one place where anything a workload raises becomes a row
        if not isinstance(error, BenchError):
            traceback.print_exc()
        messages.send(failure_of(error, device=request.config.device))
    return 0


def run_request(request: TrialRequest, messages: Messages, *, ranks: Ranks | None = None) -> None:
    """Run the trial in this process, as one of several ranks or alone."""
    if request.config.device == "fake":
        engine = FakeEngine(request)
        measured = _measure(engine, request, messages=messages)
        links = (request.config.layout.link, *request.also_links)
        rows = [fake_columns(engine, measured, link=link) for link in links]
        send_result(messages, rows, request=request, measured=measured, problems=[])
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
    from bench.measure.engine.pipeline_engine import PipelineEngine
    from bench.measure.engine.torch_engine import TorchEngine

    kind = PipelineEngine if config.layout.strategy == "pp" else TorchEngine
    engine = kind(request, on_stage=messages.stage, ranks=ranks)
    # Destroying a DDP joins gloo's thread with the interpreter locked, and that thread wants it.
    messages.kept = engine
    import_s = time.perf_counter() - start_s
    engine.build()
    engine.cold_s["import"] += import_s
    measured = _measure(engine, request, messages=messages, ranks=ranks)
    row, problems = torch_columns(engine, measured)
    if ranks is not None:
        # Its own: its agent's would be the parent's to see.
        row["rss_peak_bytes"] = peak_rss_bytes(resource.getrusage(resource.RUSAGE_SELF))
        row["import_s"] = None  # torch was imported to find the other ranks, before any clock ran
        problems = [  # any rank's; each is waited for
            (code, words and f"rank {rank}: {words}")
            for rank, found in enumerate(ranks.gather(problems))
            for code, words in found
        ]
    columns_over = partial(_columns_over, engine=engine, measured=measured.window)
    rows = [row, *(row | columns_over(link)[0] for link in request.also_links)]
    send_result(messages, rows, request=request, measured=measured, problems=problems)


def _measure(
    engine: Engine, request: TrialRequest, *, messages: Messages, ranks: Ranks | None = None
) -> Measured:
    agree = None if ranks is None else ranks.agree
    return engine.drive(measuring(engine, request, messages=messages, agree=agree))


def measuring(
    engine: Engine, request: TrialRequest, *, messages: Messages, agree: Agree | None = None
) -> Stepping[Measured]:
    """Warm up, time the window and trace what it did not, of steps that whoever drives it does."""
    messages.stage("warmup")
    warmup = yield from warming_up(engine, limits=request.limits, agree=agree)
    engine.begin_window()
    messages.stage("window")
    graphs = engine.recompiles()
    enough = measured_enough(request.limits)

    def should_stop(elapsed_s: float, step_s: list[float]) -> bool:
        if step_s:
            mean_s = fmean(step_s[-PROGRESS_STEPS:])
            messages.send(StepsSoFar(elapsed_s=elapsed_s, steps=len(step_s), step_s=mean_s))
        return enough(elapsed_s, step_s)

    asked: Any = {"should_stop": should_stop, "agree": agree, "ends_round": True}
    window = yield from window_of(engine, expected_step_s=warmup.step_s[-1], **asked)
    has_recompiled = engine.recompiles() != graphs
    if engine.link is not None:
        # On an accelerator: traced after the window, where that cannot disturb it.
        yield from engine.link.tracing_afterwards()
    return Measured(warmup=warmup, window=window, has_recompiled=has_recompiled)


def send_result(
    messages: Messages,
    rows: list[Row],
    *,
    request: TrialRequest,
    measured: Measured,
    problems: Problems,
) -> None:
    """Send the row, and those over further links, with the steps that they rest on."""
    warmup, window = measured.warmup, measured.window
    problems = problems + summary.trial_problems(
        window, warmup=warmup, limits=request.limits, recompiled=measured.has_recompiled
    )
    waits_s = [count.data_wait_s for count in window.counts]
    result = TrialResult(
        row=rows[0],
        over_links=dict(zip(request.also_links, rows[1:], strict=True)),
        reasons=list(dict.fromkeys(code for code, _ in problems)),
        detail="; ".join(words for _, words in problems if words),
        window_start_s=window.start_s,
        window_end_s=window.end_s,
        samples=Samples(
            warmup_step_s=warmup.step_s,
            step_s=window.step_s,
            step_clock=window.step_clock,
            data_wait_s=waits_s if "data_wait_s" in rows[0] else None,
        ),
    )
    messages.send(result)


if __name__ == "__main__":
    leave(main(run_request))
