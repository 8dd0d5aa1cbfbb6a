"""How well projection does on published ratios that one party measured on two chips.

Nothing is known of those programs but the net's kind: nets like a shipped workload are projected
with its operators (counted from shapes, `bench/hardware/operator_mixes.yaml`), all others by the
roofs alone, and the two are counted apart. Each ratio is projected from catalogue peaks and derates
only; no figure in the harness is fitted to such a file. All run in a 16-bit dtype, because the file
does not say; ratios of several devices are projected as ratios of one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench.analysis.projection.roofs import Roofs, Unknown, catalogue_roofs, on_chip
from bench.analysis.projection.sampling import Estimate, draws, estimate
from bench.analysis.projection.scaled_operators import ROOFS, scale
from bench.analysis.projection.scoring_points import RatioPoint
from bench.core.nouns import Chip
from bench.hardware.operator_mixes import load_mixes
from bench.hardware.operators import Operators

DTYPE = "fp16"
_ANSWER = ("llm-prefill-large", "llm-decode-large")
NEAREST: dict[tuple[str, str], tuple[str, ...]] = {
    ("cnn3d", "train"): ("imaging-train-large",),
    ("cnn3d", "infer"): ("imaging-infer-large",),
    # Width and depth of the base size are those of BERT-base; reading a text is what prefill does.
    ("transformer", "train"): ("llm-train-base",),
    ("transformer", "infer"): ("llm-prefill-base",),
    ("transformer", "prefill"): ("llm-prefill-base",),
    ("transformer", "decode"): ("llm-decode-base",),
    ("llm", "train"): ("llm-train-large",),
    # An answer is a prompt read and tokens generated after it.
    ("llm", "infer"): _ANSWER,
    ("llm", "prefill"): _ANSWER[:1],
    ("llm", "decode"): _ANSWER[1:],
}
"""Mixes that stand for a kind of net in a phase; every other pair goes by the roofs."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A published ratio and what is projected for it."""

    point: RatioPoint
    projected: Estimate | None
    """None where a chip's roofs are not known."""
    by_mix: bool
    reason: str
    """Why it lies outside the interval, or why there is none; '' otherwise."""

    @property
    def is_inside(self) -> bool:
        """Whether the published ratio lies in the stated interval."""
        one = self.projected
        return one is not None and _holds(one, self.point.ratio)

    @property
    def error(self) -> float | None:
        """Midpoint over the published ratio, minus 1."""
        return None if self.projected is None else self.projected.mid / self.point.ratio - 1.0


def _holds(one: Estimate, ratio: float) -> bool:
    """Whether the interval holds the ratio; rounding of equal figures does not count."""
    return one.low * (1 - 1e-9) <= ratio <= one.high * (1 + 1e-9)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The method on some of the points."""

    name: str
    num_points: int
    median_error_frac: float
    """Of the midpoint, without its sign."""
    inside_frac: float
    median_width: float
    """High over low."""


def operators_for(kind: str, phase: str) -> list[Operators]:
    """Operators of the nearest workload; none where no workload is like it."""
    mixes = {mix.id: mix for mix in load_mixes()}
    return [one for name in NEAREST.get((kind, phase), ()) for one in mixes[name].operators]


def score_point(point: RatioPoint) -> Scored:
    """Project one ratio from the catalogue alone."""
    operators = operators_for(point.kind, point.phase)
    by_mix = bool(operators)
    source = catalogue_roofs(point.chip_a, dtype=DTYPE)
    target = catalogue_roofs(point.chip_b, dtype=DTYPE)
    for side, roofs in (("chip_a", source), ("chip_b", target)):
        if isinstance(roofs, Unknown):
            return Scored(
                point=point, projected=None, by_mix=by_mix, reason=f"{side}: {roofs.reason}"
            )
    assert isinstance(source, Roofs) and isinstance(target, Roofs)
    scaled = scale(operators, source=source, target=target, dtype=DTYPE, unknown=draws())
    projected = estimate(scaled.ratio, middle=scaled.ratio_alike).inverse()
    reason = (
        "" if _holds(projected, point.ratio) else _why_missed(point, source, target, by_mix=by_mix)
    )
    if reason and point.ratio > projected.high and (causes := _beyond_roofs(point)):
        reason += f"; what may lift it: {causes}"
    return Scored(point=point, projected=projected, by_mix=by_mix, reason=reason)


def roof_ratios(source: Roofs, target: Roofs) -> dict[str, float]:
    """What each roof alone would give, target over source, at the middle of its band."""
    ratios = {
        "matrix": target.matrix.per_s.mid / source.matrix.per_s.mid,
        "memory": target.memory.per_s.mid / source.memory.per_s.mid,
    }
    chip_ratio = on_chip(source, target).speedup
    if chip_ratio is not None:
        ratios["on chip"] = chip_ratio.mid
    return {name: ratios[name] for name in ROOFS if name in ratios}


def _why_missed(point: RatioPoint, source: Roofs, target: Roofs, *, by_mix: bool) -> str:
    """Name what the roofs do not hold; every word follows from the row and the catalogue."""
    ratios = roof_ratios(source, target)
    fastest, slowest = max(ratios.values()), min(ratios.values())
    if point.ratio > 1.05 * fastest:
        return f"above every roof (at most x{fastest:.2f})"
    if point.ratio < slowest / 1.05:
        return f"below every roof (at least x{slowest:.2f}): power limit, clock or younger software"
    nearest = min(ratios, key=lambda name: abs(math.log(ratios[name] / point.ratio)))
    held = f"behaves as if {nearest} alone (x{ratios[nearest]:.2f}) held it"
    return f"{held}, more than {'its mix has it' if by_mix else 'an unknown mix would'}"


def _beyond_roofs(point: RatioPoint) -> str:
    causes = []
    peaks_a, peaks_b = point.chip_a.peak_per_s, point.chip_b.peak_per_s
    gained = [dtype for dtype in ("fp8", "int8") if dtype in peaks_b and dtype not in peaks_a]
    if gained:
        causes.append(f"a narrower dtype that {point.chip_a.id} lacks ({', '.join(gained)})")
    memory_a, memory_b = point.chip_a.memory_bytes, point.chip_b.memory_bytes
    if memory_a and memory_b and memory_b > 1.2 * memory_a:
        causes.append(f"a larger batch in x{memory_b / memory_a:.2g} the memory")
    cache_a, cache_b = _cache_bytes(point.chip_a), _cache_bytes(point.chip_b)
    if cache_a and cache_b and cache_b > 1.2 * cache_a:
        causes.append(f"hits in x{cache_b / cache_a:.2g} the cache")
    return " or ".join(causes)


def _cache_bytes(chip: Chip) -> float | None:
    value = chip.facts.get("l2_bytes")
    return float(value) if isinstance(value, int | float) else None


def score(points: Sequence[RatioPoint]) -> list[Scored]:
    """Project every ratio."""
    return [score_point(point) for point in points]


def summaries(scored: Sequence[Scored]) -> list[Summary]:
    """Sum up: all points, those projected by a mix, those by the roofs alone."""
    groups = {
        "all": list(scored),
        "by operator mix": [one for one in scored if one.by_mix],
        "by roofs": [one for one in scored if not one.by_mix],
    }
    found = []
    for name, members in groups.items():
        told = [one for one in members if one.projected is not None]
        if told:
            found.append(
                Summary(
                    name=name,
                    num_points=len(told),
                    median_error_frac=median(abs(one.error or 0.0) for one in told),
                    inside_frac=sum(one.is_inside for one in told) / len(told),
                    median_width=median(one.projected.width for one in told if one.projected),
                )
            )
    return found


def score_document(scored: Sequence[Scored]) -> dict[str, object]:
    """One JSON document: every point, and what they sum up to."""
    return {
        "kind": "projected",
        "summaries": [vars(one) for one in summaries(scored)],
        "points": [
            {
                "chip_a": one.point.chip_a.id,
                "chip_b": one.point.chip_b.id,
                "phase": one.point.phase,
                "net": one.point.net,
                "kind": one.point.kind,
                "num_devices": one.point.num_devices,
                "published_ratio": one.point.ratio,
                "projected_ratio": None if one.projected is None else vars(one.projected),
                "error_frac": one.error,
                "is_inside": one.is_inside if one.projected is not None else None,
                "by": "operator mix" if one.by_mix else "roofs",
                "reason": one.reason or None,
                "note": one.point.note,
                "point_id": one.point.point_id,
            }
            for one in scored
        ],
    }
