"""Positive quantities with their error, as trials give them, and ratios of such quantities.

Everything is on the logarithmic scale, so a ratio of ratios (how far the training gap between two
devices differs from the inference gap) is still a sum with one error. For single figures; thousands
of comparisons at once are in `bench.analysis.statistics`. Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.core.statistics import t_quantile


def geometric_mean(values: Sequence[float]) -> float:
    """Geometric mean of positive values."""
    return math.exp(math.fsum(math.log(value) for value in values) / len(values))


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
    def interval(self) -> tuple[float, float] | None:
        """95 % interval by the Welch-Satterthwaite formula; None when trials are too few."""
        if self.is_exact or not self.parts:
            return None
        squared = math.fsum(part for part, _ in self.parts)
        if squared == 0.0:
            return self.value, self.value
        degrees = squared**2 / math.fsum(part**2 / d for part, d in self.parts)
        half_width = t_quantile(0.975, degrees) * math.sqrt(squared)
        if abs(self.log) + half_width > 700.0:  # beyond what a float holds: as good as unknown
            return None
        return math.exp(self.log - half_width), math.exp(self.log + half_width)

    def over(self, other: LogEstimate) -> LogEstimate:
        """Ratio self / other, errors independent."""
        known = (self, other)
        is_told = all(side.is_exact or side.parts for side in known)
        counted = [side.num for side in known if not side.is_exact]
        return LogEstimate(
            log=self.log - other.log,
            parts=self.parts + other.parts if is_told else (),
            num=min(counted, default=0),
            is_exact=self.is_exact and other.is_exact,
        )

    def times(self, factor: float) -> LogEstimate:
        """Multiply by an exact positive factor."""
        return LogEstimate(
            log=self.log + math.log(factor),
            parts=self.parts,
            num=self.num,
            is_exact=self.is_exact,
        )


def estimate(values: Sequence[float]) -> LogEstimate | None:
    """Geometric mean of one value per trial; None when there is none."""
    if len(values) == 0:
        return None
    logs = [math.log(value) for value in values]
    mean = math.fsum(logs) / len(logs)
    if len(logs) < 2:
        return LogEstimate(log=mean, num=1)
    squared = math.fsum((log - mean) ** 2 for log in logs) / (len(logs) - 1) / len(logs)
    return LogEstimate(log=mean, parts=((squared, len(logs) - 1.0),), num=len(logs))


def exact(value: float) -> LogEstimate:
    """A positive quantity known by formula."""
    return LogEstimate(log=math.log(value), is_exact=True)
