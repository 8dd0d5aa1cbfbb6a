"""How well projection does on published ratios that one party measured on two chips.

Nothing is known of those programs but the net's kind: nets like a shipped workload are projected
with its operators (counted from shapes, `bench/hardware/operator_mixes.yaml`), all others by the
roofs alone, and the two are counted apart. Each ratio is projected from the catalogue only; no
figure in the harness is fitted to such a file. Products are in a 16-bit dtype where the file does
not say; ratios of several devices are those of one where it does not tell link and step of each.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from bench.analysis.projection.exchange import compute_of, exchange_s, exposed_s
from bench.analysis.projection.on_chip import limits
from bench.analysis.projection.published_ratios import RatioPoint
from bench.analysis.projection.roofs import Estimate, Unknown, roofs_of_pair
from bench.analysis.projection.scaled_operators import Array, draws, estimate, time_ratio
from bench.core.nouns import Chip
from bench.hardware.chips import chip
from bench.hardware.costs.cost import model_of
from bench.hardware.operators import Operators, load_mixes

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
    def is_same_silicon(self) -> bool:
        """Whether both chips are known to be of one die."""
        names = (self.point.chip_a, self.point.chip_b)
        return len({chip(name).facts.get("silicon", name) for name in names}) == 1

    @property
    def ratio(self) -> float:
        """The published one."""
        return self.point.throughput_ratio_b_over_a

    @property
    def is_inside(self) -> bool:
        """Whether the interval holds the published ratio; rounding of equal figures is none."""
        one = self.projected
        return one is not None and one.low * (1 - 1e-9) <= self.ratio <= one.high * (1 + 1e-9)

    @property
    def error(self) -> float | None:
        """Midpoint over the published ratio, minus 1."""
        return None if self.projected is None else self.projected.mid / self.ratio - 1.0


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
    one, two = chip(point.chip_a), chip(point.chip_b)
    dtypes = (point.dtype_a, point.dtype_b)
    scaled = time_ratio(one, two, operators=operators, dtypes=dtypes)
    scored = Scored(point=point, projected=None, by_mix=bool(operators))
    if isinstance(scaled, Unknown):
        side = "chip_a" if scaled.chip == one.id else "chip_b"
        return replace(scored, reason=f"{side}: {scaled.reason}")
    whole, middle = (_with_link(point, ratio) for ratio in (scaled.ratio, scaled.ratio_alike))
    ratio = estimate(whole, middle=middle).inverse()
    scored = replace(scored, projected=ratio)
    if scored.is_inside:
        return scored
    reason = _why_missed(scored, one, two)
    if scored.ratio > ratio.high and (causes := _beyond_roofs(one, two)):
        reason += f"; what may lift it: {causes}"
    return replace(scored, reason=reason)


def _with_link(point: RatioPoint, ratio: Array) -> Array:
    """Time an item on b over that on a: compute carried by `ratio`, each with its own link."""
    if point.step_s_a is None or not point.has_link:
        return ratio
    unknown = draws()
    before_s, after_s = (
        exchange_s(
            model_of(link),
            parameters=point.parameters or 0.0,
            devices=point.num_devices,
            unknown=unknown,
        )
        for link in (point.link_a, point.link_b)
    )
    larger = (point.batch_b or 1.0) / (point.batch_a or 1.0) if point.batch_b else 1.0
    compute_s = compute_of(point.step_s_a, whole_s=before_s, unknown=unknown) * ratio * larger
    step_s = compute_s + exposed_s(compute_s, whole_s=after_s, unknown=unknown)
    return step_s / (point.step_s_a * larger)


def _why_missed(scored: Scored, one: Chip, two: Chip) -> str:
    """Name what the roofs do not hold; every word follows from the row and the catalogue."""
    pair = roofs_of_pair(one, two, dtypes=(scored.point.dtype_a, scored.point.dtype_b))
    assert not isinstance(pair, Unknown), "a ratio was projected"
    source, target = pair
    # What each roof alone would give, target over source, at the middle of its band.
    ratios = {
        "matrix": target.products.mid / source.products.mid,
        "memory": target.memory.mid / source.memory.mid,
    }
    ratios |= {limit.name: limit.ratio for limit in limits(source, target)}
    fastest, slowest = max(ratios.values()), min(ratios.values())
    if scored.ratio > 1.05 * fastest:
        return f"above every roof (at most x{fastest:.2f})"
    if scored.ratio < slowest / 1.05:
        return f"below every roof (at least x{slowest:.2f}): host, server or younger software"
    nearest = min(ratios, key=lambda name: abs(math.log(ratios[name] / scored.ratio)))
    held = f"behaves as if {nearest} alone (x{ratios[nearest]:.2f}) held it"
    return f"{held}, more than {'its mix has it' if scored.by_mix else 'an unknown mix would'}"


def _beyond_roofs(one: Chip, two: Chip) -> str:
    causes = []
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


GROUPS: tuple[tuple[str, Callable[[Scored], str]], ...] = (
    ("", lambda _: "all"),
    ("by", lambda one: "operator mix" if one.by_mix else "roofs alone"),
    ("silicon", lambda one: "the same die" if one.is_same_silicon else "another die"),
    ("phase", lambda one: one.point.phase),
    ("net", lambda one: one.point.kind),
)


def summaries(scored: Sequence[Scored]) -> list[Summary]:
    """Sum up: all points, then by how they are projected, by silicon, phase and kind of net."""
    known = [one for one in scored if one.projected is not None]
    found = []
    for title, name_of in GROUPS:
        for name in sorted({name_of(one) for one in known}):
            members = [one for one in known if name_of(one) == name]
            found.append(_summary(f"{title}: {name}" if title else name, members))
    return found


def _summary(name: str, members: Sequence[Scored]) -> Summary:
    return Summary(
        name=name,
        num_points=len(members),
        median_error_frac=median(abs(one.error or 0.0) for one in members),
        inside_frac=sum(one.is_inside for one in members) / len(members),
        median_width=median(one.projected.width for one in members if one.projected),
    )
