"""A genome that can be learned: a seeded order-1 Markov chain over k-mers, and variants in it.

Its transition matrix is one constant, the softmax of 4 N(0, 1), so sharp that a k-mer leaves few to
follow; a seed only chooses the windows. A variant changes one base: half of them keep the chain's
likelihood, the other half break it, and which is known.
"""

from __future__ import annotations  # Python 3.11's array takes no subscript

import math
from array import array
from bisect import bisect_right
from functools import cache

import numpy as np
import numpy.typing as npt

from workloads._genomics.kmers import neighbours

MATRIX_SEED = 21
SHARPNESS = 4.0
KEPT_NATS, BROKEN_NATS = -1.0, -6.0
"""A variant keeps the likelihood if it costs less than the first, breaks it beyond the second."""

Floats = npt.NDArray[np.float64]


@cache
def transitions(state: int, *, kmer: int) -> tuple[Floats, array[float]]:
    """Return log-probabilities of the next k-mer, and their probabilities' running sums."""
    # Normal numbers from uniform ones, whose stream numpy keeps stable.
    first, second = np.random.default_rng((MATRIX_SEED, kmer, state)).random((2, 4**kmer))
    normal = np.sqrt(-2 * np.log1p(-first)) * np.cos(2 * math.pi * second)
    weight = np.exp(SHARPNESS * normal)
    probability = weight / weight.sum()
    return np.log(probability), array("d", np.cumsum(probability))


def window(rng: np.random.Generator, *, kmer: int, tokens: int) -> list[int]:
    """Return so many k-mers of the chain."""
    last = 4**kmer - 1
    states = [int(rng.integers(last + 1))]
    for draw in rng.random(tokens - 1).tolist():
        _, sums = transitions(states[-1], kmer=kmer)
        states.append(min(bisect_right(sums, draw), last))  # the last sum may round below the draw
    return states


def variant(
    rng: np.random.Generator, *, kmer: int, tokens: int, is_breaking: bool
) -> tuple[list[int], int, int]:
    """Return a window, the token that is changed, and what it becomes."""
    while True:
        states = window(rng, kmer=kmer, tokens=tokens)
        for position in (1 + rng.permutation(tokens - 2)).tolist():
            costs = {one: _change_nats(states, position, one, kmer=kmer)
                     for one in neighbours(states[position], kmer=kmer)}  # fmt: skip
            wanted = [
                one
                for one, change in costs.items()
                if (change < BROKEN_NATS if is_breaking else abs(change) < -KEPT_NATS)
            ]
            if wanted:
                return states, position, int(rng.choice(wanted))


def _change_nats(states: list[int], position: int, other: int, *, kmer: int) -> float:
    """Return what the chain's log-likelihood gains by another k-mer at a position."""
    before, here, after = states[position - 1 : position + 2]

    def likelihood(middle: int) -> float:
        return float(
            transitions(before, kmer=kmer)[0][middle] + transitions(middle, kmer=kmer)[0][after]
        )

    return likelihood(other) - likelihood(here)
