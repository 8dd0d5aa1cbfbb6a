"""How a step's time moves to another chip, class of operator by class of operator.

A class's time on the source is split in two. What its own roof explains (the time that its FLOPs or
bytes take at the measured roof) is carried over by that roof. The rest, which no roof explains, is
shared between the roofs that could hold it, in every proportion. So a program that uses a roof well
is projected sharply, and one that does not, widely. With nothing known of the operators the whole
step is such a rest. Cache hits are not modelled: they are part of the rest.

What is not known is drawn evenly between its ends, the same draws every time: how unexplained time
is shared (uniform over all shares; by Perks's prior, which leaves more to one of them, where no
profile shows how a step is divided), how much an operator's own roof explains where no profile
shows, how far a compiler fused it, where in its band an achieved fraction lies. Reported are the
10th, 50th and 90th percentile, so an interval is meant to hold four times in five. Because draws do
not depend on the chip, a chip that is faster in every roof is never projected slower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from bench.analysis.projection.on_chip import Limit, limits
from bench.analysis.projection.roofs import (
    SERVER_SPREAD,
    Estimate,
    RateSpan,
    Roofs,
    Unknown,
    band,
    is_same_chip,
    relatedness,
    roofs_of_pair,
)
from bench.core.nouns import Chip
from bench.hardware.operators import Operators

Array = NDArray[np.float64]
NUM_DRAWS = 4001
"""Odd, so that the median is one of them; the ends of an interval repeat to about 1 %."""
MATRIX, MEMORY = 0, 1
ROOFS = ("matrix", "memory", "on chip")
_UNKNOWN_ON_CHIP = 1.3
"""How far on-chip work may lie beyond the other two roofs where nothing shows; judgement."""


@dataclass(frozen=True, kw_only=True)
class Draws:
    """One value of every unknown in each draw; evenly between 0 and 1 unless said otherwise."""

    shares: Array
    """(draws, 3): shares of matrix, memory and on-chip work in unexplained time, summing to 1."""
    explained: Array
    """Share that an operator's own roof explains, where no profile shows."""
    fused: Array
    """0: every operator by itself, 1: everything pointwise fused away; also how well a program does
    in a dtype in which it did not run."""
    source_matrix: Array
    source_memory: Array
    target_matrix: Array
    target_memory: Array
    source_cache: Array
    target_cache: Array
    on_chip: Array
    """0: the units' issue holds what stays on the chip, 1: its cache."""
    relatedness: Array
    server: Array
    launch: Array
    link: Array
    trials: Array
    calls: Array
    """Operators of a step, where no profile has counted them."""
    division: Array
    """(draws, 4): as `shares`, and the share of gaps, where no profile shows them."""

    def without(self, name: str) -> Draws:
        """Return the draws with one unknown held at its middle; a profile shows several."""
        names = ("shares", "division", "calls") if name == "shares" else (name,)
        held = {name: getattr(self, name) for name in names}
        middles = {
            name: np.full_like(values, 1.0 / values.shape[1] if values.ndim == 2 else 0.5)
            for name, values in held.items()
        }
        return replace(self, **middles)

    def unprofiled(self) -> Draws:
        """Return the draws for a step of which no profile shows how it is divided."""
        working = np.maximum(self.division[:, :3], 1e-300)
        return replace(self, shares=working / working.sum(axis=1, keepdims=True))


@cache
def draws() -> Draws:
    """Return the draws that every projection uses."""
    generator = np.random.default_rng(0)
    shares = generator.dirichlet((1.0, 1.0, 1.0), NUM_DRAWS)
    rest = [field.name for field in fields(Draws) if field.name not in ("shares", "division")]
    figures = {name: generator.random(NUM_DRAWS) for name in rest}
    # Perks: 1 / number of shares. Taken after Jeffreys' 1/2, with which 22 of 3,296 made-up
    # profiles gave a wider interval than none; published ratios had no part in it.
    division = generator.dirichlet((1.0 / 4.0,) * 4, NUM_DRAWS)
    return Draws(shares=shares, division=division, **figures)


def between(band: RateSpan, at: Array) -> Array:
    """Return figures between the ends of a band, evenly in their logarithm."""
    return band.low * (band.high / band.low) ** at


def estimate(values: Array, *, middle: Array) -> Estimate:
    """Percentiles of the draws; the median is that of `middle`, which has no symmetric doubt."""
    low, high = map(float, np.percentile(values, [10.0, 90.0]))
    mid = float(np.median(middle))
    return Estimate(low=min(low, mid), mid=mid, high=max(high, mid))


@dataclass(frozen=True, kw_only=True)
class Scaled:
    """A step's time on the target over its time on the source, in each draw."""

    ratio: Array
    ratio_alike: Array
    """The same without the doubt about how differently the chips are built."""
    shares: Array
    """(3,): mean share of the target's time that rests on each of `ROOFS`."""
    relatedness_words: str
    on_chip_words: str


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Rates in each draw, source and target."""

    matrix: tuple[Array, Array]
    memory: tuple[Array, Array]
    slowdown: tuple[Array, Array, Array]
    """Time on the target over time on the source of work held by each of `ROOFS`."""

    def ideal_s(self, one: Operators, moved: Array, side: int) -> Array:
        """Time at the roofs of the source (side 0) or the target (1)."""
        by_memory = moved / self.memory[side]
        if not one.is_matrix:
            return by_memory
        ideal: Array = np.maximum(one.flops / self.matrix[side], by_memory)
        return ideal


def time_ratio(
    one: Chip, two: Chip, *, operators: Sequence[Operators], dtypes: tuple[str, str]
) -> Scaled | Unknown:
    """Time on chip two over that on chip one of some operators, from the catalogue alone."""
    pair = roofs_of_pair(one, two, dtypes=dtypes)
    if isinstance(pair, Unknown):
        return pair
    source, target = pair
    return scale(operators, source=source, target=target, dtype=dtypes[1], unknown=draws())


def speed_ratio(
    one: Chip, two: Chip, *, operators: Sequence[Operators], dtype: str
) -> Estimate | Unknown:
    """Speed of chip two over chip one, both in one dtype."""
    scaled = time_ratio(one, two, operators=operators, dtypes=(dtype, dtype))
    if isinstance(scaled, Unknown):
        return scaled
    return estimate(scaled.ratio, middle=scaled.ratio_alike).inverse()


def scale(
    operators: Sequence[Operators],
    *,
    source: Roofs,
    target: Roofs,
    dtype: str,
    unknown: Draws,
    busy_frac: Array | float = 1.0,
) -> Scaled:
    """Project the time of one step's operators; without any, of a step of unknown make-up.

    Where the operators carry no times, theirs on the source are modelled from its roofs; where they
    do the device works for `busy_frac` of them.
    """
    is_same = is_same_chip(source, target)
    held = () if is_same else limits(source, target)
    rates = rates_of(source, target, held, unknown)
    factor, words = relatedness(source, target, dtype=dtype)
    if operators:
        parts = np.zeros((3, NUM_DRAWS))
        whole = np.zeros(NUM_DRAWS)
        for one in operators:
            whole += _add(one, rates, unknown, parts=parts, busy_frac=busy_frac)
    else:
        parts = unknown.shares.T * np.stack(rates.slowdown)
        whole = np.ones(NUM_DRAWS)
    alike = parts.sum(axis=0) / whole
    spread = between(band(1.0 / factor, factor), unknown.relatedness)
    if not is_same:
        spread = spread * between(band(1.0 / SERVER_SPREAD, SERVER_SPREAD), unknown.server)
        words += f": x{factor:.3g} either way, and x{SERVER_SPREAD:g} from server to server"
    not_compared = "by neither units x clock, cache nor vector rate, which are not known of both"
    names = " or ".join(limit.name for limit in held)
    return Scaled(
        ratio=alike * spread,
        ratio_alike=alike,
        shares=(parts / parts.sum(axis=0)).mean(axis=1),
        relatedness_words=words,
        on_chip_words="the same chip" if is_same else f"by {names}" if names else not_compared,
    )


def rates_of(source: Roofs, target: Roofs, held: Sequence[Limit], unknown: Draws) -> Rates:
    """Rates of both chips in each draw, and how much slower each roof makes its work."""
    is_same = is_same_chip(source, target)
    matrix_at = unknown.source_matrix if is_same else unknown.target_matrix
    memory_at = unknown.source_memory if is_same else unknown.target_memory
    matrix = between(source.products, unknown.source_matrix), between(target.products, matrix_at)
    memory = between(source.memory, unknown.source_memory), between(target.memory, memory_at)
    by_matrix, by_memory = matrix[0] / matrix[1], memory[0] / memory[1]
    # Units slow down with the products beside them: their place in the band is that of the matrix.
    places = {"cache": (unknown.source_cache, unknown.target_cache)}
    ends = []
    for limit in held:
        before_at, after_at = places.get(limit.name, (unknown.source_matrix, matrix_at))
        ends.append(between(limit.before, before_at) / between(limit.after, after_at))
    if is_same:
        ends = [np.ones(NUM_DRAWS)]
    elif not ends:
        fast = np.minimum(by_matrix, by_memory) / _UNKNOWN_ON_CHIP
        slow = np.maximum(by_matrix, by_memory) * _UNKNOWN_ON_CHIP
        ends = [slow, fast]
    by_chip = ends[0] * (ends[-1] / ends[0]) ** unknown.on_chip  # one alone is both ends
    return Rates(matrix=matrix, memory=memory, slowdown=(by_matrix, by_memory, by_chip))


def _add(
    one: Operators, rates: Rates, unknown: Draws, *, parts: Array, busy_frac: Array | float
) -> Array:
    """Add to `parts`, (3, draws), what each roof holds of a class; its time on the source."""
    if one.time_s is None:
        moved = one.bytes + (one.least_bytes - one.bytes) * unknown.fused
        before = time_s = rates.ideal_s(one, moved, 0)
        explained = unknown.explained
    else:
        # What ran is what was counted: no compiler is between the profile and the chip.
        moved = np.full_like(unknown.fused, one.bytes)
        before = rates.ideal_s(one, moved, 0)
        time_s = np.full_like(before, one.time_s) * busy_frac
        explained = np.minimum(1.0, before / np.maximum(time_s, 1e-30))
    held = time_s * explained * rates.ideal_s(one, moved, 1) / np.maximum(before, 1e-300)
    by_matrix = one.is_matrix & (one.flops / rates.matrix[1] >= moved / rates.memory[1])
    parts[MATRIX] += np.where(by_matrix, held, 0.0)
    parts[MEMORY] += np.where(by_matrix, 0.0, held)
    weights = unknown.shares.T
    if not one.is_matrix:  # shares of work that never runs on matrix units
        weights = weights * [[0.0], [1.0], [1.0]]
        weights = weights / weights.sum(axis=0)
    parts += time_s * (1.0 - explained) * weights * np.stack(rates.slowdown)
    return time_s
