"""From a window to the columns of a row, and to the reasons that the trial itself can see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bench.core import statistics
from bench.core.nouns import Config
from bench.core.units import format_number
from bench.measure.engine.engine import StepCount, summed
from bench.measure.timing import validity
from bench.measure.timing.drift import NOISY_FRAC, change_over
from bench.measure.timing.limits import Limits
from bench.measure.timing.validity import Problems
from bench.measure.timing.warmup import Warmup
from bench.measure.timing.window import Window
from bench.results.schema import Row
from bench.workload import Phase


def speed_columns(window: Window) -> Row:
    """Throughput and the distribution of steps."""
    steps_ms = [value_s * 1e3 for value_s in window.step_s]
    level_s = window.level_s
    total = summed(window.counts)
    change = change_over(level_s)
    by_events = window.step_clock == "event"
    p05_ms, p25_ms, p75_ms, p95_ms = (
        statistics.percentile(steps_ms, q) for q in (0.05, 0.25, 0.75, 0.95)
    )
    return {
        "step_clock": window.step_clock,
        "items": total.items,
        "steps": len(window.counts),
        "window_s": window.wall_s,
        "host_bound_frac": window.host_bound_frac,
        "host_gap_frac": 1.0 - sum(window.step_s) / window.wall_s if by_events else None,
        "drift_rise_frac": change.frac if change else None,
        "drift_half_width_frac": change.half_width_frac if change else None,
        "step_median_ms": statistics.median(steps_ms),
        "step_mean_ms": sum(steps_ms) / len(steps_ms),
        "step_p05_ms": p05_ms,
        "step_p95_ms": p95_ms,
        "step_iqr_ms": p75_ms - p25_ms,
        "rel_ci95_frac": statistics.batch_means_half_width_frac(level_s),
        "ess": statistics.effective_sample_size(level_s),
        "throughput_per_s": total.items / window.wall_s,
        "elements_per_s": _over(total.elements, window.wall_s),
        "elements_per_item": _over(total.elements, total.items),
        "bytes_per_item": _over(total.least_bytes, total.items),
        "flops_per_item": _over(total.flops, total.items),
        "flops_method": None if total.flops is None else "analytic",
    }


def _over(total: float | None, parts: float) -> float | None:
    return None if total is None else total / parts


def item_columns(resident: Sequence[StepCount]) -> Row:
    """How many items lay on the device, and their sizes ('2 of 9216; 1 of 248832') if they differ.

    Blank where a loader brings ever new ones.
    """
    sizes: Counter[int] = Counter()
    for count in resident:
        if count.elements is not None:
            sizes[round(count.elements / count.items)] += count.items
    names = "; ".join(f"{num} of {elements}" for elements, num in sorted(sizes.items()))
    return {
        "distinct_items": sum(count.items for count in resident) or None,
        "item_sizes": names if len(sizes) > 1 else None,
    }


def wait_columns(window: Window, *, uses_loader: bool) -> Row:
    """Time spent waiting for the loader; blank where there is none."""
    if not uses_loader:
        return {}
    waited_s = summed(window.counts).data_wait_s
    return {"data_wait_s": waited_s, "data_wait_frac": waited_s / window.wall_s}


def latency_columns(window: Window, *, phase: Phase, sequences: int) -> Row:
    """Latency of inference steps, one request each; percentiles only above their least count.

    A step makes its tokens for so many sequences side by side.
    """
    if phase.is_training:
        return {}
    steps_ms = [value_s * 1e3 for value_s in window.step_s]
    row: Row = {
        "lat_n": len(steps_ms),
        "lat_p50_ms": statistics.median(steps_ms),
        "lat_p90_ms": statistics.percentile_bound(steps_ms, 0.9),
        "lat_p99_ms": statistics.percentile_bound(steps_ms, 0.99),
    }
    median_ms, items = statistics.median(steps_ms), summed(window.counts).items
    if phase.latency == "ttft":
        row |= {"ttft_ms": median_ms, "prefill_tok_per_s": items / window.wall_s}
    elif phase.latency == "tpot":
        tokens = items / len(window.counts) / sequences
        row |= {"tpot_ms": median_ms / tokens, "decode_tok_per_s": items / window.wall_s}
    return row


def cold_columns(
    warmup: Warmup, *, config: Config, cold_s: dict[str, float], step_s: Sequence[float]
) -> Row:
    """Warm-up and the costs of starting; `step_s` are the steps of the window."""
    first_s = warmup.step_s[0]
    is_compiled = config.compile and step_s
    return {
        "warmup_steps": len(warmup.step_s),
        "warmup_s": warmup.wall_s,
        "warmup_converged": warmup.has_converged,
        **{f"{stage}_s": cold_s.get(stage) for stage in ("import", "build", "transfer")},
        "first_step_s": first_s,
        "compile_s": first_s - statistics.median(step_s) if is_compiled else None,
        "recompiles": warmup.recompiles,
    }


def trial_problems(window: Window, *, warmup: Warmup, limits: Limits, recompiled: bool) -> Problems:
    """What is wrong with the window, judged by itself, never by how fast it was."""
    codes, drift = [], []
    if limits.is_smoke:
        codes.append("smoke")
    else:
        if not warmup.has_converged:
            codes.append("not_steady")
        if len(window.counts) < limits.window_min_steps or window.wall_s < limits.window_min_s:
            codes.append("window_short")
        drift = _drift_problems(window.level_s)
    if len(window.step_s) < validity.MIN_SAMPLES:
        codes.append("few_samples")
    if window.clock_went_backwards:
        codes.append("clock_backwards")
    if recompiled:
        codes.append("recompiled")
    if summed(window.counts).data_wait_s > validity.INPUT_BOUND_FRAC * window.wall_s:
        codes.append("input_bound")
    elif (window.host_bound_frac or 0.0) > validity.HOST_BOUND_FRAC:
        codes.append("host_bound")
    return [*((code, "") for code in codes), *drift]


def _drift_problems(step_s: Sequence[float]) -> Problems:
    """Whether the steps drifted, or vary too much to tell, and how well that is known."""
    change = change_over(step_s)
    if change is None:
        return []
    known = f"known to {format_number(100 * change.half_width_frac)} %"
    if change.is_drift:
        how = "slower" if change.frac > 0 else "faster"
        return [
            (
                "drift",
                f"drift: steps became {format_number(100 * abs(change.frac))} % {how}, {known}",
            )
        ]
    if change.half_width_frac > NOISY_FRAC:
        return [("noisy", f"noisy: change of the steps {known} only")]
    return []
