"""Everything that numbers can say about pairs of groups, as arrays with one entry per pair.

Which figure the two sides share, the interval of their ratio, the threshold that applies, and the
verdict. `bench.analysis.compare` turns it into rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from bench.analysis.groups import Groups, Moments
from bench.analysis.metrics import Metric, default_threshold_frac
from bench.analysis.pairs import Pairs
from bench.analysis.statistics import Differences, welch
from bench.analysis.verdicts import MIN_TRIALS, Judgement, judge

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

NoiseFloors = Mapping[tuple[str, str, str], float]
"""Calibrated noise floors as fractions, by (workload, config_hash, device_name)."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How strictly to compare."""

    threshold_frac: float | None = None
    """The user's; None takes the default of metric and device."""
    noise_floors: NoiseFloors = field(default_factory=dict)
    force_gate: bool = False
    """Gate across different devices too."""


def _moments_by_source(
    groups: Groups, *, metric: Metric, pairs: Pairs
) -> tuple[Moments, Moments, NDArray[np.object_], NDArray[np.bool_]]:
    """Moments of both sides by the first source that both have; its name; whether it agrees."""
    size = len(pairs.before)
    sides: list[Array] = []
    name = np.full(size, "", dtype=object)
    is_alike = np.ones(size, dtype=bool)
    for source in metric.sources:
        moments = groups.source_moments(source)
        taken = (name == "") & (moments.num[pairs.before] > 0) & (moments.num[pairs.after] > 0)
        stacked = np.stack([moments.num, moments.mean, moments.var])
        if not sides:  # shown where the two sides have no source in common
            sides = [stacked[:, pairs.before], stacked[:, pairs.after]]
        for side, index in zip(sides, (pairs.before, pairs.after), strict=True):
            side[:, taken] = stacked[:, index][:, taken]
        name[taken] = source.name
        for column in source.must_agree:
            kinds = groups.kinds(column)
            is_alike[taken & (kinds[pairs.before] != kinds[pairs.after])] = False
    before, after = (Moments(num=s[0], mean=s[1], var=s[2]) for s in sides)
    return before, after, name, is_alike


def _thresholds(groups: Groups, *, pairs: Pairs, metric: Metric, options: Options) -> Array:
    steady = groups.has_steady_clock()
    device_types = groups.table["device_type"].astype(str).to_numpy()
    kinds = {
        (device_type, is_steady): default_threshold_frac(
            metric, device_type=device_type, has_steady_clock=bool(is_steady)
        )
        for device_type, is_steady in set(zip(device_types, steady, strict=True))
    }
    defaults = np.array([kinds[kind] for kind in zip(device_types, steady, strict=True)])
    chosen: Array = np.maximum(defaults[pairs.before], defaults[pairs.after])
    if options.threshold_frac is not None:
        chosen = np.full(len(chosen), options.threshold_frac)
    if not options.noise_floors:
        return chosen
    where = groups.table[["workload", "config_hash", "device_name"]].astype(str)
    floors = np.array(
        [options.noise_floors.get(key, 0.0) for key in where.itertuples(index=False, name=None)]
    )
    floored: Array = np.maximum(chosen, 2.0 * np.maximum(floors[pairs.before], floors[pairs.after]))
    return floored


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Everything known about the pairs as arrays, one entry per pair."""

    before: Moments
    after: Moments
    source: NDArray[np.object_]
    is_alike: NDArray[np.bool_]
    differences: Differences
    threshold_frac: Array
    judgement: Judgement


def figures_of(groups: Groups, *, pairs: Pairs, metric: Metric, options: Options) -> Figures:
    """Intervals, thresholds and verdicts of all pairs at once."""
    before, after, source, is_alike = _moments_by_source(groups, metric=metric, pairs=pairs)
    differences = welch(
        num_a=before.num,
        mean_a=before.mean,
        var_a=before.var,
        num_b=after.num,
        mean_b=after.mean,
        var_b=after.var,
    )
    num = np.minimum(before.num, after.num)
    is_gateable = ~pairs.is_cross | options.force_gate
    threshold_frac = _thresholds(groups, pairs=pairs, metric=metric, options=options)
    judgement = judge(
        differences,
        threshold_frac=threshold_frac,
        gated=(num >= MIN_TRIALS) & is_alike & is_gateable,
        num=num,
    )
    return Figures(
        before=before,
        after=after,
        source=source,
        is_alike=is_alike,
        differences=differences,
        threshold_frac=threshold_frac,
        judgement=judgement,
    )
