"""Draws over what a projection does not know, the same ones every time.

Every unknown is drawn evenly between its ends: how a class's unexplained time is shared between the
roofs that could hold it (uniform over all shares), how much its own roof explains where no profile
shows, how far a compiler fused it, where in its band an achieved fraction lies. What is given are
the 10th, 50th and 90th percentile, so an interval is meant to hold four times in five. Because the
draws do not depend on the chip, a chip that is faster in every roof is never projected slower.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from bench.analysis.projection.roofs import RateSpan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

NUM_DRAWS = 4001
"""Odd, so that the median is one of them; the ends of an interval repeat to about 1 %."""
LOW, MID, HIGH = 10.0, 50.0, 90.0
"""Percentiles that are reported."""
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Draws:
    """One value of every unknown in each draw; evenly between 0 and 1 unless said otherwise."""

    shares: Array
    """(draws, 3): shares of matrix, memory and on-chip work in unexplained time, summing to 1."""
    explained: Array
    """Share that an operator's own roof explains, where no profile shows."""
    fused: Array
    """0: every operator by itself, 1: everything pointwise fused away."""
    source_matrix: Array
    source_memory: Array
    target_matrix: Array
    target_memory: Array
    on_chip: Array
    relatedness: Array
    launch: Array
    link: Array
    trials: Array

    def without(self, name: str) -> Draws:
        """Return the draws with one unknown held at its middle."""
        values = getattr(self, name)
        middle = np.full_like(values, 1.0 / 3.0 if values.ndim == 2 else 0.5)
        return replace(self, **{name: middle})


UNKNOWNS = tuple(field.name for field in fields(Draws))


@cache
def draws() -> Draws:
    """Return the draws that every projection uses."""
    generator = np.random.default_rng(_SEED)
    shares = generator.dirichlet((1.0, 1.0, 1.0), NUM_DRAWS)
    rest = [name for name in UNKNOWNS if name != "shares"]
    return Draws(shares=shares, **{name: generator.random(NUM_DRAWS) for name in rest})


def between(band: RateSpan, at: Array) -> Array:
    """Return figures between the ends of a band, evenly in their logarithm."""
    return band.low * (band.high / band.low) ** at


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A projected figure: an interval that is meant to hold four times in five, and its middle."""

    low: float
    mid: float
    high: float

    @property
    def width(self) -> float:
        """High over low."""
        return self.high / self.low

    def inverse(self, numerator: float = 1.0) -> Estimate:
        """Divide a positive number by it: a rate from a time."""
        return Estimate(
            low=numerator / self.high, mid=numerator / self.mid, high=numerator / self.low
        )


def estimate(values: Array, *, middle: Array | None = None) -> Estimate:
    """Percentiles of the draws; the median of `middle` where that leaves symmetric doubt out."""
    low, high = np.percentile(values, [LOW, HIGH])
    mid = float(np.percentile(values if middle is None else middle, MID))
    return Estimate(low=min(float(low), mid), mid=mid, high=max(float(high), mid))
