"""What a phase or a setting is called in the tables and panels of `bench gap`.

A title has what is always named (size, precision, layout) and, of all else, only that in which two
settings of the same table differ. The mode is a badge, and says the link.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.analysis.gap.demand import Demand
from bench.analysis.trials.titles import differing
from bench.report.tables.cells import AnyCell, text_of, title_cell

_ALWAYS = ("size", "dtype", "compile", "compile_mode",
           "device_count", "parallel", "layout", "mitigation")  # fmt: skip
_APART = ("channels_last", "data", "workload_version", "chip_limit")


def title(demand: Demand, *, name: str | None = None, shown: Sequence[str] = ()) -> AnyCell:
    """Workload with what it was run with; `shown` is what `apart` found for the table."""
    return title_cell(demand.trials.first, shown=(*_ALWAYS, *shown), name=name)


def full_title(demand: Demand, *, name: str | None = None, shown: Sequence[str] = ()) -> str:
    """Title with the batch, in which many demands differ."""
    return text_of(title(demand, name=name, shown=(*shown, "batch")))


def apart(found: Iterable[Demand]) -> list[str]:
    """Names of parameters and facts in which two settings of one net and size differ."""
    rows = [{**demand.trials.first, "workload": demand.trials.net} for demand in found]
    return differing(rows, columns=_APART)
