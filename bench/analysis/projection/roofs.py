"""The roofs of a chip, measured or from the catalogue, as rates that programs reach.

Three roofs decide: matrix units in a dtype, memory bandwidth, and what happens on the chip itself
(`on_chip`). A catalogue rate is what somebody measured on this chip or on the same silicon; else a
peak times the fraction of it that the chip reached which was measured here, or that its vendor's
chips reach. Nothing here is fitted to the speed of any program.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from bench.core.nouns import Chip, Reach
from bench.hardware.chips import load_chips

SUBSTITUTES: dict[str, tuple[str, ...]] = {
    "fp32": ("fp32", "tf32", "bf16", "fp16"),
    "tf32": ("tf32", "fp32", "bf16", "fp16"),
    "bf16": ("bf16", "fp16", "tf32", "fp32"),
    "fp16": ("fp16", "bf16", "tf32", "fp32"),
    "fp8": ("fp8", "int8"),
    "int8": ("int8", "fp8"),
}
"""What stands in where a chip's peak in a dtype is not known, nearest first."""
MEMORY_FRACTION = 0.85
"""Copies reach 1328 of 1555 GB/s on an A100
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
WIDTH_BITS = {"fp32": 32, "tf32": 32, "bf16": 16, "fp16": 16, "fp8": 8, "int8": 8}
SERVER_SPREAD = 1.06
"""How far servers with the same chips lie apart: in MLPerf v0.7 to v5.1 several parties measured
the same two chips on the same net in 185 cases, with ratios 1.055 apart in the median
(https://github.com/mlcommons). Not where a chip is compared with itself."""


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
    wider_per_s: float | None = None
    """Matrix rate of the products that stay in a wider dtype; None: all are in this one."""

    @property
    def products(self) -> RateSpan:
        """What all products of a program together get, however many of them are in this dtype."""
        return self.matrix if self.wider_per_s is None else band(self.wider_per_s, self.matrix.high)


@dataclass(frozen=True, kw_only=True)
class Unknown:
    """Why there is no figure, or why a chip would not do, in one line."""

    reason: str
    workload: str = ""
    chip: str = ""


def catalogue_roofs(
    chip: Chip, *, dtype: str, measured: Roofs | None = None, counted_in: str | None = None
) -> Roofs | Unknown:
    """Roofs of a catalogue row; `measured` has those of the chip that was measured, if any was.

    `counted_in`: dtype in which the bytes to move were counted, where it is another one.
    """
    is_same = measured and measured.chip and measured.chip.id == chip.id
    if measured and is_same and measured.dtype == dtype:
        return measured
    used = next((name for name in SUBSTITUTES[dtype] if chip.peak_per_s.get(name)), None)
    missing = f"peak in {dtype}, or in a dtype like it," if used is None else "memory bandwidth"
    if used is None or not chip.memory_bytes_per_s:
        return Unknown(reason=f"its {missing} is not known", chip=chip.id)
    is_relative = measured and measured.chip and measured.chip.vendor == chip.vendor
    relative = measured if is_relative else None
    memory = _memory_rate(chip, rate=chip.memory_bytes_per_s, relative=relative)
    # Bytes were counted in the dtype that ran: those of weights, norms and losses may stay.
    counted_in = counted_in or (measured.dtype if measured else dtype)
    more = WIDTH_BITS[counted_in] / WIDTH_BITS[dtype]
    return Roofs(
        kind=chip.kind,
        vendor=chip.vendor,
        dtype=used,
        chip=chip,
        matrix=_matrix_rate(chip, dtype=used, peak=chip.peak_per_s[used], relative=relative),
        memory=replace(memory, low=memory.low * min(more, 1.0), high=memory.high * max(more, 1.0)),
    )


def roofs_of_pair(
    one: Chip, two: Chip, *, dtypes: tuple[str, str]
) -> tuple[Roofs, Roofs] | Unknown:
    """Both from the catalogue; of a dtype narrower than the other, none or all products are in it.

    A net of 8 bits keeps attention, norms and losses in 16: how much of its work those are is not
    known.
    """
    source = catalogue_roofs(one, dtype=dtypes[0])
    target = catalogue_roofs(two, dtype=dtypes[1], counted_in=dtypes[0])
    if isinstance(source, Unknown):
        return source
    if isinstance(target, Unknown):
        return target
    widths = [WIDTH_BITS[dtype] for dtype in dtypes]
    if widths[0] == widths[1]:
        return source, target
    narrow, chip = (source, one) if widths[0] < widths[1] else (target, two)
    wider = catalogue_roofs(chip, dtype=dtypes[widths[0] < widths[1]])
    if isinstance(wider, Unknown):
        return wider
    narrow = replace(narrow, wider_per_s=min(wider.matrix.low, narrow.matrix.low))
    return (narrow, target) if widths[0] < widths[1] else (source, narrow)


def _matrix_rate(chip: Chip, *, dtype: str, peak: float, relative: Roofs | None) -> RateSpan:
    """What it reaches; else what its relatives do, and what was measured on one of them here."""
    if (own := chip.reaches.get("gemm_fp8")) and dtype == "fp8":
        return _of_reach(own)
    if (own := chip.reaches.get("gemm")) and chip.peak16_per_s:
        return _of_reach(own, factor=peak / chip.peak16_per_s)
    rows = [one for one in load_chips() if one.peak16_per_s and "gemm" in one.reaches]
    alike = [one for one in rows if one.vendor == chip.vendor]
    reached = [(one.reaches["gemm"], one.peak16_per_s or 1.0) for one in alike or rows]
    # That a chip clocks above its sheet says nothing of another one.
    ends = [min(end / whole, 1.0) for one, whole in reached for end in (one.low, one.high)]
    whose = f"other chips of {chip.vendor}" if alike else "chips of other vendors"
    basis = f"{min(ends):.2f} to {max(ends):.2f} of its peak (its own is not known; from {whose})"
    known = relative.chip.peak_per_s.get(dtype) if relative and relative.chip else None
    if relative and known and relative.dtype == dtype:
        ends.append(carried := min(relative.matrix.mid / known, 1.0))
        basis += f", {carried:.2g} as measured here"
    return band(*(peak * end for end in ends), basis=basis)


def _memory_rate(chip: Chip, *, rate: float, relative: Roofs | None) -> RateSpan:
    if own := chip.reaches.get("memory"):
        return _of_reach(own)
    specified = relative.chip.memory_bytes_per_s if relative and relative.chip else None
    if relative and specified:
        carried = min(relative.memory.mid / specified, 1.0)
        low, high = carried / CARRIED_SPREAD, min(carried * CARRIED_SPREAD, 1.0)
        words = f"{carried:.2g} measured on a relative"
    else:
        low, high = MEMORY_FRACTION / MEMORY_SPREAD, MEMORY_FRACTION * MEMORY_SPREAD
        words = "its own is not known"
    return band(rate * low, rate * high, basis=f"{low:.2f} to {high:.2f} of its sheet ({words})")


_BASIS_WORDS = {
    "measured": "measured",
    "kin": "measured on the same silicon",
    "formula": "from watts a unit, of a relative",
}


def basis_of(own: Reach) -> str:
    """'measured (torch-performance-test-data)'."""
    titles = [source.partition(", http")[0].partition(":")[0] for source in own.sources]
    return f"{_BASIS_WORDS[own.basis]} ({', '.join(titles)})"


def _of_reach(own: Reach, *, factor: float = 1.0) -> RateSpan:
    return band(own.low * factor, own.high * factor, basis=basis_of(own))


def is_same_chip(one: Roofs, other: Roofs) -> bool:
    """Whether both are known to be the same row of the catalogue."""
    return one.chip is not None and other.chip is not None and one.chip.id == other.chip.id


def fact(chip: Chip, name: str) -> float:
    """One figure that a row states; 0 where it does not."""
    value = chip.facts.get(name)
    return float(value) if isinstance(value, int | float) else 0.0


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
        is_narrower = WIDTH_BITS[target.dtype] < WIDTH_BITS[dtype]
        factor *= NARROWER_DTYPE if is_narrower else OTHER_DTYPE
        words += f"; {target.dtype} stands in for {dtype}, whose peak there is not known"
    return factor, words


def _is_same_architecture(source: Roofs, target: Roofs) -> bool:
    """Whether a compute unit does as much in a clock, in every dtype that both have."""
    if source.chip is None or target.chip is None:
        return False
    chips = (source.chip, target.chip)
    if len({(chip.vendor, chip.facts.get("compute_unit_kind")) for chip in chips}) > 1:
        return False
    cycles = [_cycles_per_s(chip) for chip in chips]
    one, other = source.chip.peak_per_s, target.chip.peak_per_s
    return (
        all(cycles)
        and set(one) == set(other)
        and all(
            abs(one[dtype] / cycles[0] / (other[dtype] / cycles[1]) - 1.0) < 0.1
            for dtype in ("bf16", "fp16")
            if dtype in one
        )
    )


def _cycles_per_s(chip: Chip) -> float:
    """Of all units together, at the clock of the matrix peak."""
    clock_hz = fact(chip, "tensor_clock_hz") or fact(chip, "max_clock_hz")
    return fact(chip, "compute_units") * clock_hz
