"""Tokens of k bases: bases as numbers, ids of k-mers, and what one changed base makes of one."""

import numpy as np
import numpy.typing as npt

from workloads._genomics.genomics_cost import NUM_SPECIAL

UNKNOWN, PADDING, MASK = 0, 1, 2
NOT_PREDICTED = -100
"""Target of a token that the loss leaves out."""
BASES = "ACGT"
OTHER = 4
"""Number of a letter that stands for several bases."""

Bases = npt.NDArray[np.uint8]
Ids = npt.NDArray[np.int64]


def ids_of(bases: Bases, *, kmer: int) -> Ids:
    """Return ids of the k-mers that lie one after the other; one with another letter is unknown."""
    split = bases.reshape(-1, kmer).astype(np.int64)
    number = split @ 4 ** np.arange(kmer - 1, -1, -1)
    return np.where((split == OTHER).any(axis=1), UNKNOWN, NUM_SPECIAL + number)


def neighbours(number: int, *, kmer: int) -> list[int]:
    """Return the k-mers that differ from this one in one base."""
    found = []
    for place in 4 ** np.arange(kmer):
        digit = number // int(place) % 4
        found += [number + (other - digit) * int(place) for other in range(4) if other != digit]
    return found
