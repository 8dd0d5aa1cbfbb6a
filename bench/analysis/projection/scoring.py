"""How well projection does on published ratios that one party measured on two chips.

Nothing is known of those programs but the net's kind: nets like a shipped workload are projected
with its operators (counted from shapes, `bench/hardware/operator_mixes.yaml`), all others by the
roofs alone, and the two are counted apart. Each ratio is projected from catalogue peaks and derates
only; no figure in the harness is fitted to such a file. All run in a 16-bit dtype, because the file
does not say; ratios of several devices are projected as ratios of one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Annotated

from msgspec import Meta

from bench.analysis.projection.on_chip import limits
from bench.analysis.projection.roofs import Estimate, Roofs, Unknown, catalogue_roofs
from bench.analysis.projection.scaled_operators import speed_ratio
from bench.core.errors import BenchError, DataError
from bench.core.nouns import Chip
from bench.core.separated import decimal_mark, decoded, plain_number, separated, unmarked
from bench.hardware.chips import chip
from bench.hardware.loader import Declared, Text, decode
from bench.hardware.operators import Operators, load_mixes

_MAX_BYTES = 10_000_000
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


class RatioPoint(Declared, frozen=True, kw_only=True):
    """One published ratio; its fields are the columns of the file."""

    chip_a: str
    """A chip of the catalogue, by its id."""
    chip_b: str
    phase: Text
    net: Text
    kind: Text
    num_devices: Annotated[int, Meta(gt=0, lt=10**7)]
    throughput_ratio_b_over_a: Annotated[float, Meta(gt=1e-6, lt=1e6)]
    note: str
    point_id: str


COLUMNS = RatioPoint.__struct_fields__
_NUMBERS = ("num_devices", "throughput_ratio_b_over_a")


def read_points(path: Path) -> list[RatioPoint]:
    """Read a file of published ratios; `DataError` names the line that cannot be used."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DataError(f"{path}: larger than {_MAX_BYTES:,} bytes, which no such file is")
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read: {reason}") from None
    what = str(path)
    table = separated(decoded(unmarked(data, what=what), what=what), what=what)
    if table.header != COLUMNS:
        raise DataError(f"{path}: the first line must be {','.join(COLUMNS)}")
    rows = [(n, dict(zip(COLUMNS, map(str.strip, row), strict=True))) for n, row in table.records]
    if not rows:
        raise DataError(f"{path}: holds no ratio below its first line")
    mark = decimal_mark(table, numbers=(row[name] for _, row in rows for name in _NUMBERS))
    return [_point(row, where=f"{path}: line {line}", mark=mark) for line, row in rows]


def _point(row: dict[str, str], *, where: str, mark: str) -> RatioPoint:
    row = row | {name: plain_number(row[name], mark=mark) for name in _NUMBERS}
    try:
        row |= {name: chip(row[name][:60]).id for name in ("chip_a", "chip_b")}
    except BenchError as error:
        raise DataError(f"{where}: {error}") from None
    return decode(row, into=RatioPoint, what=where, is_text=True)


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
    ratio = speed_ratio(one, two, operators=operators, dtype=DTYPE)
    scored = Scored(point=point, projected=None, by_mix=bool(operators))
    if isinstance(ratio, Unknown):
        side = "chip_a" if ratio.chip == one.id else "chip_b"
        return replace(scored, reason=f"{side}: {ratio.reason}")
    scored = replace(scored, projected=ratio)
    if scored.is_inside:
        return scored
    reason = _why_missed(scored, one, two)
    if scored.ratio > ratio.high and (causes := _beyond_roofs(one, two)):
        reason += f"; what may lift it: {causes}"
    return replace(scored, reason=reason)


def _why_missed(scored: Scored, one: Chip, two: Chip) -> str:
    """Name what the roofs do not hold; every word follows from the row and the catalogue."""
    source, target = (catalogue_roofs(chip, dtype=DTYPE) for chip in (one, two))
    assert isinstance(source, Roofs) and isinstance(target, Roofs), "a ratio was projected"
    # What each roof alone would give, target over source, at the middle of its band.
    ratios = {
        "matrix": target.matrix.mid / source.matrix.mid,
        "memory": target.memory.mid / source.memory.mid,
    }
    ratios |= {limit.name: limit.ratio for limit in limits(source, target)}
    fastest, slowest = max(ratios.values()), min(ratios.values())
    if scored.ratio > 1.05 * fastest:
        return f"above every roof (at most x{fastest:.2f})"
    if scored.ratio < slowest / 1.05:
        return f"below every roof (at least x{slowest:.2f}): power limit, clock or younger software"
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


def summaries(scored: Sequence[Scored]) -> list[Summary]:
    """Sum up: all points, those projected by a mix, those by the roofs alone."""
    known = [(one, one.projected) for one in scored if one.projected is not None]
    groups = {
        "all": known,
        "by operator mix": [pair for pair in known if pair[0].by_mix],
        "by roofs": [pair for pair in known if not pair[0].by_mix],
    }
    return [
        Summary(
            name=name,
            num_points=len(members),
            median_error_frac=median(abs(one.error or 0.0) for one, _ in members),
            inside_frac=sum(one.is_inside for one, _ in members) / len(members),
            median_width=median(projected.width for _, projected in members),
        )
        for name, members in groups.items()
        if members
    ]
