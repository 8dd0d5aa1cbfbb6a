"""What a comparison found, as facts: sides, compared pairs, unmatched groups, the exit code.

Made by `bench.analysis.compare`, rendered by `bench.report.tables.compare_tables`, and turned into
the document that `--json` prints by `bench.analysis.documents`.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.analysis.estimates import geometric_mean
from bench.analysis.metrics import Metric
from bench.analysis.pairs import Unmatched
from bench.core.errors import ExitCode


def _ratio(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after / before


@dataclass(frozen=True, kw_only=True)
class Side:
    """One group of a comparison."""

    file: str
    device: str
    num: int
    """Trials used: usable ones that have the figure."""
    num_usable: int
    num_lost: int
    """Trials that were invalid or failed, without a usable second attempt."""
    lost_reasons: str
    """Reason codes of the lost ones."""
    value: float | None
    """Geometric mean of the metric, in its unit."""
    throughput_per_s: float | None
    energy_per_item_j: float | None
    roof_frac: float | None
    """Share of the measured roof of the device that was reached."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A pair of groups and what came of it. Ratios are B / A."""

    workload: str
    workload_version: str
    config_hash: str
    size: str
    dtype: str
    batch: int | None
    mode: str
    link: str
    parallel: str
    layout: str
    device_count: int | None
    mitigation: str
    grad_accum: int | None
    bucket_bytes: int | None
    schedule: str
    a: Side
    b: Side
    is_cross_hardware: bool
    source: str
    """Which figure of the metric was compared."""
    ratio: float | None
    low: float | None
    high: float | None
    threshold_frac: float
    verdict: str
    """A word of `VERDICTS`, or '' for a ratio that gates nothing."""
    reason: str
    more_trials: int | None
    confounders: tuple[str, ...]

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
