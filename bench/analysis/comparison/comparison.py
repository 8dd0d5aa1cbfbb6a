"""What a comparison found, as facts: sides, compared pairs, unmatched groups, the exit code.

Made by `compare_files`, rendered by `report.tables.compare_tables`; `--json` prints every fact.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from bench.analysis.comparison.matching import Unmatched
from bench.analysis.comparison.metrics import Metric
from bench.analysis.trials.configuration import Trials
from bench.analysis.trials.estimates import LogEstimate, geometric_mean
from bench.analysis.trials.identity import LAYOUT
from bench.core.errors import ExitCode
from bench.results.schema import BY_NAME

_SHOWN = ("workload", "workload_version", "config_hash", "size", "dtype", "batch", *LAYOUT)


@dataclass(frozen=True, kw_only=True)
class Side:
    """One configuration of a comparison, and what it came to."""

    trials: Trials
    file: str
    """Its label."""
    device: str
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

    @classmethod
    def of(cls, trials: Trials, figure: LogEstimate | None) -> Side:
        """Read a side off its trials; `figure` is the metric's."""
        columns = ("throughput_per_s", "energy_per_item_j", "roof_frac")
        return cls(
            trials=trials,
            file=trials.file,
            device=trials.text("device_name"),
            num=0 if figure is None else figure.num,
            num_usable=len(trials.used),
            num_lost=trials.num_lost,
            lost_reasons=trials.lost_reasons,
            value=value_of(figure),
            **{name: value_of(trials.estimate(name)) for name in columns},
        )

    def over(self, other: Side, name: str) -> float | None:
        """Ratio of a figure to that of another side."""
        ours, theirs = getattr(self, name), getattr(other, name)
        return None if ours is None or theirs is None else ours / theirs


def value_of(found: LogEstimate | None) -> float | None:
    """Value of an estimate, where there is one."""
    return None if found is None else found.value


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A pair of configurations and what came of it. Ratios are B / A."""

    workload: str
    config_hash: str
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
    def is_cross_hardware(self) -> bool:
        """Whether any pair is on two different devices."""
        return any(row.is_cross_hardware for row in self.rows)

    @property
    def means(self) -> tuple[Mean, ...]:
        """Geometric means over valid pairs: of each file, device pair and phase."""
        ratios: dict[tuple[str, str, str, str], list[float]] = {}
        for row in self.rows:
            phase = row.workload.rpartition("-")[2] if row.is_cross_hardware else ""
            of = (row.b.file, row.a.device, row.b.device, phase)
            found = ratios.setdefault(of, [])
            if row.ratio is not None and row.verdict != "NOT COMPARED":
                found.append(row.ratio)
        return tuple(
            Mean(
                file=file,
                device_a=device_a,
                device_b=device_b,
                phase=phase,
                ratio=geometric_mean(found),
                num=len(found),
            )
            for (file, device_a, device_b, phase), found in ratios.items()
            if found
        )

    @property
    def num_gated(self) -> int:
        """Rows that could have become a regression."""
        return sum(row.verdict not in ("", "NOT COMPARED") for row in self.rows)

    def exit_code(self, *, is_strict: bool) -> ExitCode:
        """0, or what the process should end with."""
        verdicts = {row.verdict for row in self.rows}
        compared = [row for row in self.rows if row.ratio is not None]
        is_lost = any(
            row.verdict == "NOT COMPARED" and row.a.num_lost + row.b.num_lost for row in self.rows
        )
        if "REGRESSION" in verdicts:
            return ExitCode.REGRESSION
        if is_lost:
            return ExitCode.INVALID
        if not compared:
            return ExitCode.NOTHING_MATCHED
        is_open = self.unmatched or verdicts & {"INCONCLUSIVE", "NOT COMPARED"}
        return ExitCode.INCONCLUSIVE if is_strict and is_open else ExitCode.OK

    def document(self, *, is_strict: bool) -> dict[str, object]:
        """One JSON document: verdicts, ratios, sides, and what could not be matched."""
        return {
            "metric": self.metric.name,
            "unit": self.metric.unit,
            "files": self.labels,
            "exit_code": int(self.exit_code(is_strict=is_strict)),
            "num_gated": self.num_gated,
            "rows": [_row(row) for row in self.rows],
            "geometric_means": [asdict(mean) for mean in self.means],
            "unmatched": [{**vars(entry), "verdict": "NOT COMPARED"} for entry in self.unmatched],
        }


def _row(row: Compared) -> dict[str, object]:
    trials = row.a.trials
    shown = {
        name: trials.first.get(name) if BY_NAME[name].kind == "int" else trials.text(name)
        for name in _SHOWN
    }
    found = {name: value for name, value in vars(row).items() if name != "change"}
    sides = {
        name: {key: value for key, value in vars(side).items() if key != "trials"}
        for name, side in (("a", row.a), ("b", row.b))
    }
    return shown | sides | found | sides | {"verdict": row.verdict or None}
