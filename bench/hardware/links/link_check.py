"""Scores a link's cost model against a table of measured collectives.

With a curve every point is predicted with its size left out of the curve, for all operations and
groups: a curve scored on its own points says nothing. What is reported is the mean of
|predicted / measured - 1| by operation and size class. A formula on PCI Express is printed but not
rated: what such a host reaches depends on its board, not on the standard.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from statistics import mean

from bench.hardware.costs.collectives import OPS, Cost, Method
from bench.hardware.costs.cost import CostModel
from bench.hardware.links.curves import Point
from bench.hardware.links.link_levels import LinkLevel
from bench.hardware.links.topology import Topology

SMALL_BYTES, MEDIUM_BYTES = 2**16, 2**23
"""Largest message still called small or medium: 64 KiB, 8 MiB."""
SIZE_CLASSES = ("small", "medium", "large")


def _size_class(message_bytes: int) -> str:
    if message_bytes <= SMALL_BYTES:
        return "small"
    return "medium" if message_bytes <= MEDIUM_BYTES else "large"


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


def _without_size(topology: Topology, message_bytes: int) -> Topology:
    def cut(level: LinkLevel) -> LinkLevel:
        if level.curve is None:
            return level
        return replace(level, curve=level.curve.without_size(message_bytes))

    outer = None if topology.outer is None else cut(topology.outer)
    return replace(topology, inner=cut(topology.inner), outer=outer)


_Missed = list[tuple[Point, Cost]]
"""Measured points, and what the model says of each."""


def _predicted(points: Sequence[Point], *, topology: Topology, use_curves: bool) -> _Missed:
    """Predict each point, with its size left out of the curve where there is one."""
    found = []
    by_size = sorted(points, key=lambda point: point.message_bytes)
    for size, group in groupby(by_size, key=lambda point: point.message_bytes):
        cut = _without_size(topology, size) if use_curves else topology
        model = CostModel(cut, use_curves=use_curves)
        for point in group:
            ranks = model.group_of(range(point.num_ranks))
            found.append((point, model.cost(point.op, num_bytes=size, group=ranks)))
    return found


def _score(found: _Missed, *, op: str, size_class: str) -> Score | None:
    errors = [
        cost.seconds / point.latency_s - 1.0
        for point, cost in found
        if op in ("all", point.op) and size_class in ("all", _size_class(point.message_bytes))
    ]
    if not errors:
        return None
    return Score(
        op=op,
        size_class=size_class,
        num_points=len(errors),
        mean_abs_error=mean(map(abs, errors)),
        mean_error=mean(errors),
    )


def check_link(points: Sequence[Point], *, topology: Topology, use_curves: bool) -> LinkCheck:
    """Score `topology` on measured points, of which there is at least one."""
    found = _predicted(points, topology=topology, use_curves=use_curves)
    methods = tuple(sorted({cost.method for _, cost in found}))
    is_formula = bool({"tuner", "alpha-beta"} & set(methods))
    on_pci = "pci" in (topology.inner.tuner, topology.outer and topology.outer.tuner)
    scores = [
        _score(found, op=op, size_class=size_class)
        for op in (*OPS, "all")
        for size_class in (*SIZE_CLASSES, "all")
    ]
    return LinkCheck(
        link=topology.name,
        methods=methods,
        is_rated=not (is_formula and on_pci),
        scores=tuple(score for score in scores if score is not None),
    )
