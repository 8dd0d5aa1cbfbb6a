"""A positive quantity estimated from trials, with its error on the logarithmic scale.

There a ratio of ratios (how far the training gap between two devices differs from the inference
gap) is still a sum with one error. Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from bench.core.statistics import t_quantile

Ends = tuple[float, float]
"""Fast and slow end: the link's error band, without and with contention."""


@dataclass(frozen=True, kw_only=True)
class LogEstimate:
    """Logarithm of a positive quantity with its error, as estimated from trials."""

    log: float
    parts: tuple[tuple[float, float], ...] = ()
    """(squared error, degrees of freedom) of each independent source of error."""
    num: int = 0
    """Trials on the side that has fewest."""
    is_exact: bool = False
    """True for a formula or a counter, which needs no interval."""

    @property
    def value(self) -> float:
        """The quantity itself."""
        return math.exp(self.log)

    @property
    def log_ends(self) -> tuple[float, float]:
        """95 % interval of the logarithm; `ValueError` when trials are too few."""
        if self.half_width is None:
            raise ValueError("too few trials for an interval")
        return self.log - self.half_width, self.log + self.half_width

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval by the Welch-Satterthwaite formula; None when trials are too few."""
        # What no float holds is as good as unknown.
        if self.half_width is None or abs(self.log) + self.half_width > 700.0:
            return None
        low, high = self.log_ends
        return math.exp(low), math.exp(high)

    @property
    def error(self) -> float:
        """Standard error of the logarithm, where there are enough trials to know it."""
        return math.sqrt(math.fsum(part for part, _ in self.parts))

    @property
    def degrees(self) -> float:
        """Degrees of freedom of the error, by Welch and Satterthwaite.

        Welch, Biometrika 34 (1947), https://doi.org/10.1093/biomet/34.1-2.28
        """
        squared = math.fsum(part for part, _ in self.parts)
        return squared**2 / math.fsum(part**2 / degrees for part, degrees in self.parts)

    @cached_property
    def half_width(self) -> float | None:
        """Of the 95 % interval of the logarithm; None when trials are too few."""
        if self.is_exact or not self.parts:
            return None
        # A counter of bytes may be equal in all trials: the interval is the point.
        error = self.error
        return t_quantile(0.975, self.degrees) * error if error > 0.0 else 0.0

    def over(self, other: LogEstimate) -> LogEstimate:
        """Ratio self / other, errors independent."""
        is_told = all(side.is_exact or side.parts for side in (self, other))
        return LogEstimate(
            log=self.log - other.log,
            parts=self.parts + other.parts if is_told else (),
            num=min((side.num for side in (self, other) if not side.is_exact), default=0),
            is_exact=self.is_exact and other.is_exact,
        )

    def times(self, factor: float) -> LogEstimate:
        """Multiply by an exact positive factor."""
        return replace(self, log=self.log + math.log(factor))


def estimate(values: Sequence[float]) -> LogEstimate | None:
    """Geometric mean of one value per trial; None when there is none."""
    return mean_of_logs([math.log(value) for value in values]) if values else None


def mean_of_logs(logs: Sequence[float]) -> LogEstimate:
    """Quantity whose logarithm is the mean of these: one for each trial, pair or block."""
    mean = math.fsum(logs) / len(logs)
    if len(logs) < 2:
        return LogEstimate(log=mean, num=1)
    squared = math.fsum((log - mean) ** 2 for log in logs) / (len(logs) - 1) / len(logs)
    return LogEstimate(log=mean, parts=((squared, len(logs) - 1.0),), num=len(logs))


def exact(value: float) -> LogEstimate:
    """A positive quantity known by formula."""
    return LogEstimate(log=math.log(value), is_exact=True)
