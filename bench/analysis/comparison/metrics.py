"""What can be compared: where a figure per trial comes from, and how large a change matters.

Every metric is "smaller is better" and positive. A metric has sources in order of preference; two
groups are compared by the first source that both of them have, never by two different ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.analysis.trials.configuration import Trials, number
from bench.analysis.trials.estimates import LogEstimate
from bench.core.errors import one_of


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One way to read a metric off the trials of a configuration."""

    name: str
    """What the figure is, in words."""
    of: Callable[[Trials], LogEstimate | None]
    must_agree: tuple[str, ...] = ()
    """Columns whose values say what was measured: groups that differ there are not compared."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """Something to compare files by."""

    name: str
    unit: str
    """Base unit of the figure: s, J or bytes."""
    sources: tuple[Reading, ...]
    threshold_frac: float | None
    """Smallest change that matters; None: depends on the device, see `default_threshold_frac`."""


def _column(name: str, column: str, *, must_agree: tuple[str, ...] = ()) -> Reading:
    scale = 1e-3 if column.endswith("_ms") else 1.0
    return Reading(
        name=name, of=lambda trials: trials.estimate(column, scale=scale), must_agree=must_agree
    )


_TIME = Reading(
    name="median step time per item",
    of=lambda trials: trials.time_per_item_s,
    must_agree=("items_unit",),
)
_ENERGY = _column(
    "energy per item",
    "energy_per_item_j",
    must_agree=("items_unit", "energy_scope", "energy_source"),
)
_MEMORY = (
    _column("peak of tensors on the device", "mem_alloc_peak_bytes"),
    _column("peak resident memory of the process", "rss_peak_bytes"),
)
_LATENCY = tuple(
    _column(f"{quantile} latency", f"lat_{quantile}_ms") for quantile in ("p99", "p90", "p50")
)
_TTFT = _column("time to first token", "ttft_ms")
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(name="time", unit="s", sources=(_TIME,), threshold_frac=None),
        Metric(name="energy", unit="J", sources=(_ENERGY,), threshold_frac=0.05),
        Metric(name="memory", unit="bytes", sources=_MEMORY, threshold_frac=0.02),
        Metric(name="ttft", unit="s", sources=(_TTFT,), threshold_frac=0.10),
        Metric(name="latency", unit="s", sources=_LATENCY, threshold_frac=0.10),
    )
}


def find_metric(name: str) -> Metric:
    """Return the metric called `name`; `UsageError` lists what there is."""
    if name not in METRICS:
        raise one_of("--metric", name, list(METRICS))
    return METRICS[name]


# What repeated no-op comparisons call for: time on an accelerator whose clock held, on one whose
# clock moved, and on a processor that other programs share.
_STEADY_CLOCK_FRAC, _MOVING_CLOCK_FRAC, _SHARED_CPU_FRAC = 0.03, 0.05, 0.10
_STEADY_CLOCK_RATIO = 0.99
"""Lowest over mean clock in the window from which a clock counts as held."""


def has_steady_clock(trials: Trials) -> bool:
    """Whether the compute clock was sampled and held in every used trial."""
    columns = ("sm_clock_min_hz", "sm_clock_mean_hz")
    clocks = [[number(row, name) for name in columns] for row in trials.used]
    return bool(clocks) and all(
        low is not None and mean is not None and low >= _STEADY_CLOCK_RATIO * mean
        for low, mean in clocks
    )


def default_threshold_frac(metric: Metric, *, device_type: str, is_clock_steady: bool) -> float:
    """Smallest change that matters when the user names none."""
    if metric.threshold_frac is not None:
        return metric.threshold_frac
    if device_type == "cpu":
        return _SHARED_CPU_FRAC
    is_steady = is_clock_steady or device_type == "fake"
    return _STEADY_CLOCK_FRAC if is_steady else _MOVING_CLOCK_FRAC
