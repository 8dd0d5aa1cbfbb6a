"""Text for the LLM workload: a seeded Markov source, or a file read through a byte tokenizer.

The source is an order-1 Markov chain over printable bytes whose transition matrix is known, so that
the least loss that a model can reach is known too. The language is one constant; a seed only
chooses the windows, so that windows of another seed are held-out text in the same language.
Vocabularies beyond 256 leave the other ids unused. Torch-free until the first window is read.
"""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.core.errors import DataError

FIRST_BYTE = 32
NUM_STATES = 95  # printable ASCII, so that a window can be looked at
LANGUAGE_SEED = 20
NUM_GENERATED_WINDOWS = 1 << 16
FEWEST_WINDOWS = 256
"""A short file is read in overlapping windows until there are this many."""
SNIFFED_BYTES = 1 << 16

Floats = npt.NDArray[np.float64]


@cache
def transition_matrix() -> Floats:
    """Row-stochastic (state, next state): Zipf's law over bytes, times a Zipf taste of each state.

    Built from uniform numbers only, whose stream numpy keeps stable.
    """
    rng = np.random.default_rng(LANGUAGE_SEED)
    popularity = 1.0 / (1.0 + np.argsort(rng.random(NUM_STATES)))
    rank = np.argsort(np.argsort(rng.random((NUM_STATES, NUM_STATES)), axis=1), axis=1)
    weight = popularity / (1.0 + rank) ** 2
    return np.asarray(weight / weight.sum(axis=1, keepdims=True))


@cache
def stationary_distribution() -> Floats:
    """The p with p = p P and sum 1; unique, because every transition is possible."""
    matrix = transition_matrix()
    system = np.vstack([matrix.T - np.eye(NUM_STATES), np.ones(NUM_STATES)])
    target = np.append(np.zeros(NUM_STATES), 1.0)
    return np.asarray(np.linalg.lstsq(system, target, rcond=None)[0])


class Windows(Sequence[Any], ABC):
    """Windows of so many bytes as int64 tensors."""

    @abstractmethod
    def _read(self, index: int) -> bytes:
        """Return the bytes of one window."""

    def __getitem__(self, index: Any) -> Any:
        import torch

        window = bytearray(self._read(range(len(self))[index]))
        return torch.frombuffer(window, dtype=torch.uint8).long()


class MarkovWindows(Windows):
    """Windows of the generated language, each made on demand from (seed, index)."""

    def __init__(self, *, length: int, seed: int) -> None:
        self.length, self.seed = length, seed
        self._first = np.cumsum(stationary_distribution()).tolist()
        self._next = np.cumsum(transition_matrix(), axis=1).tolist()

    def __len__(self) -> int:
        return NUM_GENERATED_WINDOWS

    def _read(self, index: int) -> bytes:
        cumulative = self._first
        window = bytearray()
        for draw in np.random.default_rng((self.seed, index)).random(self.length).tolist():
            # The last cumulative sum may round to a little below the draw.
            state = min(bisect_right(cumulative, draw), NUM_STATES - 1)
            window.append(FIRST_BYTE + state)
            cumulative = self._next[state]
        return bytes(window)


class FileWindows(Windows):
    """Windows of a file, read from disk on demand, in an order shuffled by the seed."""

    def __init__(self, path: Path, *, length: int, seed: int) -> None:
        self.path, self.length = path, length
        spare = path.stat().st_size - length
        stride = min(max(spare // (FEWEST_WINDOWS - 1), 1), length)
        self._starts = np.random.default_rng(seed).permutation(np.arange(0, spare + 1, stride))

    def __len__(self) -> int:
        return len(self._starts)

    def _read(self, index: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self._starts[index])
            return file.read(self.length)


def check_file(path: Path, *, fewest_bytes: int) -> None:
    """Raise `DataError` unless the path is a readable text file of at least that many bytes."""
    if not path.is_file():
        problem = "is not a regular file" if path.exists() else "does not exist"
        problem = "is a folder" if path.is_dir() else problem
        raise DataError(f"{path} {problem}; the LLM workload reads one text file: --data FILE")
    try:
        with path.open("rb") as file:
            head = file.read(SNIFFED_BYTES)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    size = path.stat().st_size
    if size == 0:
        raise DataError(f"{path} is empty; give --data a text file of {fewest_bytes} bytes or more")
    if b"\0" in head:
        raise DataError(f"{path} holds NUL bytes, so it is not text; save it as UTF-8 text")
    if size < fewest_bytes:
        raise DataError(
            f"{path} has {size} bytes; this size needs {fewest_bytes} or more: "
            "give a longer text or shorten --set sequence_tokens and prompt_tokens"
        )
