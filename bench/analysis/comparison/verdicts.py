"""From an interval of a ratio to a word: when a change is real, when it is not, when nobody knows.

A change counts when the whole 95 % interval lies beyond a practical threshold, so that neither a
significant trifle nor a large accident is called a regression. With many rows the share of false
alarms is held by Benjamini-Hochberg. Whatever is in between is INCONCLUSIVE, said aloud together
with how many more trials should settle it.

Every metric is "smaller is better" and positive. A metric has sources in order of preference; two
groups are compared by the first source that both of them have, never by two different ones.

Two arms of one job are measured in ABBA blocks: within a block they take the places 1, 4 and 2, 3,
so a machine that slows down steadily slows both by the same amount. One block is one observation.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from bench.analysis.trials.configuration import Trials, number
from bench.core.errors import UsageError, one_of
from bench.core.log_estimate import LogEstimate, mean_of_logs
from bench.core.statistics import t_cdf, t_quantile
from bench.core.units import counted
from bench.results.schema import Row

Verdict = Literal["REGRESSION", "IMPROVED", "SAME", "INCONCLUSIVE", "NOT COMPARED"]
VERDICTS: tuple[Verdict, ...] = ("REGRESSION", "INCONCLUSIVE", "NOT COMPARED", "IMPROVED", "SAME")
"""In the order in which a reader wants to see them."""
MIN_TRIALS = 3
"""Trials per side under which a spread is a guess and nothing is gated."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What became of one comparison."""

    verdict: Verdict
    more_trials: int | None = None
    """Trials per side that should settle an INCONCLUSIVE one; None: not one, or over 1000."""
    is_demoted: bool = False
    """Beyond the threshold by itself, but not among so many rows."""


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


def _column(name: str, column: str, *must_agree: str) -> Reading:
    scale = 1e-3 if column.endswith("_ms") else 1.0
    return Reading(
        name=name, of=lambda one: one.estimate(column, scale=scale), must_agree=must_agree
    )


WINDOW_TIME = "time per item over the window"
_UNIT = ("items_unit",)
_STEP = Reading(
    name="median step time per item", of=lambda one: one.step_per_item_s, must_agree=_UNIT
)
_WINDOW = Reading(name=WINDOW_TIME, of=lambda one: one.time_per_item_s, must_agree=_UNIT)
"""Where items differ in size, or what a step sends, and the middle step is that of one kind."""
_ENERGY = _column("energy per item", "energy_per_item_j", *_UNIT, "energy_scope", "energy_source")
_MEMORY = (
    _column("peak of tensors on the device", "mem_alloc_peak_bytes"),
    _column("peak resident memory of the process", "rss_peak_bytes"),
)
_LATENCY = tuple(_column(f"{one} latency", f"lat_{one}_ms") for one in ("p99", "p90", "p50"))
_TTFT = _column("time to first token", "ttft_ms")
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(name="time", unit="s", sources=(_STEP, _WINDOW), threshold_frac=None),
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


def default_threshold_frac(metric: Metric, *, device_type: str, rows: Iterable[Row] = ()) -> float:
    """Smallest change that matters when the user names none; `rows` may show a clock that held."""
    if metric.threshold_frac is not None:
        return metric.threshold_frac
    if device_type == "cpu":
        return _SHARED_CPU_FRAC
    columns = ("sm_clock_min_hz", "sm_clock_mean_hz")
    clocks = [[number(row, name) for name in columns] for row in rows]
    is_steady = bool(clocks) and all(
        low is not None and mean is not None and low >= _STEADY_CLOCK_RATIO * mean
        for low, mean in clocks
    )
    return _STEADY_CLOCK_FRAC if is_steady or device_type == "fake" else _MOVING_CLOCK_FRAC


def parse_threshold(text: str) -> float:
    """Fraction in '5%'; `UsageError` for anything else, since 5 and 0.05 are easily confused."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*%\s*", text)
    value = float(match[1]) / 100.0 if match else 0.0
    if not 0.0 < value < 10.0:
        raise UsageError(f"--fail-on {text!r} is no percentage over 0 and under 1000, such as 5%")
    return value


def judge(ratios: Sequence[LogEstimate], *, threshold_fracs: Sequence[float]) -> list[Judged]:
    """Judge ratios B/A of something that should be small, a table at once; all have intervals."""
    margins = list(map(math.log1p, threshold_fracs))
    kept = benjamini_hochberg([p_beyond(r, margin=m) for r, m in zip(ratios, margins, strict=True)])
    found = zip(ratios, margins, kept, strict=True)
    return [_judged(ratio, margin=margin, is_kept=is_kept) for ratio, margin, is_kept in found]


def _judged(ratio: LogEstimate, *, margin: float, is_kept: bool) -> Judged:
    low, high = ratio.log_ends
    if -margin < low and high < margin:
        return Judged(verdict="SAME")
    is_slower, is_faster = low > margin, high < -margin
    if is_kept and (is_slower or is_faster):
        return Judged(verdict="REGRESSION" if is_slower else "IMPROVED")
    return Judged(
        verdict="INCONCLUSIVE",
        more_trials=trials_to_settle(ratio, margin=margin),
        is_demoted=is_slower or is_faster,
    )


def p_beyond(ratio: LogEstimate, *, margin: float) -> float:
    """Two-sided p of "the difference is no larger than the margin"; 1 where that is not in doubt.

    Below .05 exactly where the 95 % interval lies wholly beyond the margin on one side.
    """
    low, high = ratio.log_ends
    if max(low - margin, -margin - high) <= 0.0:
        return 1.0
    distance = abs(ratio.log) - margin
    return 2.0 * t_cdf(-distance / ratio.error, ratio.degrees) if ratio.error > 0.0 else 0.0


def benjamini_hochberg(p_values: Sequence[float], *, q: float = 0.05) -> list[bool]:
    """Which hypotheses are rejected when the expected share of false ones is held at `q`.

    Benjamini and Hochberg, JRSS B 57 (1995), https://doi.org/10.1111/j.2517-6161.1995.tb02031.x
    """
    num = len(p_values)
    ranked = enumerate(sorted(p_values), start=1)
    limit = max((p for place, p in ranked if p <= q * place / num), default=-1.0)
    return [p <= limit for p in p_values]


def trials_to_settle(ratio: LogEstimate, *, margin: float) -> int | None:
    """Trials per side, beyond those there are, until the interval should leave the margin.

    None over 1000. Takes the estimate and its error as true: a planning figure, not a promise.
    """
    distance = abs(abs(ratio.log) - margin)
    if distance == 0.0:
        return None
    quantile, needed, before = 1.96, 0.0, -1.0
    for _ in range(9):
        needed = (quantile * ratio.error / distance) ** 2 * ratio.num
        if needed > 1e4:
            return None
        if abs(needed - before) < 1e-3:
            break
        quantile, before = t_quantile(0.975, max(2.0 * needed - 2.0, 1.0)), needed
    more = max(math.ceil(needed - ratio.num), 1)
    return more if more <= 1000 else None


@dataclass(frozen=True, kw_only=True)
class PairedResult:
    """What two arms came to. The ratio is B / A."""

    ratio: float | None
    low: float | None
    high: float | None
    num_blocks: int
    num_left_out: int
    verdict: str
    reason: str
    more_blocks: int | None


_ArmTrial = tuple[str, int, float | None]
"""Arm, block, and the metric; None where it is not usable."""


def block_order(num_blocks: int) -> list[str]:
    """Arms in the order in which to run them: ABBA, then BAAB, in turn."""
    return [arm for block in range(num_blocks) for arm in ("ABBA" if block % 2 == 0 else "BAAB")]


def compare_arms(trials: Iterable[_ArmTrial], *, threshold_frac: float) -> PairedResult:
    """Judge arm B against arm A, block by block."""
    differences, num_left_out = _block_differences(trials)
    num = len(differences)
    ratio = mean_of_logs(differences) if num else None
    reason = f"{counted(num_left_out, 'block')} left out for a lost trial" if num_left_out else ""
    low, high, judged = None, None, Judged(verdict="NOT COMPARED", more_trials=MIN_TRIALS - num)
    if ratio is None or num < MIN_TRIALS:
        reason = f"{counted(num, 'whole block')}, needs {MIN_TRIALS}"
    else:
        # One difference a block: a paired t interval.
        [judged] = judge([ratio], threshold_fracs=[threshold_frac])
        low, high = ratio.interval or (None, None)
    return PairedResult(
        ratio=None if ratio is None else ratio.value,
        low=low,
        high=high,
        num_blocks=num,
        num_left_out=num_left_out,
        verdict=judged.verdict,
        reason=reason,
        more_blocks=judged.more_trials,
    )


def _block_differences(trials: Iterable[_ArmTrial]) -> tuple[list[float], int]:
    """Mean log(B) - mean log(A) of every whole block; how many blocks are not whole."""
    blocks: dict[int, dict[str, list[float | None]]] = {}
    for arm, block, value in trials:
        blocks.setdefault(block, {"A": [], "B": []})[arm].append(value)
    differences = []
    for arms in blocks.values():
        logs = [
            [math.log(value) for value in arms[arm] if value is not None and value > 0.0]
            for arm in "AB"
        ]
        lengths = {*map(len, arms.values()), *map(len, logs)}
        if len(lengths) == 1 and 0 not in lengths:
            differences.append(fmean(logs[1]) - fmean(logs[0]))
    return differences, len(blocks) - len(differences)
