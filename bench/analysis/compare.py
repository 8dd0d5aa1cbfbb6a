"""Result files become verdicts: is it slower, by how much, and is that real?

The first file is the baseline, each other one is compared with it group by group. A trial enters
with one figure (the median step time per item), trials with Welch's t on logarithms. On different
devices the ratios are shown with what else differs, and gate nothing unless asked to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.analysis.comparison import Compared, Comparison, Side
from bench.analysis.figures import Figures, Options, figures_of
from bench.analysis.groups import CONFOUNDERS, Groups, gather
from bench.analysis.identity import LAYOUT
from bench.analysis.metrics import Metric
from bench.analysis.pairs import Pairs, confounders, match
from bench.analysis.verdicts import MIN_TRIALS
from bench.results.schema import BY_NAME

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_SHOWN = (
    "workload",
    "workload_version",
    "config_hash",
    "size",
    "dtype",
    "batch",
    *LAYOUT,
)


def compare(
    files: Sequence[tuple[str, pd.DataFrame]], *, metric: Metric, options: Options
) -> Comparison:
    """Compare each file with the first one; files are (label, frame of rows)."""
    groups = gather(files, columns=metric.columns)
    matched = [match(groups, before=0, after=number) for number in range(1, len(files))]
    pairs = Pairs(
        before=np.concatenate([found.before for found, _ in matched]),
        after=np.concatenate([found.after for found, _ in matched]),
        is_cross=np.concatenate([found.is_cross for found, _ in matched]),
    )
    figures = figures_of(groups, pairs=pairs, metric=metric, options=options)
    return Comparison(
        metric=metric,
        labels=groups.labels,
        rows=tuple(_rows(groups, pairs=pairs, figures=figures)),
        unmatched=tuple(entry for _, entries in matched for entry in entries),
    )


def _optional(values: Array) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values.tolist()]


def _sides(groups: Groups, *, index: NDArray[np.int64], value: Array, num: Array) -> list[Side]:
    beside = [
        _optional(np.exp(groups.moments(groups.trials[name]).mean[index]))
        for name in ("throughput_per_s", "energy_per_item_j", "roof_frac")
    ]
    table = groups.table.loc[index]
    lost_reasons = groups.lost_reasons()
    return [
        Side(
            file=groups.labels[file],
            device=device,
            num=int(n),
            num_usable=usable,
            num_lost=lost,
            lost_reasons=lost_reasons.get(group, ""),
            value=v,
            throughput_per_s=throughput,
            energy_per_item_j=energy,
            roof_frac=roof,
        )
        for group, file, device, n, usable, lost, v, throughput, energy, roof in zip(
            index.tolist(),
            table["file"].tolist(),
            table["device_name"].astype(str).tolist(),
            num.tolist(),
            table["num_used"].tolist(),
            table["num_lost"].tolist(),
            _optional(np.exp(value)),
            *beside,
            strict=True,
        )
    ]


def _rows(groups: Groups, *, pairs: Pairs, figures: Figures) -> list[Compared]:
    differences, judgement = figures.differences, figures.judgement
    both = zip(
        _sides(groups, index=pairs.before, value=figures.before.mean, num=figures.before.num),
        _sides(groups, index=pairs.after, value=figures.after.mean, num=figures.after.num),
        strict=True,
    )
    ratios = (differences.estimate, differences.low, differences.high)
    with np.errstate(over="ignore"):  # an end that no float holds is as good as unknown
        ratio, low, high = (_optional(np.exp(values)) for values in ratios)
    described = _described(groups, index=pairs.before)
    differing = confounders(groups, pairs=pairs, columns=CONFOUNDERS)
    thresholds, more = figures.threshold_frac.tolist(), _optional(judgement.more_trials)
    rows = []
    for i, (a, b) in enumerate(both):
        verdict, reason = str(judgement.verdict[i]), ""
        if verdict == "":
            verdict, reason = _ungated(figures, i=i, sides=(a, b))
        elif judgement.is_demoted[i]:
            reason = "beyond the threshold alone, but not among so many comparisons"
        trials = more[i]
        rows.append(
            Compared(
                **described[i],
                a=a,
                b=b,
                is_cross_hardware=bool(pairs.is_cross[i]),
                source=str(figures.source[i]),
                ratio=ratio[i],
                low=low[i],
                high=high[i],
                threshold_frac=thresholds[i],
                verdict=verdict,
                reason=reason,
                more_trials=None if trials is None else int(trials),
                confounders=differing[i],
            )
        )
    return rows


def _described(groups: Groups, *, index: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Fields of `Compared` that say what ran, column by column for speed."""
    table = groups.table.loc[index]
    columns: list[list[Any]] = []
    for name in _SHOWN:
        if BY_NAME[name].kind == "int":
            columns.append([None if n != n else int(n) for n in table[name].tolist()])
        else:
            columns.append(table[name].astype(str).tolist())
    return [dict(zip(_SHOWN, values, strict=True)) for values in zip(*columns, strict=True)]


def _ungated(figures: Figures, *, i: int, sides: tuple[Side, Side]) -> tuple[str, str]:
    """Verdict and reason of a pair that was not judged."""
    for side in sides:
        if side.num_usable < MIN_TRIALS:
            return "NOT COMPARED", _too_few(side)
    for side in sides:
        if not side.num:
            return "NOT COMPARED", f"not measured in {side.file}"
        if side.num < MIN_TRIALS:
            return "NOT COMPARED", f"{side.file}: measured in {side.num} trials, needs {MIN_TRIALS}"
    if not figures.is_alike[i]:
        return "NOT COMPARED", "measured in different ways (unit, scope or source differ)"
    return "", "different devices: a ratio, not a verdict"


def _too_few(side: Side) -> str:
    trials = "trial" if side.num_usable == 1 else "trials"
    told = f"{side.file}: {side.num_usable} usable {trials}, needs {MIN_TRIALS}"
    if not side.num_lost:
        return told
    return f"{told} ({side.num_lost} invalid or failed: {side.lost_reasons or 'no reason stated'})"
