"""Scores a link's cost model against a table of measured collectives.

With a curve every point is predicted with its size left out of the curve, for all operations and
groups: a curve scored on its own points says nothing. What is reported is the mean of
|predicted / measured - 1| by operation and size class. A formula on PCI Express is printed but not
rated: what such a host reaches depends on its board, not on the standard. A table of which the
whole or a part is off by a thousand or a million is in another unit there, and is not scored.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise, product
from math import log10
from statistics import mean, median

from bench.core.errors import DataError
from bench.hardware.costs.collectives import OPS, Cost, Method
from bench.hardware.costs.cost import CostModel
from bench.hardware.links.curves import Point
from bench.hardware.links.presets import LinkLevel
from bench.hardware.links.topology import Topology

SMALL_BYTES, MEDIUM_BYTES = 2**16, 2**23
"""Largest message still called small or medium: 64 KiB, 8 MiB."""
_UNITS = {"ns": -3.0, "ms": 3.0, "s": 6.0}
"""Decimal logarithm of the factor by which a table in this unit is off."""
_OTHER_UNIT = 1.5
"""Decimal logarithm that no link and no model explains."""
SIZE_CLASSES = ("small", "medium", "large")


@dataclass(frozen=True, kw_only=True)
class Score:
    """Mean absolute error of one operation and size class; 'all' stands for every one."""

    op: str
    size_class: str
    num_points: int
    mean_abs_error: float
    mean_error: float
    """With its sign: below zero the model is too fast."""


@dataclass(frozen=True, kw_only=True)
class LinkCheck:
    """A link scored on a table."""

    link: str
    methods: tuple[Method, ...]
    """Where the predictions came from."""
    is_rated: bool
    scores: tuple[Score, ...]
    """By operation and size class, each operation, each size class, and last everything."""
    worst: Point
    """The point that is furthest off by a factor."""
    worst_predicted_s: float

    @property
    def overall(self) -> Score:
        """Everything."""
        return self.scores[-1]


def check_link(points: Sequence[Point], *, topology: Topology, use_curves: bool) -> LinkCheck:
    """Score `topology` on measured points, of which there is at least one.

    `DataError` for a table whose unit is not the one it should have.
    """
    found = list(_predicted(points, topology=topology, use_curves=use_curves))
    worst, cost = max(found, key=lambda one: abs(_log_factor(*one)))
    _refuse_other_unit([_log_factor(*one) for one in found], link=topology.name, worst=worst)
    methods = tuple(sorted({cost.method for _, cost in found}))
    is_formula = bool({"tuner", "alpha-beta"} & set(methods))
    on_pci = "pci" in (topology.inner.tuner, topology.outer and topology.outer.tuner)
    scores = []
    for op, size_class in product((*OPS, "all"), (*SIZE_CLASSES, "all")):
        errors = [
            cost.seconds / point.latency_s - 1.0
            for point, cost in found
            if op in ("all", point.op) and size_class in ("all", _size_class(point))
        ]
        if errors:
            score = Score(
                op=op,
                size_class=size_class,
                num_points=len(errors),
                mean_abs_error=mean(map(abs, errors)),
                mean_error=mean(errors),
            )
            scores.append(score)
    return LinkCheck(
        link=topology.name,
        methods=methods,
        is_rated=not (is_formula and on_pci),
        scores=tuple(scores),
        worst=worst,
        worst_predicted_s=cost.seconds,
    )


def _log_factor(point: Point, cost: Cost) -> float:
    """Decimal logarithm of predicted over measured; a prediction of nothing is one of 1 ns."""
    return log10(max(cost.seconds, 1e-9) / point.latency_s)


def _refuse_other_unit(logs: Sequence[float], *, link: str, worst: Point) -> None:
    """A table that is thirty times off, as a whole or a part of it, says nothing of the model."""
    part = max(_parts(sorted(logs)), key=lambda part: abs(median(part)))
    log_off = median(part)
    if abs(log_off) < _OTHER_UNIT:
        return
    unit = next((unit for unit, log in _UNITS.items() if abs(log_off - log) < 0.7), None)
    guess = f"its latency_us seems to be in {unit}, not us, or it" if unit else "it"
    side = "faster" if log_off > 0.0 else "slower"
    is_whole = len(part) == len(logs)
    which = "point" if is_whole else f"of {len(part)} of {len(logs)} points, far from the others,"
    raise DataError(
        f"the table's median {which} is {10.0 ** abs(log_off):,.0f} times {side} than {link}: "
        f"{guess} is of another link; furthest off: {described(worst)}"
    )


def _parts(logs: Sequence[float]) -> list[Sequence[float]]:
    """Both sides of the widest gap of these in order, where it is wide and no side is a few."""
    gaps = [after - before for before, after in pairwise(logs)]
    cut = max(range(len(gaps)), key=gaps.__getitem__, default=0) + 1
    is_parted = min(cut, len(logs) - cut) >= max(2, len(logs) / 10) and gaps[cut - 1] > _OTHER_UNIT
    return [logs[:cut], logs[cut:]] if is_parted else [logs]


def described(point: Point) -> str:
    """A point in words: 'all_reduce over 8, 1024 bytes: 15.01 us'."""
    where = f"{point.op} over {point.num_ranks}, {point.message_bytes} bytes"
    return f"{where}: {point.latency_s * 1e6:.6g} us"


def _predicted(
    points: Sequence[Point], *, topology: Topology, use_curves: bool
) -> Iterator[tuple[Point, Cost]]:
    """Each point, and what the model says with the point's size left out of the curve."""
    by_size = sorted(points, key=lambda point: point.message_bytes)
    for size, group in groupby(by_size, key=lambda point: point.message_bytes):
        model = CostModel(_without_size(topology, size), use_curves=use_curves)
        for point in group:
            ranks = model.group_of(range(point.num_ranks))
            yield point, model.cost(point.op, num_bytes=size, group=ranks)


def _without_size(topology: Topology, message_bytes: int) -> Topology:
    def cut(level: LinkLevel) -> LinkLevel:
        curve = level.curve
        return replace(level, curve=curve and curve.without_size(message_bytes))

    outer = topology.outer and cut(topology.outer)
    return replace(topology, inner=cut(topology.inner), outer=outer)


def _size_class(point: Point) -> str:
    return SIZE_CLASSES[bisect_left((SMALL_BYTES, MEDIUM_BYTES), point.message_bytes)]
