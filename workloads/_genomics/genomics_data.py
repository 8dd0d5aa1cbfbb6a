"""Samples of the genomics workload: masked windows, and pairs of windows around a variant.

Every draw is made from (seed, index), so a sample is the same wherever it is made. Of the chosen
tokens eight in ten are masked, one is replaced and one is left
(https://arxiv.org/abs/1810.04805 section 3.1). Letters: N tokens.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.core.errors import DataError
from bench.workload import UsedData
from workloads._genomics.generated_genome import variant, window
from workloads._genomics.genome_files import Variant, read_fasta, read_vcf, vcf_beside
from workloads._genomics.genomics_cost import NUM_SPECIAL, EsmShape
from workloads._genomics.kmers import MASK, NOT_PREDICTED, OTHER, Bases, Ids, ids_of

NUM_GENERATED = 1 << 16
FEWEST_WINDOWS = 256
"""A short genome is read in overlapping windows until there are this many."""


class GenomeSamples(Sequence[Any], ABC):
    """Samples made on demand from (seed, index)."""

    def __init__(self, shape: EsmShape, *, seed: int) -> None:
        self.shape, self.seed = shape, seed

    def __len__(self) -> int:
        return NUM_GENERATED

    def __getitem__(self, index: Any) -> Any:
        import torch

        made = self._make(range(len(self))[index])
        return {name: torch.as_tensor(value) for name, value in made.items()}

    def _rng(self, index: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, index))

    @abstractmethod
    def _make(self, index: int) -> dict[str, Any]:
        """Return the arrays of one sample."""


class GeneratedWindows(GenomeSamples):
    """Masked windows of the generated genome."""

    def _make(self, index: int) -> dict[str, Any]:
        rng, num_kmers = self._rng(index), 4**self.shape.kmer
        ids = self._window(rng, index)
        chosen = rng.permutation(len(ids))[: self.shape.num_masked]
        targets = np.full_like(ids, NOT_PREDICTED)
        targets[chosen] = ids[chosen]
        seen, draw = ids.copy(), rng.random(len(chosen))
        seen[chosen[draw < 0.8]] = MASK
        replaced = chosen[draw >= 0.9]
        seen[replaced] = NUM_SPECIAL + rng.integers(num_kmers, size=len(replaced))
        return {"ids": seen, "targets": targets}

    def _window(self, rng: np.random.Generator, index: int) -> Ids:
        states = window(rng, kmer=self.shape.kmer, tokens=self.shape.window_tokens)
        return NUM_SPECIAL + np.array(states)


class FastaWindows(GeneratedWindows):
    """Masked windows of a FASTA file without unknown bases, in an order shuffled by the seed."""

    def __init__(self, shape: EsmShape, path: Path, *, seed: int) -> None:
        super().__init__(shape, seed=seed)
        self.contigs = read_fasta(path)
        starts = _window_starts(self.contigs, length=shape.window_bases)
        self._starts = np.random.default_rng(seed).permutation(starts)
        self._names = list(self.contigs)

    def __len__(self) -> int:
        return len(self._starts)

    def _window(self, rng: np.random.Generator, index: int) -> Ids:
        contig, start = self._starts[index].tolist()
        bases = self.contigs[self._names[contig]]
        return ids_of(bases[start : start + self.shape.window_bases], kmer=self.shape.kmer)


class GeneratedVariants(GenomeSamples):
    """Variants of the generated genome; every other one breaks its likelihood."""

    def _make(self, index: int) -> dict[str, Any]:
        is_breaking = bool(index % 2)
        sizes = {"kmer": self.shape.kmer, "tokens": self.shape.window_tokens}
        states, position, other = variant(self._rng(index), is_breaking=is_breaking, **sizes)
        reference = NUM_SPECIAL + np.array(states)
        alternative = reference.copy()
        alternative[position] = NUM_SPECIAL + other
        made = {"reference": reference, "alternative": alternative, "position": position}
        return made | {"is_breaking": is_breaking}


class FileVariants(GenomeSamples):
    """Variants of a VCF, each in the middle of a window of its FASTA file."""

    def __init__(self, shape: EsmShape, path: Path, *, seed: int) -> None:
        super().__init__(shape, seed=seed)
        self.contigs = read_fasta(path)
        variants, _ = _usable_variants(shape, path)
        order = np.random.default_rng(seed).permutation(len(variants))
        self.variants = [variants[place] for place in order]

    def __len__(self) -> int:
        return len(self.variants)

    def _make(self, index: int) -> dict[str, Any]:
        one = self.variants[index]
        bases = self.contigs[one.contig]
        start = _start_around(one, shape=self.shape, num_bases=len(bases))
        reference = bases[start : start + self.shape.window_bases]
        alternative = reference.copy()
        alternative[one.position - start] = one.alternative
        return {
            "reference": ids_of(reference, kmer=self.shape.kmer),
            "alternative": ids_of(alternative, kmer=self.shape.kmer),
            "position": (one.position - start) // self.shape.kmer,
        }


def _window_starts(contigs: dict[str, Bases], *, length: int) -> Ids:
    """Return (contig, first base) of the windows that have no unknown base."""
    spare = sum(max(len(bases) - length, 0) for bases in contigs.values())
    stride = min(max(spare // (FEWEST_WINDOWS - 1), 1), length)
    found = [np.empty((0, 2), dtype=np.int64)]
    for number, bases in enumerate(contigs.values()):
        unknown = np.append(0, np.cumsum(bases == OTHER))
        starts = np.arange(0, len(bases) - length + 1, stride)
        starts = starts[unknown[starts + length] == unknown[starts]]
        found.append(np.stack([np.full_like(starts, number), starts], axis=1))
    return np.concatenate(found)


def _start_around(one: Variant, *, shape: EsmShape, num_bases: int) -> int:
    """Return the first base of a variant's window, which stays within its contig."""
    middle = shape.window_tokens // 2 * shape.kmer + shape.kmer // 2
    return min(max(one.position - middle, 0), num_bases - shape.window_bases)


def _usable_variants(shape: EsmShape, path: Path) -> tuple[list[Variant], Counter[str]]:
    """Return the variants that a window can hold, and why the others are left out, counted."""
    contigs, beside = read_fasta(path), vcf_beside(path)
    if beside is None:
        name = path.name.removesuffix(".gz")
        raise DataError(
            f"{path} has no VCF beside it, which score needs: {Path(name).stem}.vcf; "
            "or leave score out: --workload genomics:train"
        )
    found = read_vcf(beside, contigs=contigs)
    usable, left_out = [], Counter(found.left_out)
    for one in found.variants:
        bases = contigs[one.contig]
        start = _start_around(one, shape=shape, num_bases=len(bases))
        token = start + (one.position - start) // shape.kmer * shape.kmer
        if start < 0:
            left_out[f"on a contig shorter than {shape.window_bases} bases"] += 1
        elif (bases[token : token + shape.kmer] == OTHER).any():
            left_out["beside an unknown base"] += 1
        else:
            usable.append(one)
    return usable, left_out


def samples(shape: EsmShape, *, is_training: bool, data: Path | None, seed: int) -> GenomeSamples:
    """Return masked windows, or variants, generated or from files."""
    if data is None:
        return (GeneratedWindows if is_training else GeneratedVariants)(shape, seed=seed)
    return (FastaWindows if is_training else FileVariants)(shape, data, seed=seed)


def check(shape: EsmShape, data: Path) -> None:
    """Raise `DataError` unless the FASTA holds a window; read a VCF beside it."""
    contigs = read_fasta(data)
    if not len(_window_starts(contigs, length=shape.window_bases)):
        ways = "give longer contigs, or --set window_tokens to less"
        raise DataError(f"{data} has no window of {shape.window_bases} known bases; {ways}")
    if (beside := vcf_beside(data)) is not None:
        read_vcf(beside, contigs=contigs)


def records_used(shape: EsmShape, data: Path, *, is_training: bool) -> UsedData:
    """Return how many windows there are, or variants to score, and why others are left out."""
    if is_training:
        number = len(_window_starts(read_fasta(data), length=shape.window_bases))
        words = f"{number} windows of {shape.window_bases} known bases"
        return UsedData(words=words, num_samples=number)
    usable, left_out = _usable_variants(shape, data)
    others = "".join(f"; left out: {number} {reason}" for reason, number in left_out.items())
    return UsedData(words=f"{len(usable)} changes of one base{others}", num_samples=len(usable))
