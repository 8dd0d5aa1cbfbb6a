"""Result files become verdicts: is it slower, by how much, and is that real?

The first file is the baseline, each other one is compared with it configuration by configuration. A
trial enters with one figure (the median step time per item, or the window's time per item where
items differ in size), trials with Welch's t on logarithms.
On different devices the ratios are shown with what else differs, and gate nothing unless asked to.
`report.tables.compare_tables` renders what is found; `--json` prints every fact.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import geometric_mean

from bench.analysis.comparison.matching import Unmatched, confounders, is_cross_hardware, match
from bench.analysis.comparison.verdicts import (
    MIN_TRIALS,
    Judged,
    Metric,
    default_threshold_frac,
    judge,
)
from bench.analysis.trials.configuration import LAYOUT, Trials, gather, grouped
from bench.core.errors import ExitCode
from bench.core.log_estimate import LogEstimate
from bench.core.units import counted
from bench.results.schema import BY_NAME, Row

_SHOWN = ("workload", "workload_version", "config_hash", "size", "dtype", "batch", *LAYOUT)
_SIDE = ("throughput_per_s", "energy_per_item_j", "roof_frac")


@dataclass(frozen=True, kw_only=True)
class Strictness:
    """How strictly to compare."""

    threshold_frac: float | None = None
    """The user's; None takes the default of metric and device."""
    noise_floors: Mapping[tuple[str, str, str], float] = field(default_factory=dict)
    """Calibrated ones as fractions, by (workload, config_hash, device_name)."""
    force_gate: bool = False
    """Gate across different devices too."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """One configuration of a comparison, and what it came to."""

    trials: Trials
    file: str
    """Its label."""
    device: str
    machine: str
    """Host and software, where the file has several machines with such a device."""
    num: int
    """Trials used: usable ones that have the figure."""
    num_usable: int
    num_lost: int
    """Trials that were invalid or failed, without a usable second attempt."""
    lost_reasons: str
    value: float | None
    """Geometric mean of the metric, in its unit."""
    throughput_per_s: float | None
    energy_per_item_j: float | None
    roof_frac: float | None
    """Share of the measured roof of the device that was reached."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A pair of configurations and what came of it. Ratios are B / A."""

    a: Side
    b: Side
    is_cross_hardware: bool
    source: str
    """Which figure of the metric was compared."""
    change: LogEstimate | None
    """B / A."""
    ratio: float | None
    low: float | None
    """Lower end of its 95 % interval."""
    high: float | None
    threshold_frac: float
    reason: str
    more_trials: int | None
    confounders: tuple[str, ...]
    verdict: str
    """A word of `VERDICTS`, or '' for a ratio that gates nothing."""
    throughput_ratio: float | None
    energy_ratio: float | None
    """Of energy per item: the inverse is the ratio of items per second per watt."""


@dataclass(frozen=True, kw_only=True)
class Mean:
    """Geometric mean of the ratios of several pairs; never shown without their number."""

    file: str
    device_a: str
    device_b: str
    phase: str
    """Phase of the workloads on two different devices; '' on one device: all phases together."""
    ratio: float
    num: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All that `bench compare` found."""

    metric: Metric
    labels: tuple[str, ...]
    rows: tuple[Compared, ...]
    unmatched: tuple[Unmatched, ...]

    @property
    def means(self) -> tuple[Mean, ...]:
        """Geometric means over valid pairs: of each file, device pair and phase."""

        def place(row: Compared) -> tuple[str, str, str, str]:
            a, b = row.a.trials, row.b.trials
            return row.b.file, a.one_device, b.one_device, a.phase if row.is_cross_hardware else ""

        valid = (row for row in self.rows if row.ratio and row.verdict != "NOT COMPARED")
        return tuple(
            Mean(
                **dict(zip(("file", "device_a", "device_b", "phase"), where, strict=True)),
                ratio=geometric_mean(row.ratio or 1.0 for row in rows),
                num=len(rows),
            )
            for where, rows in grouped(valid, place).items()
        )

    def exit_code(self, *, is_strict: bool, is_gate: bool = False) -> ExitCode:
        """0, or what the process should end with; a gate does not pass what was not judged."""
        verdicts = {row.verdict for row in self.rows}
        lost = [row for row in self.rows if row.verdict == "NOT COMPARED"]
        if "REGRESSION" in verdicts:
            return ExitCode.REGRESSION
        if any(row.a.num_lost + row.b.num_lost for row in lost):
            return ExitCode.INVALID
        if all(row.ratio is None for row in self.rows):
            return ExitCode.NOTHING_MATCHED
        is_unjudged = bool(verdicts & {"NOT COMPARED", ""})
        is_open = is_unjudged or self.unmatched or "INCONCLUSIVE" in verdicts
        is_undecided = (is_gate and is_unjudged) or (is_strict and is_open)
        return ExitCode.INCONCLUSIVE if is_undecided else ExitCode.OK

    def document(self, *, is_strict: bool, is_gate: bool = False) -> dict[str, object]:
        """One JSON document: verdicts, ratios, sides, and what could not be matched."""
        return {
            "metric": self.metric.name,
            "unit": self.metric.unit,
            "files": self.labels,
            "exit_code": int(self.exit_code(is_strict=is_strict, is_gate=is_gate)),
            "num_gated": sum(row.verdict not in ("", "NOT COMPARED") for row in self.rows),
            "rows": [_document(row) for row in self.rows],
            "geometric_means": [asdict(mean) for mean in self.means],
            "unmatched": [{**vars(entry), "verdict": "NOT COMPARED"} for entry in self.unmatched],
        }


def _document(row: Compared) -> dict[str, object]:
    trials = row.a.trials
    shown = {
        name: trials.first.get(name) if BY_NAME[name].kind == "int" else trials.text(name)
        for name in _SHOWN
    }
    sides = {"a": {**vars(row.a)}, "b": {**vars(row.b)}}
    for side in sides.values():
        del side["trials"]
    found = {name: value for name, value in vars(row).items() if name != "change"}
    return shown | sides | found | sides | {"verdict": row.verdict or None}


def compare(
    files: Sequence[tuple[str, Sequence[Row]]], *, metric: Metric, strictness: Strictness
) -> Comparison:
    """Compare each file with the first one; files are (label, rows)."""
    labels = tuple(label for label, _ in files)
    first, *others = (gather(rows, file=label) for label, rows in files)
    rows: list[Compared] = []
    unmatched: list[Unmatched] = []
    for label, other in zip(labels[1:], others, strict=True):
        pairs, alone = match(first, other, labels=(labels[0], label))
        rows += [_compared(a, b, metric=metric, strictness=strictness) for a, b in pairs]
        unmatched += alone
    judged = _judged(rows)
    return Comparison(metric=metric, labels=labels, rows=judged, unmatched=tuple(unmatched))


def _compared(before: Trials, after: Trials, *, metric: Metric, strictness: Strictness) -> Compared:
    """Figures of both sides by the first source that both have; judged later, all together."""
    found = [(one, one.of(before), one.of(after)) for one in metric.sources]
    # Where the two sides have no source in common, the first is shown.
    source, of_a, of_b = next((one for one in found if one[1] and one[2]), found[0])
    a, b = _side(before, of_a), _side(after, of_b)
    change = of_b.over(of_a) if of_a and of_b else None
    low, high = change.interval if change and change.interval else (None, None)
    reason = _why_not(a, b)
    if not reason and any(before.word(name) != after.word(name) for name in source.must_agree):
        reason = "measured in different ways (unit, scope or source differ)"
    is_cross = is_cross_hardware(before, after)
    is_ratio_only = is_cross and not strictness.force_gate and not reason
    return Compared(
        a=a,
        b=b,
        is_cross_hardware=is_cross,
        source=source.name if change else "",
        change=change,
        ratio=value_of(change),
        low=low,
        high=high,
        threshold_frac=_threshold(before, after, metric=metric, strictness=strictness),
        reason="different devices: a ratio, not a verdict" if is_ratio_only else reason,
        more_trials=None,
        confounders=confounders(before, after),
        verdict="" if is_ratio_only else "NOT COMPARED" if reason else "INCONCLUSIVE",
        throughput_ratio=_over(b.throughput_per_s, a.throughput_per_s),
        energy_ratio=_over(b.energy_per_item_j, a.energy_per_item_j),
    )


def _side(trials: Trials, figure: LogEstimate | None) -> Side:
    return Side(
        trials=trials,
        file=trials.file,
        device=trials.text("device_name"),
        machine=trials.machine,
        num=0 if figure is None else figure.num,
        num_usable=len(trials.used),
        num_lost=trials.num_lost,
        lost_reasons=trials.lost_reasons,
        value=value_of(figure),
        **{name: value_of(trials.estimate(name)) for name in _SIDE},
    )


def value_of(found: LogEstimate | None) -> float | None:
    """Value of an estimate, where there is one."""
    return None if found is None else found.value


def _over(above: float | None, below: float | None) -> float | None:
    return None if above is None or below is None else above / below


def _why_not(a: Side, b: Side) -> str:
    for side in (a, b):
        if side.num_usable < MIN_TRIALS:
            few = f"{side.file}: {counted(side.num_usable, 'usable trial')}, needs {MIN_TRIALS}"
            lost = f"{side.num_lost} invalid or failed: {side.lost_reasons or 'no reason stated'}"
            return f"{few} ({lost})" if side.num_lost else few
    for side in (a, b):
        if not side.num and side.trials.is_served:
            return f"{side.file}: requests came by a schedule; take --metric latency"
        if not side.num:
            return f"not measured in {side.file}"
        if side.num < MIN_TRIALS:
            return f"{side.file}: measured in {counted(side.num, 'trial')}, needs {MIN_TRIALS}"
    return ""


def _judged(rows: Sequence[Compared]) -> tuple[Compared, ...]:
    asked = [(row.change, row.threshold_frac) for row in rows if row.verdict == "INCONCLUSIVE"]
    changes = [change for change, _ in asked if change is not None]
    found = iter(judge(changes, threshold_fracs=[threshold for _, threshold in asked]))
    return tuple(row if row.verdict != "INCONCLUSIVE" else _with(row, next(found)) for row in rows)


def _with(row: Compared, judged: Judged) -> Compared:
    demoted = "beyond the threshold alone, but not among so many comparisons"
    reason = demoted if judged.is_demoted else ""
    return replace(row, verdict=judged.verdict, more_trials=judged.more_trials, reason=reason)


def _threshold(before: Trials, after: Trials, *, metric: Metric, strictness: Strictness) -> float:
    """Threshold of the side that needs the larger one, and no less than twice the noise."""
    least = []
    for one in (before, after):
        key = (one.text("workload"), one.text("config_hash"), one.text("device_name"))
        device_type = one.text("device_type")
        usual = default_threshold_frac(metric, device_type=device_type, rows=one.used)
        least += [strictness.threshold_frac or usual, 2.0 * strictness.noise_floors.get(key, 0.0)]
    return max(least)
