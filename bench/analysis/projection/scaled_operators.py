"""How a step's time moves to another chip, class of operator by class of operator.

A class's time on the source is split in two. What its own roof explains (the time that its FLOPs or
bytes take at the measured roof) is carried over by that roof. The rest, which no roof explains, is
shared between the roofs that could hold it, in every proportion. So a program that uses a roof well
is projected sharply, and one that does not, widely. With nothing known of the operators the whole
step is such a rest. Cache hits are not modelled: they are part of the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.analysis.projection.roofs import OnChip, RateBand, Roofs, kinship, on_chip
from bench.analysis.projection.sampling import Draws, between
from bench.hardware.operators import Operators

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

MATRIX, MEMORY = 0, 1
ROOFS = ("matrix", "memory", "on chip")
_UNKNOWN_ON_CHIP = 1.3
"""How far on-chip work may lie beyond the other two roofs where nothing tells; judgement."""


@dataclass(frozen=True, kw_only=True)
class Scaled:
    """A step's time on the target over its time on the source, in each draw."""

    ratio: Array
    ratio_alike: Array
    """The same without the doubt about how differently the chips are built."""
    shares: Array
    """(3,): mean share of the target's time that rests on each of `ROOFS`."""
    kinship_words: str
    on_chip_words: str


@dataclass(frozen=True, kw_only=True)
class _Rates:
    """Rates in each draw, source and target."""

    matrix: tuple[Array, Array]
    memory: tuple[Array, Array]
    slowdown: tuple[Array, Array, Array]
    """Time on the target over time on the source of work held by each of `ROOFS`."""


def scale(
    operators: Sequence[Operators], *, source: Roofs, target: Roofs, dtype: str, unknown: Draws
) -> Scaled:
    """Project the time of one step's operators; without any, of a step of unknown make-up.

    Where the operators carry no times, theirs on the source are modelled from its roofs.
    """
    how = on_chip(source, target)
    rates = _rates(source, target, how, unknown)
    factor, words = kinship(source, target, dtype=dtype)
    if operators:
        times, explained, fused = _source_times(operators, rates, unknown)
        parts = _scaled_parts(operators, rates, unknown, times=times, explained=explained,
                              fused=fused)  # fmt: skip
        whole = sum(times)
    else:
        parts = np.stack([unknown.shares[:, one] * rates.slowdown[one] for one in range(3)])
        whole = np.ones(len(unknown.explained))
    alike = parts.sum(axis=0) / whole
    spread = between(RateBand(low=1.0 / factor, high=factor), unknown.kinship)
    return Scaled(
        ratio=alike * spread,
        ratio_alike=alike,
        shares=(parts / parts.sum(axis=0)).mean(axis=1),
        kinship_words=words,
        on_chip_words=how.basis,
    )


def _rates(source: Roofs, target: Roofs, how: OnChip, unknown: Draws) -> _Rates:
    is_same = source.chip is not None and target.chip is not None
    is_same = is_same and source.chip.id == target.chip.id  # type: ignore[union-attr]
    matrix_at = unknown.source_matrix if is_same else unknown.target_matrix
    memory_at = unknown.source_memory if is_same else unknown.target_memory
    matrix = (
        between(source.matrix.per_s, unknown.source_matrix),
        between(target.matrix.per_s, matrix_at),
    )
    memory = (
        between(source.memory.per_s, unknown.source_memory),
        between(target.memory.per_s, memory_at),
    )
    by_matrix, by_memory = matrix[0] / matrix[1], memory[0] / memory[1]
    if how.speedup is not None:
        by_chip = 1.0 / between(how.speedup, unknown.on_chip)
    else:
        fast = np.minimum(by_matrix, by_memory) / _UNKNOWN_ON_CHIP
        slow = np.maximum(by_matrix, by_memory) * _UNKNOWN_ON_CHIP
        by_chip = slow * (fast / slow) ** unknown.on_chip
    return _Rates(matrix=matrix, memory=memory, slowdown=(by_matrix, by_memory, by_chip))


def _source_times(
    operators: Sequence[Operators], rates: _Rates, unknown: Draws
) -> tuple[list[Array], list[Array], list[Array]]:
    """Time of each class on the source, the share of it that its roof explains, its bytes."""
    times, explained, moved = [], [], []
    for one in operators:
        fused = one.bytes + (one.least_bytes - one.bytes) * unknown.fused
        ideal = _ideal(one, fused, rates, 0)
        if one.time_s is None:
            times.append(ideal)
            explained.append(unknown.explained)
        else:
            # What ran is what was counted: no compiler is between the profile and the chip.
            fused = np.full_like(fused, one.bytes)
            ideal = _ideal(one, fused, rates, 0)
            times.append(np.full_like(ideal, one.time_s))
            explained.append(np.minimum(1.0, ideal / max(one.time_s, 1e-30)))
        moved.append(fused)
    return times, explained, moved


def _ideal(one: Operators, moved: Array, rates: _Rates, side: int) -> Array:
    """Time at the roofs of the source (side 0) or the target (1)."""
    by_memory = moved / rates.memory[side]
    if not one.is_matrix:
        return by_memory
    ideal: Array = np.maximum(one.flops / rates.matrix[side], by_memory)
    return ideal


def _scaled_parts(
    operators: Sequence[Operators],
    rates: _Rates,
    unknown: Draws,
    *,
    times: Sequence[Array],
    explained: Sequence[Array],
    fused: Sequence[Array],
) -> Array:
    """(3, draws): time on the target that each roof holds."""
    parts = np.zeros((3, len(unknown.explained)))
    for one, time_s, share, moved in zip(operators, times, explained, fused, strict=True):
        before, after = _ideal(one, moved, rates, 0), _ideal(one, moved, rates, 1)
        held = time_s * share * after / np.maximum(before, 1e-300)
        by_matrix = one.is_matrix & (one.flops / rates.matrix[1] >= moved / rates.memory[1])
        parts[MATRIX] += np.where(by_matrix, held, 0.0)
        parts[MEMORY] += np.where(by_matrix, 0.0, held)
        rest = time_s * (1.0 - share)
        weights = unknown.shares if one.is_matrix else _without_matrix(unknown.shares)
        for roof in range(3):
            parts[roof] += rest * weights[:, roof] * rates.slowdown[roof]
    return parts


def _without_matrix(shares: Array) -> Array:
    """Shares of work that never runs on matrix units."""
    others = shares.copy()
    others[:, MATRIX] = 0.0
    scaled: Array = others / others.sum(axis=1, keepdims=True)
    return scaled
