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
from dataclasses import dataclass, replace
from statistics import median

from bench.analysis.projection.roofs import Roofs, Unknown, catalogue_roofs, on_chip
from bench.analysis.projection.sampling import Estimate, draws, estimate
from bench.analysis.projection.scaled_operators import scale
from bench.analysis.projection.scoring_points import RatioPoint
from bench.hardware.operators import Operators, load_mixes

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
    reason: str = ""
    """Why it lies outside the interval, or why there is none."""

    @property
    def is_inside(self) -> bool:
        """Whether the interval holds the published ratio; rounding of equal figures is none."""
        one = self.projected
        return one is not None and one.low * (1 - 1e-9) <= self.point.ratio <= one.high * (1 + 1e-9)

    @property
    def error(self) -> float | None:
        """Midpoint over the published ratio, minus 1."""
        return None if self.projected is None else self.projected.mid / self.point.ratio - 1.0


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
    source = catalogue_roofs(point.chip_a, dtype=DTYPE)
    target = catalogue_roofs(point.chip_b, dtype=DTYPE)
    scored = Scored(point=point, projected=None, by_mix=bool(operators))
    if isinstance(source, Unknown):
        return replace(scored, reason=f"chip_a: {source.reason}")
    if isinstance(target, Unknown):
        return replace(scored, reason=f"chip_b: {target.reason}")
    scaled = scale(operators, source=source, target=target, dtype=DTYPE, unknown=draws())
    projected = estimate(scaled.ratio, middle=scaled.ratio_alike).inverse()
    scored = replace(scored, projected=projected)
    if scored.is_inside:
        return scored
    reason = _why_missed(point, source, target, by_mix=scored.by_mix)
    if point.ratio > projected.high and (causes := _beyond_roofs(point)):
        reason += f"; what may lift it: {causes}"
    return replace(scored, reason=reason)


def _why_missed(point: RatioPoint, source: Roofs, target: Roofs, *, by_mix: bool) -> str:
    """Name what the roofs do not hold; every word follows from the row and the catalogue."""
    # What each roof alone would give, target over source, at the middle of its band.
    ratios = {
        "matrix": target.matrix.mid / source.matrix.mid,
        "memory": target.memory.mid / source.memory.mid,
    }
    chip_ratio = on_chip(source, target)
    if chip_ratio is not None:
        ratios["on chip"] = chip_ratio.mid
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
    one, two = point.chip_a, point.chip_b
    gained = [name for name in ("fp8", "int8") if name in two.peak_per_s.keys() - one.peak_per_s]
    if gained:
        causes.append(f"a narrower dtype that {one.id} lacks ({', '.join(gained)})")
    if one.memory_bytes and two.memory_bytes and two.memory_bytes > 1.2 * one.memory_bytes:
        causes.append(f"a larger batch in x{two.memory_bytes / one.memory_bytes:.2g} the memory")
    caches = [row.facts.get("l2_bytes") for row in (one, two)]
    known = [float(size) for size in caches if isinstance(size, int | float) and size]
    if len(known) == 2 and known[1] > 1.2 * known[0]:
        causes.append(f"hits in x{known[1] / known[0]:.2g} the cache")
    return " or ".join(causes)


def summaries(scored: Sequence[Scored]) -> list[Summary]:
    """Sum up: all points, those projected by a mix, those by the roofs alone."""
    groups = {
        "all": list(scored),
        "by operator mix": [one for one in scored if one.by_mix],
        "by roofs": [one for one in scored if not one.by_mix],
    }
    found = []
    for name, members in groups.items():
        known = [(one, one.projected) for one in members if one.projected is not None]
        if known:
            summary = Summary(
                name=name,
                num_points=len(known),
                median_error_frac=median(abs(one.error or 0.0) for one, _ in known),
                inside_frac=sum(one.is_inside for one, _ in known) / len(known),
                median_width=median(projected.width for _, projected in known),
            )
            found.append(summary)
    return found
