"""What a chip reaches, in sentences: the figures that a projection to it starts from."""

from bench.analysis.projection.on_chip import sustained_clock
from bench.analysis.projection.roofs import (
    RateSpan,
    Roofs,
    Unknown,
    band,
    basis_of,
    catalogue_roofs,
    fact,
)
from bench.core.nouns import Chip
from bench.core.units import format_si, si_scale

_PARTS = {"gemm": "products", "gemm_fp8": "products in fp8", "memory": "copies", "cache": "cache"}


def reach_lines(chip: Chip) -> list[str]:
    """Products, copies, clock, ridge and cache, then where each is from; one line where unknown."""
    roofs = catalogue_roofs(chip, dtype="fp16")
    if isinstance(roofs, Unknown):
        return [f"what it reaches cannot be said: {roofs.reason}"]
    peak, wire = chip.peak_per_s[roofs.dtype], chip.memory_bytes_per_s or 0.0
    verb = "reaches" if "gemm" in chip.reaches else "not measured, taken as"
    products = _of(roofs.matrix, whole=peak, unit="FLOP/s")
    copies = _of(roofs.memory, whole=wire, unit="B/s")
    copied = "copies" if "memory" in chip.reaches else "copies taken as"
    ridge = band(roofs.matrix.low / roofs.memory.high, roofs.matrix.high / roofs.memory.low)
    return [
        f"{verb} {products} in {roofs.dtype}, {copied} {copies}",
        *_clock_lines(chip, roofs),
        f"ridge at what it reaches: {_ends(ridge, by=1.0)} FLOP a byte, {peak / wire:.3g} by its "
        "sheet; with less, memory holds",
        *_basis_lines(chip, roofs),
    ]


def _clock_lines(chip: Chip, roofs: Roofs) -> list[str]:
    clock = sustained_clock(chip, dtype=roofs.dtype, matrix=roofs.matrix)
    if clock is None or "gemm" not in chip.reaches or chip.vendor != "nvidia":
        return []
    low, high = f"{clock.low / 1e9:.1f}", f"{clock.high / 1e9:.1f}"
    ends = low if low == high else f"{low} to {high}"
    most = fact(chip, "max_clock_hz") / 1e9
    return [f"about {ends} GHz under a matrix product, of at most {most:.2f}"]


def _basis_lines(chip: Chip, roofs: Roofs) -> list[str]:
    """One line for each figure: where it is from, or what stands in for it."""
    unknown = {"gemm": roofs.matrix.basis, "memory": roofs.memory.basis}
    lines = []
    for kind, words in _PARTS.items():
        reach = chip.reaches.get(kind)
        if reach is None:
            lines += [f"{words}: {unknown[kind]}"] if kind in unknown else []
            continue
        rate = band(reach.low, reach.high)
        shown = "" if kind in unknown else f"{_alone(rate, kind=kind)}, "
        lines.append(f"{words}: {shown}{basis_of(reach)}")
        lines += [f"  {reach.note}"] if reach.note else []
    return lines


def _alone(rate: RateSpan, *, kind: str) -> str:
    """'5.7 to 7 TB/s': of what has no figure on a sheet."""
    by, unit = si_scale(rate.high, "B/s" if kind == "cache" else "FLOP/s")
    return f"{_ends(rate, by=by)} {unit}"


def _of(rate: RateSpan, *, whole: float, unit: str) -> str:
    """'435 to 496 of 756 TFLOP/s'."""
    return f"{_ends(rate, by=si_scale(whole, unit)[0])} of {format_si(whole, unit)}"


def _ends(rate: RateSpan, *, by: float) -> str:
    low, high = (f"{end / by:.3g}" for end in (rate.low, rate.high))
    return low if low == high else f"{low} to {high}"
