"""Genomes and variants from files: FASTA and VCF, plain or gzipped, by the standard library.

Letters of FASTA that stand for several bases (N and the rest of IUPAC's) are kept as unknown. Of a
VCF changes of one base are used; other records are counted.
"""

import gzip
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from bench.core.errors import DataError
from workloads._genomics.kmers import BASES, OTHER, Bases

FASTA = "a FASTA file (.fa or .fa.gz): '>name', then lines of bases"
_NO_BASE = 255
_NUMBERS = np.full(256, _NO_BASE, dtype=np.uint8)
for _letters, _number in [*zip(BASES, range(4), strict=True), ("U", 3), ("NRYSWKMBDHVX-.", OTHER)]:
    for _letter in _letters + _letters.lower():
        _NUMBERS[ord(_letter)] = _number


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One changed base."""

    contig: str
    position: int
    """From 0."""
    alternative: int


@dataclass(frozen=True, kw_only=True)
class VariantFile:
    """The changed bases of a VCF, and why other records are none."""

    path: Path
    variants: tuple[Variant, ...]
    left_out: Counter[str]


def _lines(path: Path) -> Iterator[bytes]:
    """Yield lines without their ends; DataError where the file cannot be read."""
    if path.is_dir():
        raise DataError(f"{path} is a folder; give --data {FASTA}")
    try:
        with path.open("rb") as raw:
            is_gzip = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path) if is_gzip else path.open("rb") as file:
            for line in file:
                yield from line.rstrip().split(b"\r")  # an old Mac's end of a line
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read: {reason}") from error


def read_fasta(path: Path) -> dict[str, Bases]:
    """Return the bases of every contig as numbers."""
    status = path.stat()
    return _read_fasta(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1)  # the check, the plan and the run of one process read it once
def _read_fasta(path: Path, _changed_ns: int, _size_bytes: int) -> dict[str, Bases]:
    lines: dict[str, list[bytes]] = {}
    name = ""
    for line in _lines(path):
        if line.startswith(b">"):
            name = (line[1:].split() or [b""])[0].decode(errors="replace")
            if not name or name in lines:
                problem = f"the contig {name} twice" if name else "a contig without a name"
                raise DataError(f"{path} has {problem}; each needs a name of its own")
            lines[name] = []
        elif line:
            if not name:
                raise DataError(f"{path} does not begin with '>'; it must be {FASTA}")
            lines[name].append(line)
    if not lines:
        raise DataError(f"{path} is empty; it must be {FASTA}")
    return {name: _numbers(b"".join(lines.pop(name)), path, name) for name in list(lines)}


def _numbers(letters: bytes, path: Path, name: str) -> Bases:
    numbers = _NUMBERS[np.frombuffer(letters, dtype=np.uint8)]
    wrong = np.flatnonzero(numbers == _NO_BASE)
    if len(wrong):
        letter = chr(letters[wrong[0]])
        raise DataError(
            f"{path}: contig {name} has {letter!r} as base {wrong[0] + 1}, which is no base; "
            "allowed are A C G T and IUPAC's letters for several"
        )
    return numbers


def vcf_beside(fasta: Path) -> Path | None:
    """Return the VCF of the same name, if there is one: genome.fa.gz, genome.vcf.gz."""
    stem = fasta.with_suffix("") if fasta.suffix == ".gz" else fasta
    plain = stem.with_suffix(".vcf")
    both = (plain, plain.with_name(plain.name + ".gz"))
    return next((path for path in both if path.is_file()), None)


def read_vcf(path: Path, *, contigs: dict[str, Bases]) -> VariantFile:
    """Return the changes of one base; DataError for a line that is none, or of another genome."""
    variants: list[Variant] = []
    left_out: Counter[str] = Counter()
    for number, line in enumerate(_lines(path), start=1):
        if not line or line.startswith(b"#"):
            continue
        where = f"{path} line {number}"
        fields = line.decode(errors="replace").upper().split("\t")
        is_position = len(fields) > 1 and fields[1].isdecimal() and len(fields[1]) < 16
        if len(fields) < 5 or not is_position or int(fields[1]) < 1:
            raise DataError(f"{where} is no record: it needs CHROM POS ID REF ALT between tabs")
        contig, reference = line.decode(errors="replace").split("\t")[0], fields[3]
        position = int(fields[1]) - 1
        if contig not in contigs:
            left_out["on a contig that the FASTA lacks"] += 1
            continue
        _check_reference(reference, contigs[contig], position, f"{where}: {contig}")
        for letter in fields[4].split(","):
            if _is_base(reference) and _is_base(letter) and letter != reference:
                base = BASES.index(letter)
                variants.append(Variant(contig=contig, position=position, alternative=base))
            else:
                left_out["not of one base"] += 1
    return VariantFile(path=path, variants=tuple(variants), left_out=left_out)


def _is_base(text: str) -> bool:
    return len(text) == 1 and text in BASES


def _check_reference(reference: str, bases: Bases, position: int, where: str) -> None:
    """Raise `DataError` unless the genome has the reference's first base there."""
    if position >= len(bases):
        raise DataError(f"{where} has {len(bases)} bases, not {position + 1}")
    there = BASES[bases[position]] if bases[position] != OTHER else "N"
    if _is_base(reference[:1]) and there not in (reference[0], "N"):
        raise DataError(
            f"{where} has {there} at {position + 1} but REF is {reference}: the VCF is of another "
            "genome or assembly"
        )
