"""Figures of a configuration's rows, where a cell may be blank or damaged; no pandas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from bench.analysis.identity import LEAST, MOST
from bench.results.schema import Row, Value


def number(row: Mapping[str, Value], name: str) -> float | None:
    """A cell's figure; None where it holds none, or one that nothing measured here can have."""
    value = row.get(name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and LEAST < float(value) < MOST else None  # type: ignore[arg-type]


def median_of(rows: Sequence[Row], name: str) -> float | None:
    """Median of a column over the rows that have the figure; None where none has."""
    values = [value for row in rows if (value := number(row, name)) is not None]
    return median(values) if values else None
