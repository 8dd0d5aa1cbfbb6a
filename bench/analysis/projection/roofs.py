"""The roofs of a chip, measured or from the catalogue, as rates that programs reach.

Three roofs decide: matrix units in a dtype, memory bandwidth, and what happens on the chip itself
(caches, instruction issue, vector arithmetic). A catalogue rate is a peak times the fraction of it
that is reached: measured by somebody on this chip, or carried over from the chip that was measured
here, or, where neither is known, between the least and the most that the catalogue states for its
vendor's chips. Nothing here is fitted to the speed of any program.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from bench.core.nouns import DTYPE_BYTES, Chip
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
"""Further factors when another dtype of the same width, or a narrower one, has to stand in, or the
run was in another one than is asked for; judgement."""
_WIDTH_BITS = {"fp32": 32, "tf32": 32, "bf16": 16, "fp16": 16}


@dataclass(frozen=True, kw_only=True)
class RateSpan:
    """A positive figure known between two ends, and what it rests on."""

    low: float
    high: float
    basis: str = ""

    @property
    def mid(self) -> float:
        """Geometric middle."""
        return float((self.low * self.high) ** 0.5)

    def times(self, factor: float, *, what: str) -> RateSpan:
        """Scale both ends; `what` names the factor."""
        return band(self.low * factor, self.high * factor, basis=f"{what} x {self.basis}")


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure with its interval, and its middle; all equal where it is exact."""

    low: float
    mid: float
    high: float

    @property
    def width(self) -> float:
        """High over low."""
        return self.high / self.low

    def inverse(self, numerator: float = 1.0) -> Estimate:
        """Divide a positive number by it: a rate from a time."""
        low, mid, high = (numerator / end for end in (self.high, self.mid, self.low))
        return Estimate(low=low, mid=mid, high=high)


def band(*ends: float, basis: str = "") -> RateSpan:
    """From the least to the most of some figures."""
    return RateSpan(low=min(ends), high=max(ends), basis=basis)


@dataclass(frozen=True, kw_only=True)
class Roofs:
    """One chip's roofs in one dtype, per second."""

    kind: str
    """gpu, npu, cpu, neuromorphic."""
    vendor: str | None
    dtype: str
    chip: Chip | None
    """Its catalogue row, where it has one."""
    matrix: RateSpan
    memory: RateSpan


@dataclass(frozen=True, kw_only=True)
class Unknown:
    """Why there is no figure, or why a chip would not do, in one line."""

    reason: str
    workload: str = ""
    chip: str = ""


def catalogue_roofs(chip: Chip, *, dtype: str, measured: Roofs | None = None) -> Roofs | Unknown:
    """Roofs of a catalogue row; `measured` has those of the chip that was measured, if any was."""
    is_same = measured and measured.chip and measured.chip.id == chip.id
    if measured and is_same and measured.dtype == dtype:
        return measured
    used = next((name for name in SUBSTITUTES[dtype] if chip.peak_per_s.get(name)), None)
    missing = f"peak in {dtype}, or in a dtype like it," if used is None else "memory bandwidth"
    if used is None or not chip.memory_bytes_per_s:
        return Unknown(reason=f"its {missing} is not known", chip=chip.id)
    is_relative = measured and measured.chip and measured.chip.vendor == chip.vendor
    relative = measured if is_relative else None
    matrix = _matrix_fraction(chip, dtype=used, relative=relative)
    memory = _memory_fraction(chip, relative=relative)
    # Bytes were counted in the dtype that ran: those of weights, norms and losses may stay.
    more = DTYPE_BYTES[measured.dtype] / DTYPE_BYTES[dtype] if measured else 1.0
    memory = replace(memory, low=memory.low * min(more, 1.0), high=memory.high * max(more, 1.0))
    return Roofs(
        kind=chip.kind,
        vendor=chip.vendor,
        dtype=used,
        chip=chip,
        matrix=matrix.times(chip.peak_per_s[used], what=f"{used} peak"),
        memory=memory.times(chip.memory_bytes_per_s, what="bandwidth"),
    )


def _matrix_fraction(chip: Chip, *, dtype: str, relative: Roofs | None) -> RateSpan:
    known = chip.derates.get("gemm")
    if known is not None:
        ends, basis = [known], f"{known:g} ({_source_of(chip, 'gemm')})"
    else:
        rows = [one for one in load_chips() if "gemm" in one.derates]
        alike = [one for one in rows if one.vendor == chip.vendor]
        ends = [one.derates["gemm"] for one in alike or rows]
        whose = f"other chips of {chip.vendor}" if alike else "chips of other vendors"
        basis = f"{min(ends):g} to {max(ends):g} (its own is not known; from {whose})"
    peak = relative.chip.peak_per_s.get(dtype) if relative and relative.chip else None
    if not relative or not peak or relative.dtype != dtype:
        return band(*ends, basis=basis)
    carried = min(relative.matrix.mid / peak, 1.0)
    return band(*ends, carried, basis=f"{basis}, or {carried:.2g} as measured here")


def _memory_fraction(chip: Chip, *, relative: Roofs | None) -> RateSpan:
    known = chip.derates.get("memory")
    specified = relative.chip.memory_bytes_per_s if relative and relative.chip else None
    if relative and specified:
        carried = min(relative.memory.mid / specified, 1.0)
        ends = (known or carried / CARRIED_SPREAD, known or carried * CARRIED_SPREAD, carried)
        low, high = min(ends), min(max(ends), 1.0)
        basis = f"{low:.2f} to {high:.2f} ({carried:.2g} measured on a relative)"
        return band(low, high, basis=basis)
    if known is not None:
        return band(known, basis=f"{known:g} ({_source_of(chip, 'memory')})")
    low, high = MEMORY_FRACTION / MEMORY_SPREAD, MEMORY_FRACTION * MEMORY_SPREAD
    return band(low, high, basis=f"{low:.2f} to {high:.2f} (its own is not known)")


def _source_of(chip: Chip, kind: str) -> str:
    title = str(chip.facts.get(f"derate_{kind}_source", "catalogue"))
    return title.partition(", http")[0].partition(":")[0]


def is_same_chip(one: Roofs, other: Roofs) -> bool:
    """Whether both are known to be the same row of the catalogue."""
    return one.chip is not None and other.chip is not None and one.chip.id == other.chip.id


def on_chip(source: Roofs, target: Roofs) -> RateSpan | None:
    """How much faster the work that stays on the chip goes; None: nothing shows.

    By compute units x clock of relatives, else by vector fp32.
    """
    if is_same_chip(source, target):
        return band(1.0, basis="the same chip")
    if issue := _issue_rates(source, target):
        return band(issue[1] / issue[0], basis="compute units x clock")
    before, after = _vector(source), _vector(target)
    return band(after / before, basis="vector fp32 peak") if before and after else None


def _number(chip: Chip, name: str) -> float:
    value = chip.facts.get(name)
    return float(value) if isinstance(value, int | float) else 0.0


def _issue_rates(source: Roofs, target: Roofs) -> tuple[float, float] | None:
    """Compute units x clock of two relatives; None where it is not known or not comparable."""
    if source.chip is None or target.chip is None:
        return None
    chips = (source.chip, target.chip)
    if len({(chip.vendor, chip.facts.get("compute_unit_kind")) for chip in chips}) > 1:
        return None
    one, other = (_number(chip, "compute_units") * _number(chip, "clock_hz") for chip in chips)
    return (one, other) if one and other else None


def _vector(roofs: Roofs) -> float:
    if roofs.chip is not None:
        return _number(roofs.chip, "vector_fp32_flops_per_s")
    # A processor's fp32 products run on its vector units: its matrix roof is its vector roof.
    return roofs.matrix.mid if roofs.kind == "cpu" and roofs.dtype == "fp32" else 0.0


def relatedness(source: Roofs, target: Roofs, *, dtype: str) -> tuple[float, str]:
    """Return the factor by which the roofs may mislead between the two, and why that much."""
    is_kin = source.vendor is not None and source.vendor == target.vendor
    if is_same_chip(source, target):
        factor, words = 1.0, "the same chip"
    elif source.kind != target.kind and "cpu" in (source.kind, target.kind):
        factor, words = OTHER_KIND, f"from a {source.kind} to a {target.kind}"
    elif not is_kin:
        factor, words = OTHER_VENDOR, "another vendor's architecture and software"
    elif _is_same_architecture(source, target):
        factor, words = SAME_ARCHITECTURE, "the same architecture"
    else:
        factor, words = SAME_VENDOR, "an architecture jump within one vendor"
    if target.dtype != dtype:
        is_narrower = _WIDTH_BITS[target.dtype] < _WIDTH_BITS[dtype]
        factor *= NARROWER_DTYPE if is_narrower else OTHER_DTYPE
        words += f"; {target.dtype} stands in for {dtype}, whose peak there is not known"
    return factor, words


def _is_same_architecture(source: Roofs, target: Roofs) -> bool:
    """Whether a compute unit does as much in a clock, in every dtype that both have."""
    issue = _issue_rates(source, target)
    if issue is None or source.chip is None or target.chip is None:
        return False
    one, other = source.chip.peak_per_s, target.chip.peak_per_s
    return set(one) == set(other) and all(
        abs(one[dtype] / issue[0] / (other[dtype] / issue[1]) - 1.0) < 0.1
        for dtype in ("bf16", "fp16")
        if dtype in one
    )
