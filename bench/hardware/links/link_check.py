"""Scores a link's cost model against a table of measured collectives.

With a curve every point is predicted with its size left out of the curve, for all operations and
groups: a curve scored on its own points says nothing. What is reported is the mean of
|predicted / measured - 1| by operation and size class. A formula on PCI Express is printed but not
rated: what such a host reaches depends on its board, not on the standard.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from statistics import mean

from bench.hardware.costs.collectives import OPS, Cost, Method
from bench.hardware.costs.cost import CostModel
from bench.hardware.links.curves import Point
from bench.hardware.links.presets import LinkLevel
from bench.hardware.links.topology import Topology

SMALL_BYTES, MEDIUM_BYTES = 2**16, 2**23
"""Largest message still called small or medium: 64 KiB, 8 MiB."""
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

    @property
    def overall(self) -> Score:
        """Everything."""
        return self.scores[-1]


def check_link(points: Sequence[Point], *, topology: Topology, use_curves: bool) -> LinkCheck:
    """Score `topology` on measured points, of which there is at least one."""
    found = list(_predicted(points, topology=topology, use_curves=use_curves))
    methods = tuple(sorted({cost.method for _, cost in found}))
    is_formula = bool({"tuner", "alpha-beta"} & set(methods))
    on_pci = "pci" in (topology.inner.tuner, topology.outer and topology.outer.tuner)
    scores = []
    for op in (*OPS, "all"):
        for size_class in (*SIZE_CLASSES, "all"):
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
    )


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
