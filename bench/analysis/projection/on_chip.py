"""Work that stays on the chip: how fast it goes on another one.

Two limits hold it: what the units issue (units x the clock that they hold under a matrix product)
and the cache that all units share. A power limit shows as a matrix rate below what an unthrottled
chip of the vendor reaches, and lowers the clock by as much. Where neither limit can be compared the
vector rate stands in; where that is not known either, nothing shows.
"""

from dataclasses import dataclass

from bench.analysis.projection.roofs import RateSpan, Roofs, band, fact
from bench.core.nouns import Chip

UNTHROTTLED_FRACTION = 0.87
"""Of its matrix peak that a chip reaches at the clock of its sheet: 271.2 of 312 TFLOP/s on an A100
SXM (https://github.com/stas00/ml-engineering/blob/master/compute/accelerator/README.md)."""


@dataclass(frozen=True, kw_only=True)
class Limit:
    """One limit on both chips."""

    name: str
    before: RateSpan
    after: RateSpan

    @property
    def ratio(self) -> float:
        """Target over source, in the middle of both."""
        return self.after.mid / self.before.mid


def limits(source: Roofs, target: Roofs) -> tuple[Limit, ...]:
    """Limits that both chips are known by; none: nothing shows."""
    found = []
    if issue := _issue_rates(source, target):
        found.append(Limit(name="units x clock", before=issue[0], after=issue[1]))
    caches = [one.chip.reaches.get("cache") if one.chip else None for one in (source, target)]
    if caches[0] and caches[1]:
        before, after = (band(one.low, one.high) for one in caches if one)
        found.append(Limit(name="cache", before=before, after=after))
    vector = _vector(source), _vector(target)
    if not found and all(vector):
        before, after = map(band, vector)
        found.append(Limit(name="vector fp32 peak", before=before, after=after))
    return tuple(found)


def sustained_clock(chip: Chip, *, dtype: str, matrix: RateSpan) -> RateSpan | None:
    """Clock in Hz while matrix units work at a rate of `matrix`; None where no clock is known."""
    highest, peak = fact(chip, "max_clock_hz"), chip.peak_per_s.get(dtype)
    if not highest:
        return None
    if chip.vendor != "nvidia" or not peak:  # the fraction is that of one vendor's kernels
        return band(highest)
    at_peak = fact(chip, "tensor_clock_hz") or highest
    unthrottled = peak * UNTHROTTLED_FRACTION / at_peak
    return band(*(min(highest, rate / unthrottled) for rate in (matrix.low, matrix.high)))


def _issue_rates(source: Roofs, target: Roofs) -> tuple[RateSpan, RateSpan] | None:
    """Units x clock of two relatives; None where it is not known or not comparable."""
    if source.chip is None or target.chip is None:
        return None
    chips = (source.chip, target.chip)
    if len({(chip.vendor, chip.facts.get("compute_unit_kind")) for chip in chips}) > 1:
        return None
    found = []
    for roofs, chip in zip((source, target), chips, strict=True):
        clock, units = _clock(roofs, chip), fact(chip, "compute_units")
        if clock is None or not units:
            return None
        found.append(clock.times(units, what="units"))
    return found[0], found[1]


def _clock(roofs: Roofs, chip: Chip) -> RateSpan | None:
    return sustained_clock(chip, dtype=roofs.dtype, matrix=roofs.matrix)


def _vector(roofs: Roofs) -> float:
    if roofs.chip is not None:
        return fact(roofs.chip, "vector_fp32_flops_per_s")
    # A processor's fp32 products run on its vector units: its matrix roof is its vector roof.
    return roofs.matrix.mid if roofs.kind == "cpu" and roofs.dtype == "fp32" else 0.0
