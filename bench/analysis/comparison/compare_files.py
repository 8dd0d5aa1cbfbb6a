"""Result files become verdicts: is it slower, by how much, and is that real?

The first file is the baseline, each other one is compared with it configuration by configuration. A
trial enters with one figure (the median step time per item), trials with Welch's t on logarithms.
On different devices the ratios are shown with what else differs, and gate nothing unless asked to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from bench.analysis.comparison.comparison import Compared, Comparison, Side, value_of
from bench.analysis.comparison.matching import Pair, match
from bench.analysis.comparison.metrics import Metric, default_threshold_frac, has_steady_clock
from bench.analysis.comparison.verdicts import MIN_TRIALS, judge
from bench.analysis.trials.configuration import gather
from bench.results.schema import Row

NoiseFloors = Mapping[tuple[str, str, str], float]
"""Calibrated noise floors as fractions, by (workload, config_hash, device_name)."""


@dataclass(frozen=True, kw_only=True)
class Strictness:
    """How strictly to compare."""

    threshold_frac: float | None = None
    """The user's; None takes the default of metric and device."""
    noise_floors: NoiseFloors = field(default_factory=dict)
    force_gate: bool = False
    """Gate across different devices too."""


def compare(
    files: Sequence[tuple[str, Sequence[Row]]], *, metric: Metric, strictness: Strictness
) -> Comparison:
    """Compare each file with the first one; files are (label, rows)."""
    labels = [label for label, _ in files]
    sides = [gather(rows, file=label) for label, rows in files]
    matched = [
        match(sides[0], side, labels=(labels[0], label))
        for label, side in zip(labels[1:], sides[1:], strict=True)
    ]
    rows = [
        _compared(pair, metric=metric, strictness=strictness)
        for pairs, _ in matched
        for pair in pairs
    ]
    return Comparison(
        metric=metric,
        labels=tuple(labels),
        rows=tuple(_judged(rows)),
        unmatched=tuple(entry for _, entries in matched for entry in entries),
    )


def _compared(pair: Pair, *, metric: Metric, strictness: Strictness) -> Compared:
    """Figures of both sides by the first source that both have; judged later, all together."""
    sources = {
        source.name: (source, pair.before.estimate_of(source.of), pair.after.estimate_of(source.of))
        for source in metric.sources
    }
    name = next((name for name, (_, a, b) in sources.items() if a and b), "")
    # Where the two sides have no source in common, the first is shown.
    source, before, after = sources[name or metric.sources[0].name]
    a, b = Side.of(pair.before, before), Side.of(pair.after, after)
    change = after.over(before) if before and after else None
    low, high = change.interval if change and change.interval else (None, None)
    is_alike = all(pair.before.agreed(c) == pair.after.agreed(c) for c in source.must_agree)
    reason = _why_not(a, b, is_alike=is_alike or not name)
    is_ratio_only = pair.is_cross_hardware and not strictness.force_gate and not reason
    return Compared(
        workload=pair.before.text("workload"),
        config_hash=pair.before.text("config_hash"),
        a=a,
        b=b,
        is_cross_hardware=pair.is_cross_hardware,
        source=name,
        change=change,
        ratio=value_of(change),
        low=low,
        high=high,
        threshold_frac=_threshold(pair, metric=metric, strictness=strictness),
        reason="different devices: a ratio, not a verdict" if is_ratio_only else reason,
        more_trials=None,
        confounders=pair.confounders,
        verdict="" if is_ratio_only else "NOT COMPARED" if reason else "INCONCLUSIVE",
        throughput_ratio=b.over(a, "throughput_per_s"),
        energy_ratio=b.over(a, "energy_per_item_j"),
    )


def _judged(rows: list[Compared]) -> list[Compared]:
    """Give verdicts to all rows that can have one, at once."""
    changes = {
        place: row.change
        for place, row in enumerate(rows)
        if row.verdict == "INCONCLUSIVE" and row.change
    }
    fractions = [rows[place].threshold_frac for place in changes]
    found = judge(list(changes.values()), threshold_fracs=fractions)
    demoted = "beyond the threshold alone, but not among so many comparisons"
    for place, judged in zip(changes, found, strict=True):
        rows[place] = replace(
            rows[place],
            verdict=judged.verdict,
            more_trials=judged.more_trials,
            reason=demoted if judged.is_demoted else "",
        )
    return rows


def _threshold(pair: Pair, *, metric: Metric, strictness: Strictness) -> float:
    """Threshold of the side that needs the larger one, and no less than twice the noise."""
    sides = (pair.before, pair.after)
    chosen = strictness.threshold_frac
    if chosen is None:
        chosen = max(
            default_threshold_frac(
                metric, device_type=one.text("device_type"), is_clock_steady=has_steady_clock(one)
            )
            for one in sides
        )
    keys = [
        (one.text("workload"), one.text("config_hash"), one.text("device_name")) for one in sides
    ]
    return max(chosen, *(2.0 * strictness.noise_floors.get(key, 0.0) for key in keys))


def _why_not(a: Side, b: Side, *, is_alike: bool) -> str:
    """Why a pair cannot be judged; '' where it can."""
    for side in (a, b):
        if side.num_usable < MIN_TRIALS:
            return _too_few(side)
    for side in (a, b):
        if not side.num:
            return f"not measured in {side.file}"
        if side.num < MIN_TRIALS:
            return f"{side.file}: measured in {side.num} trials, needs {MIN_TRIALS}"
    return "" if is_alike else "measured in different ways (unit, scope or source differ)"


def _too_few(side: Side) -> str:
    trials = "trial" if side.num_usable == 1 else "trials"
    lost = f" ({side.num_lost} invalid or failed: {side.lost_reasons or 'no reason stated'})"
    few = f"{side.file}: {side.num_usable} usable {trials}, needs {MIN_TRIALS}"
    return few + lost if side.num_lost else few
