"""What a link costs: one layout's step over each link, against the fastest one on the same terms.

Two runs are put into one ratio only when everything but the link is equal, the mode included: an
emulated step is never divided by a real one. Statistics are over trials; the bracket (error band of
the link, with and without contention) stands beside them and is never mixed into them. Loss is not
looked at: gradients of virtual ranks are copies. Standard library only, so that the table at the
end of a run costs no import.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from bench.analysis.estimates import LogEstimate, estimate, exact
from bench.analysis.identity import CONFIGURATION, DEVICE, LEAST, MOST
from bench.core.nouns import Layout
from bench.results.schema import USABLE, Row, Value

TERMS = (*CONFIGURATION, *DEVICE, "chip_limit")
"""What was run on what: equal in all runs that are set against each other."""
REMEDIES = ("mitigation", "grad_accum", "bucket_bytes", "schedule")
"""What can be done about a narrow link without another link."""
_USUAL: dict[str, tuple[Value, ...]] = {
    "mitigation": (None, ""),
    "grad_accum": (None, Layout().grad_accum),
    "bucket_bytes": (None, Layout().bucket_bytes),
    "schedule": (None, "", Layout().schedule),
}

Bracket = tuple[float, float]
"""Fast and slow end: the link's error band, without and with contention."""


@dataclass(frozen=True, kw_only=True)
class LinkRun:
    """Trials of one configuration, read for what its link does to it; None is not measured."""

    rows: Sequence[Row]
    file: str = ""
    """Label of the file; rows of different files are not set against each other."""

    @cached_property
    def used(self) -> list[Row]:
        """Rows whose figures may be used."""
        return [row for row in self.rows if row["status"] in USABLE]

    @property
    def first(self) -> Row:
        """The row that names the configuration."""
        return (self.used or self.rows)[0]

    @property
    def mode(self) -> str:
        """real, throttled, emulated or simulated."""
        return str(self.first.get("mode") or "real")

    @property
    def link(self) -> str:
        """The modelled link; '' for what is really there."""
        return str(self.first.get("link") or "")

    @property
    def num_devices(self) -> int:
        """Devices that took part, virtual ones included."""
        count = self.first.get("device_count")
        return count if isinstance(count, int) and count > 0 else 1

    @property
    def is_wide(self) -> bool:
        """Whether several devices or a modelled link took part."""
        return bool(self.link or self.first.get("parallel") or self.num_devices > 1)

    @property
    def is_plain(self) -> bool:
        """Whether nothing was done about the link: defaults throughout."""
        return all(self.first.get(name) in usual for name, usual in _USUAL.items())

    def facts(self, names: Iterable[str]) -> tuple[str, ...]:
        """Values of some columns as text; blank and the default are the same."""
        cells = ((name, self.first.get(name)) for name in names)
        return tuple("" if cell in _USUAL.get(name, (None,)) else str(cell) for name, cell in cells)

    @cached_property
    def terms(self) -> tuple[str, ...]:
        """What must be equal for two runs to be set against each other at all."""
        return self.file, self.mode, *self.facts(TERMS)

    @cached_property
    def spread(self) -> tuple[str, ...]:
        """Terms and layout: all but the link and what is done about it."""
        return *self.terms, *self.facts(("parallel", "layout")), str(self.num_devices)

    def estimate(self, column: str, *, over: str = "", scale: float = 1.0) -> LogEstimate | None:
        """Geometric mean of a column, or of its ratio to another, over usable trials."""
        figures = []
        for row in self.used:
            value = _number(row.get(column))
            divisor = _number(row.get(over)) if over else 1.0
            if value is not None and divisor and LEAST < value / divisor < MOST:
                figures.append(scale * value / divisor)
        return estimate(figures)

    def mean(self, column: str) -> float | None:
        """Arithmetic mean over usable trials, zero allowed: what formulas and replays gave."""
        found = [v for row in self.used if (v := _number(row.get(column))) is not None]
        return math.fsum(found) / len(found) if found else None

    def word(self, column: str) -> str:
        """Texts of a column, each once."""
        return ", ".join(dict.fromkeys(str(row[column]) for row in self.used if row.get(column)))

    @property
    def shows_mean(self) -> bool:
        """Whether the step shown is a mean: with a mitigation some steps may send nothing."""
        return bool(self.first.get("mitigation")) and self._mean_step_s is not None

    @cached_property
    def _mean_step_s(self) -> LogEstimate | None:
        return self.estimate("window_s", over="steps")

    @cached_property
    def step_s(self) -> LogEstimate | None:
        """Median step of each trial, or its mean (`shows_mean`)."""
        if self.shows_mean:
            return self._mean_step_s
        return self.estimate("step_median_ms", scale=1e-3)

    @cached_property
    def over_compute(self) -> LogEstimate | None:
        """Step over the same steps without communication: what the machine did to both cancels."""
        column = "step_mean_ms" if self.shows_mean else "step_median_ms"
        return self.estimate(column, over="compute_step_ms")

    @cached_property
    def bracket_over_compute(self) -> Bracket | None:
        """Both ends of the bracket over the step without communication."""
        compute_ms = self.mean("compute_step_ms")
        if self.bracket_s is None or not compute_ms:
            return None
        low_s, high_s = self.bracket_s
        return low_s * 1e3 / compute_ms, high_s * 1e3 / compute_ms

    @cached_property
    def per_item_s(self) -> LogEstimate | None:
        """Time per item over the whole window; items count those of all devices."""
        found = self.estimate("window_s", over="items")
        speed = self.estimate("throughput_per_s") if found is None else None
        return found if speed is None else exact(1.0).over(speed)

    @cached_property
    def bracket_s(self) -> Bracket | None:
        """Step at the fast and at the slow end; None where either was not worked out."""
        low, high = self.mean("step_low_ms"), self.mean("step_high_ms")
        if low is None or high is None or not 0.0 < low <= high:
            return None
        return low * 1e-3, high * 1e-3


def _number(value: Value) -> float | None:
    """The figure of a cell; None where it holds none, or one that nothing here can have."""
    is_figure = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_figure and abs(value) < MOST else None  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Slowdown:
    """Step over a link against that over the fastest link."""

    fastest: LinkRun
    ratio: LogEstimate
    """Over 1: slower than over the fastest link."""
    bracket: Bracket | None
    """With both links at the fast, and both at the slow end of their brackets."""


def fastest_links(runs: Iterable[LinkRun]) -> dict[tuple[str, ...], LinkRun]:
    """Return, per set of equal terms with two links or more, the run over the fastest link.

    The link whose modelled time for this traffic is least: a choice that measured noise has no part
    in. Only where that is not stated for all of them, the shortest step decides.
    """
    together: dict[tuple[str, ...], list[LinkRun]] = {}
    for run in runs:
        if run.link and run.step_s is not None:
            together.setdefault(_but_link(run), []).append(run)
    return {
        but_link: _fastest(found)
        for but_link, found in together.items()
        if len({run.link for run in found}) > 1
    }


def _but_link(run: LinkRun) -> tuple[str, ...]:
    return *run.spread, *run.facts(REMEDIES)


def _fastest(found: Sequence[LinkRun]) -> LinkRun:
    modelled_ms = {id(run): run.mean("comm_total_ms") for run in found}
    if None not in modelled_ms.values():
        return min(found, key=lambda run: modelled_ms[id(run)] or 0.0)
    return min(found, key=lambda run: math.inf if run.step_s is None else run.step_s.log)


def slowdown(run: LinkRun, *, fastest: dict[tuple[str, ...], LinkRun]) -> Slowdown | None:
    """Set a run against the fastest link; None for that one itself, and where there is no other."""
    other = fastest.get(_but_link(run)) if run.link else None
    if other is None or other is run or run.step_s is None or other.step_s is None:
        return None
    ratio, ours, theirs = run.step_s.over(other.step_s), run.bracket_s, other.bracket_s
    if run.over_compute is not None and other.over_compute is not None:
        # Each step was replayed without its communication in the trial that ran it: divided by
        # that, it no longer holds how fast the machine happened to be in that trial.
        ratio = run.over_compute.over(other.over_compute)
        ours, theirs = run.bracket_over_compute, other.bracket_over_compute
    bracket = None
    if ours is not None and theirs is not None:
        ends = [mine / its for mine, its in zip(ours, theirs, strict=True)]
        bracket = min(ends), max(ends)
    return Slowdown(fastest=other, ratio=ratio, bracket=bracket)
