"""The roofs of a chip, measured or from the catalogue, as rates that programs reach.

Three roofs decide: matrix units in a dtype, memory bandwidth, and what happens on the chip itself
(caches, instruction issue, vector arithmetic). A catalogue rate is a peak times the fraction of it
that is reached: measured by somebody on this chip, or carried over from the chip that was measured
here, or, where neither is known, between the least and the most that the catalogue states for its
vendor's chips. Nothing here is fitted to the speed of any program.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.core.nouns import Chip
from bench.hardware.chips import load_chips

SUBSTITUTES: dict[str, tuple[str, ...]] = {
    "fp32": ("fp32", "tf32", "bf16", "fp16"),
    "tf32": ("tf32", "fp32", "bf16", "fp16"),
    "bf16": ("bf16", "fp16", "tf32", "fp32"),
    "fp16": ("fp16", "bf16", "tf32", "fp32"),
}
"""What stands in where a chip's peak in a dtype is not known, nearest first."""
MEMORY_FRACTION = 0.85
"""Copies reach 1328 of 1555 GB/s on an A100, the one measured derate of the catalogue
(https://github.com/FlagOpen/FlagPerf/tree/main/base/benchmarks)."""
MEMORY_SPREAD = 1.1
"""Where a chip has no such measurement of its own; judgement."""
CARRIED_SPREAD = 1.05
"""Where a copy was measured on a chip of the same vendor; judgement."""
SAME_ARCHITECTURE, SAME_VENDOR, OTHER_VENDOR, OTHER_KIND = 1.05, 1.15, 1.3, 1.5
"""How far a program's speed may stray from what the roofs say, by how differently two chips are
built; judgement, from the spread of achieved matrix rates between vendors (0.51 to 0.97,
https://github.com/stas00/ml-engineering/blob/master/compute/accelerator/README.md)."""
OTHER_DTYPE, NARROWER_DTYPE = 1.1, 1.5
"""Further factors when another dtype of the same width, or a narrower one, has to stand in;
judgement."""
_WIDTH_BITS = {"fp32": 32, "tf32": 32, "bf16": 16, "fp16": 16}


@dataclass(frozen=True, kw_only=True)
class RateBand:
    """A positive figure known between two ends."""

    low: float
    high: float

    @property
    def mid(self) -> float:
        """Geometric middle."""
        return float((self.low * self.high) ** 0.5)

    def times(self, factor: float) -> RateBand:
        """Scale both ends."""
        return RateBand(low=self.low * factor, high=self.high * factor)


@dataclass(frozen=True, kw_only=True)
class Rate:
    """One roof: what it gives, and what that figure rests on."""

    per_s: RateBand
    basis: str


@dataclass(frozen=True, kw_only=True)
class Roofs:
    """One chip's roofs in one dtype."""

    name: str
    kind: str
    """gpu, npu, cpu, neuromorphic."""
    vendor: str | None
    dtype: str
    chip: Chip | None
    """Its catalogue row, where it has one."""
    matrix: Rate
    memory: Rate


@dataclass(frozen=True, kw_only=True)
class Unknown:
    """Why there is no figure, in one line."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class OnChip:
    """How much faster the work that stays on the chip goes; None: nothing tells."""

    speedup: RateBand | None
    basis: str


def catalogue_roofs(chip: Chip, *, dtype: str, measured: Roofs | None = None) -> Roofs | Unknown:
    """Roofs of a catalogue row; `measured` has those of the chip that was measured, if any was."""
    if measured is not None and measured.chip is not None and measured.chip.id == chip.id:
        return measured
    used = next((name for name in SUBSTITUTES[dtype] if chip.peak_per_s.get(name)), None)
    if used is None:
        return Unknown(reason=f"its peak in {dtype}, or in a dtype like it, is not known")
    if not chip.memory_bytes_per_s:
        return Unknown(reason="its memory bandwidth is not known")
    matrix, matrix_basis = _matrix_fraction(chip, dtype=used, measured=measured)
    memory, memory_basis = _memory_fraction(chip, measured=measured)
    return Roofs(
        name=chip.id,
        kind=chip.kind,
        vendor=chip.vendor,
        dtype=used,
        chip=chip,
        matrix=Rate(
            per_s=matrix.times(chip.peak_per_s[used]), basis=f"{used} peak x {matrix_basis}"
        ),
        memory=Rate(
            per_s=memory.times(chip.memory_bytes_per_s), basis=f"bandwidth x {memory_basis}"
        ),
    )


def _matrix_fraction(chip: Chip, *, dtype: str, measured: Roofs | None) -> tuple[RateBand, str]:
    known = chip.derates.get("gemm")
    if known is not None:
        band, basis = RateBand(low=known, high=known), f"{known:g} ({_source_of(chip, 'gemm')})"
    else:
        rows = [one for one in load_chips() if "gemm" in one.derates]
        alike = [one for one in rows if one.vendor == chip.vendor]
        fractions = [one.derates["gemm"] for one in alike or rows]
        band = RateBand(low=min(fractions), high=max(fractions))
        whose = f"other chips of {chip.vendor}" if alike else "chips of other vendors"
        basis = f"{band.low:g} to {band.high:g} (its own is not known; from {whose})"
    carried = _carried_fraction(chip, dtype=dtype, measured=measured)
    if carried is None:
        return band, basis
    ends = (band.low, band.high, carried)
    return RateBand(low=min(ends), high=max(ends)), f"{basis}, or {carried:.2g} as measured here"


def _carried_fraction(chip: Chip, *, dtype: str, measured: Roofs | None) -> float | None:
    """Fraction of its peak that the measured chip reached, where it is a relative."""
    if measured is None or measured.chip is None or measured.chip.vendor != chip.vendor:
        return None
    peak = measured.chip.peak_per_s.get(measured.dtype)
    if not peak or measured.dtype != dtype:
        return None
    return min(measured.matrix.per_s.mid / peak, 1.0)


def _memory_fraction(chip: Chip, *, measured: Roofs | None) -> tuple[RateBand, str]:
    carried = None
    if measured is not None and measured.chip is not None and measured.chip.vendor == chip.vendor:
        specified = measured.chip.memory_bytes_per_s
        carried = min(measured.memory.per_s.mid / specified, 1.0) if specified else None
    known = chip.derates.get("memory")
    if carried is not None:
        ends = (known or carried / CARRIED_SPREAD, known or carried * CARRIED_SPREAD, carried)
        band = RateBand(low=min(ends), high=min(max(ends), 1.0))
        return band, f"{band.low:.2f} to {band.high:.2f} ({carried:.2g} measured on a relative)"
    if known is not None:
        return RateBand(low=known, high=known), f"{known:g} ({_source_of(chip, 'memory')})"
    low, high = MEMORY_FRACTION / MEMORY_SPREAD, MEMORY_FRACTION * MEMORY_SPREAD
    return RateBand(low=low, high=high), f"{low:.2f} to {high:.2f} (its own is not known)"


def _source_of(chip: Chip, kind: str) -> str:
    """Title of whoever measured a derate, without its address."""
    title = str(chip.facts.get(f"derate_{kind}_source", "catalogue"))
    return title.partition(", http")[0].partition(":")[0]


def on_chip(source: Roofs, target: Roofs) -> OnChip:
    """Compare what stays on the chip: compute units x clock of relatives, else vector fp32."""
    if source.chip is not None and target.chip is not None:
        if source.chip.id == target.chip.id:
            return OnChip(speedup=RateBand(low=1.0, high=1.0), basis="the same chip")
        issue = _issue(source.chip), _issue(target.chip)
        if issue[0] and issue[1] and _unit_kind(source.chip) == _unit_kind(target.chip):
            ratio = issue[1] / issue[0]
            return OnChip(speedup=RateBand(low=ratio, high=ratio), basis="compute units x clock")
    vector = _vector(source), _vector(target)
    if vector[0] and vector[1]:
        ratio = vector[1] / vector[0]
        return OnChip(speedup=RateBand(low=ratio, high=ratio), basis="vector fp32 peak")
    return OnChip(speedup=None, basis="neither units x clock nor a vector rate can be compared")


def _number(chip: Chip, name: str) -> float | None:
    value = chip.facts.get(name)
    return float(value) if isinstance(value, int | float) and value else None


def _issue(chip: Chip) -> float | None:
    units, clock_hz = _number(chip, "compute_units"), _number(chip, "clock_hz")
    return None if units is None or clock_hz is None else units * clock_hz


def _unit_kind(chip: Chip) -> tuple[str, object]:
    return chip.vendor, chip.facts.get("compute_unit_kind")


def _vector(roofs: Roofs) -> float | None:
    if roofs.chip is not None:
        return _number(roofs.chip, "vector_fp32_flops_per_s")
    # A processor's fp32 products run on its vector units: its matrix roof is its vector roof.
    return roofs.matrix.per_s.mid if roofs.kind == "cpu" and roofs.dtype == "fp32" else None


def kinship(source: Roofs, target: Roofs, *, dtype: str) -> tuple[float, str]:
    """Return the factor by which the roofs may mislead between the two, and why that much."""
    factor, words = _built_alike(source, target)
    if target.dtype != dtype:
        is_narrower = _WIDTH_BITS[target.dtype] < _WIDTH_BITS[dtype]
        factor *= NARROWER_DTYPE if is_narrower else OTHER_DTYPE
        words += f"; {target.dtype} stands in for {dtype}, whose peak there is not known"
    return factor, words


def _built_alike(source: Roofs, target: Roofs) -> tuple[float, str]:
    one, other = source.chip, target.chip
    if one is not None and other is not None and one.id == other.id:
        return 1.0, "the same chip"
    if source.kind != target.kind and "cpu" in (source.kind, target.kind):
        return OTHER_KIND, f"from a {source.kind} to a {target.kind}"
    if source.vendor is None or source.vendor != target.vendor:
        return OTHER_VENDOR, "another vendor's architecture and software"
    if one is not None and other is not None and _is_same_architecture(one, other):
        return SAME_ARCHITECTURE, "the same architecture"
    return SAME_VENDOR, "an architecture jump within one vendor"


def _is_same_architecture(one: Chip, other: Chip) -> bool:
    """Whether a compute unit does as much in a clock, in every dtype that both have."""
    issue = _issue(one), _issue(other)
    if not issue[0] or not issue[1] or _unit_kind(one) != _unit_kind(other):
        return False
    if set(one.peak_per_s) != set(other.peak_per_s):
        return False
    return all(
        abs(one.peak_per_s[dtype] / issue[0] / (other.peak_per_s[dtype] / issue[1]) - 1.0) < 0.1
        for dtype in ("bf16", "fp16")
        if dtype in one.peak_per_s
    )
