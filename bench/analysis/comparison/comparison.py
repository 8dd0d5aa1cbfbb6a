"""What a comparison found, as facts: sides, compared pairs, unmatched groups, the exit code.

Made by `compare_files`, rendered by `bench.report.tables.compare_tables`, and turned into the
document that `--json` prints by `comparison_document`.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.analysis.comparison.matching import Unmatched
from bench.analysis.comparison.metrics import Metric
from bench.analysis.trials.configuration import Trials
from bench.analysis.trials.estimates import LogEstimate, geometric_mean
from bench.core.errors import ExitCode


def _ratio(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after / before


def _value(found: LogEstimate | None) -> float | None:
    return None if found is None else found.value


@dataclass(frozen=True, kw_only=True)
class Side:
    """One configuration of a comparison, and its figure of the metric."""

    trials: Trials
    figure: LogEstimate | None

    @property
    def file(self) -> str:
        """Label of the file."""
        return self.trials.file

    @property
    def device(self) -> str:
        """Name of the device."""
        return self.trials.text("device_name")

    @property
    def num(self) -> int:
        """Trials used: usable ones that have the figure."""
        return 0 if self.figure is None else self.figure.num

    @property
    def num_usable(self) -> int:
        """Trials that may be used."""
        return len(self.trials.used)

    @property
    def num_lost(self) -> int:
        """Trials that were invalid or failed, without a usable second attempt."""
        return self.trials.num_lost

    @property
    def lost_reasons(self) -> str:
        """Reason codes of the lost ones."""
        return self.trials.lost_reasons

    @property
    def value(self) -> float | None:
        """Geometric mean of the metric, in its unit."""
        return _value(self.figure)

    @property
    def throughput_per_s(self) -> float | None:
        """Items per second over the whole window."""
        return _value(self.trials.estimate("throughput_per_s"))

    @property
    def energy_per_item_j(self) -> float | None:
        """Joules per item."""
        return _value(self.trials.estimate("energy_per_item_j"))

    @property
    def roof_frac(self) -> float | None:
        """Share of the measured roof of the device that was reached."""
        return _value(self.trials.estimate("roof_frac"))


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
    threshold_frac: float
    verdict: str
    """A word of `VERDICTS`, or '' for a ratio that gates nothing."""
    reason: str
    more_trials: int | None
    confounders: tuple[str, ...]

    @property
    def workload(self) -> str:
        """`imaging-train`."""
        return self.a.trials.text("workload")

    @property
    def config_hash(self) -> str:
        """Identifier of the configuration."""
        return self.a.trials.text("config_hash")

    @property
    def ratio(self) -> float | None:
        """B / A."""
        return _value(self.change)

    @property
    def low(self) -> float | None:
        """Lower end of its 95 % interval."""
        interval = None if self.change is None else self.change.interval
        return None if interval is None else interval[0]

    @property
    def high(self) -> float | None:
        """Upper end of its 95 % interval."""
        interval = None if self.change is None else self.change.interval
        return None if interval is None else interval[1]

    @property
    def throughput_ratio(self) -> float | None:
        """B / A of items per second over the whole window."""
        return _ratio(self.a.throughput_per_s, self.b.throughput_per_s)

    @property
    def energy_ratio(self) -> float | None:
        """B / A of energy per item: the inverse is the ratio of items per second per watt."""
        return _ratio(self.a.energy_per_item_j, self.b.energy_per_item_j)


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
