"""What a trial shows when it has been measured: columns, reasons and samples.

Called when the window is over: nothing here is timed, and reading memory's peaks, tracing a
modelled link's steps and looking at the output disturb no step that counts. The arithmetic of the
columns is in `summary` and `layout_rows`; what was seen from outside the process is its parent's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.core.nouns import Config
from bench.core.statistics import median
from bench.measure.communication.layout_rows import fake_layout_rows, layout_rows
from bench.measure.communication.modelled_link import is_of_virtual_ranks
from bench.measure.ending import peak_rss_bytes
from bench.measure.engine.precision import DTYPE_BYTES
from bench.measure.messages import Messages, Samples, TrialRequest, TrialResult
from bench.measure.timing import summary
from bench.measure.timing.warmup import Warmup
from bench.measure.timing.window import Window
from bench.results.schema import Row
from bench.workload import Phase, Workload

if TYPE_CHECKING:
    from bench.measure.engine.fake_engine import FakeEngine
    from bench.measure.engine.torch_engine import TorchEngine
    from bench.parallel.ranks import Ranks


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Steps of one trial, as the clock saw them."""

    warmup: Warmup
    window: Window
    has_recompiled: bool
    """Whether torch.compile made graphs in the window."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Reason codes of a trial, and a line in words for those that need one."""

    reasons: Sequence[str] = ()
    detail: str = ""


def fake_columns(engine: FakeEngine, measured: Measured, *, config: Config) -> Row:
    """Return the columns of a trial in simulated time."""
    reported = measured.window
    layout_columns: Row = {}
    if not config.layout.is_single:
        reported, layout_columns = fake_layout_rows(
            measured.window,
            layout=config.layout,
            num_parameters=engine.workload.num_parameters(),
        )
    row = _step_columns(reported, workload=engine.workload, phase=engine.phase, config=config)
    row |= summary.cold_columns(measured.warmup, cold_s={}, config=config, median_s=None)
    return row | layout_columns


def torch_columns(
    engine: TorchEngine, measured: Measured, *, config: Config, init_peak_bytes: int | None
) -> tuple[Row, Findings]:
    """Return the columns of a trial on a device, and what is wrong with it.

    `init_peak_bytes` is the allocator's peak before the first step.
    """
    step_s = measured.window.step_s
    reported, layout_columns, reasons = layout_rows(engine, measured.window)
    row = _step_columns(reported, workload=engine.workload, phase=engine.phase, config=config)
    row |= summary.wait_columns(measured.window, uses_loader=engine.uses_loader)
    row |= summary.cold_columns(
        measured.warmup,
        cold_s=engine.cold_s,
        config=config,
        median_s=median(step_s) if step_s else None,
    )
    row |= layout_columns
    row["num_parameters"] = engine.num_parameters
    row["optimizer"] = engine.optimizer_label
    if engine.granted is not None:
        row["chip_limit"] = engine.granted.label
    if config.layout.strategy != "pp":  # there one device held every stage
        row |= {
            "mem_alloc_peak_bytes": engine.adapter.peak_allocated_bytes(),
            "mem_reserved_peak_bytes": engine.adapter.peak_reserved_bytes(),
            "mem_init_peak_bytes": init_peak_bytes,
        }
    reasons = [*reasons, *(["no_cuda_graphs"] if engine.lacks_graphs() else [])]
    correctness, findings = _correctness(engine)
    return row | correctness, Findings(
        reasons=[*findings.reasons, *reasons], detail=findings.detail
    )


def _step_columns(reported: Window, *, workload: Workload, phase: Phase, config: Config) -> Row:
    """Columns of the window that the row's speed comes from, all devices counted."""
    row = summary.speed_columns(reported)
    row |= summary.latency_columns(
        reported, workload=workload, phase=phase, num_replicas=config.layout.data
    )
    # Least traffic of one item of the generated data, by the workload's formula.
    least_bytes = workload.bytes_per_item(phase, dtype_bytes=DTYPE_BYTES[config.dtype])
    return row | {"bytes_per_item": least_bytes}


def _correctness(engine: TorchEngine) -> tuple[Row, Findings]:
    """Return the columns of correctness, and what they show to be wrong."""
    row: Row = {}
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
    return row, Findings(reasons=reasons, detail="; ".join(details))


def _finite(value: float | None) -> float | None:
    return value if value is not None and abs(value) < float("inf") else None


def rank_columns() -> Row:
    """Return the columns that one of several ranks shows in its own way."""
    import resource

    return {
        # Its own: its agent's would be the parent's to see.
        "rss_peak_bytes": peak_rss_bytes(resource.getrusage(resource.RUSAGE_SELF)),
        "import_s": None,  # torch was imported to find the other ranks, before any clock ran
    }


def of_all_ranks(findings: Findings, *, ranks: Ranks) -> Findings:
    """Return, at rank 0, what any rank found wrong with its output; each is waited for."""
    every = ranks.gather([list(findings.reasons), findings.detail])
    codes = [code for found, _ in every for code in found]
    details = [f"rank {rank}: {words}" for rank, (_, words) in enumerate(every) if words]
    return Findings(reasons=list(dict.fromkeys(codes)), detail="; ".join(details))


def send_result(
    messages: Messages,
    row: Row,
    *,
    request: TrialRequest,
    measured: Measured,
    findings: Findings,
) -> None:
    """Tell the parent everything, with the reasons that the window itself gives."""
    warmup, window = measured.warmup, measured.window
    wait_frac = row.get("data_wait_frac")
    window_reasons = summary.trial_reasons(
        window,
        warmup=warmup,
        limits=request.limits,
        recompiled=measured.has_recompiled,
        wait_frac=wait_frac if isinstance(wait_frac, float) else None,
    )
    waits_s = [count.data_wait_s for count in window.counts]
    result = TrialResult(
        row=row,
        reasons=[*findings.reasons, *window_reasons],
        detail=findings.detail,
        window_start_s=window.start_s,
        window_end_s=window.end_s,
        samples=Samples(
            warmup_step_s=warmup.step_s,
            step_s=window.step_s,
            step_clock=window.step_clock,
            data_wait_s=None if wait_frac is None else waits_s,
        ),
    )
    messages.send(result)
