"""Requests that came by themselves: how many were in time, and how full the server was.

One line per configuration, over its usable trials. Times are from when a request was to come. An
interval of the share in time is that of the requests, in bursts as they come; of several trials
its ends are means.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from bench.analysis.trials.configuration import Trials
from bench.report.tables import cells
from bench.report.tables.cells import AnyCell, Cell
from bench.report.tables.grid import Grid
from bench.report.tables.run_table import caption_of, configuration_grid

SPARE = ("goodput", "service", "batch", "p50", "send lag p99", "wait", "used")


def open_loop_grid(lines: Sequence[Trials]) -> Grid:
    """One line per configuration; a column in which nothing was measured is left out."""
    grid = configuration_grid(
        lines,
        columns={
            "device": caption_of,
            "arrivals": lambda line: line.text("arrivals"),
            "limit": lambda line: line.text("slo"),
            "in time [95 %]": _in_time,
            "carries [95 %]": _carries,
            "p50": _time("lat_p50_ms"),
            "p99": _time("lat_p99_ms"),
            "first token p99": _time("ttft_p99_ms"),
            "per token p99": _time("tpot_p99_ms"),
            "wait": _time("wait_p50_ms"),
            "service": _time("service_p50_ms"),
            "used": lambda line: cells.share(line.mean("utilisation_frac")),
            "batch": _batch,
            "goodput": lambda line: cells.quantity(line.mean("goodput_per_s"), cells.of("/s")),
            "send lag p99": _time("send_lag_p99_ms"),
        },
    )
    return replace(grid, names=("device", "arrivals", "limit"), spare=SPARE)


def _time(column: str) -> Callable[[Trials], AnyCell]:
    def cell(line: Trials) -> AnyCell:
        value_ms = line.mean(column)
        return cells.quantity(None if value_ms is None else value_ms * 1e-3, cells.seconds)

    return cell


def _in_time(line: Trials) -> AnyCell:
    frac, low, high = (line.mean(f"attainment{end}_frac") for end in ("", "_low", "_high"))
    return cells.quantity(frac, cells.percent, ends=cells.ends_of(low, high))


def _carries(line: Trials) -> AnyCell:
    """The capacity, and what live runs said of it."""
    rate, low, high = (line.mean(f"capacity{end}_per_s") for end in ("", "_low", "_high"))
    found = cells.quantity(rate, cells.of("/s"), ends=cells.ends_of(low, high))
    if isinstance(found, str):
        return found
    words = ", ".join(dict.fromkeys(str(row.get("capacity_is")) for row in line.used))
    return Cell(text=found.text, aside=f"{found.aside} {words}".strip(), key=found.key)


def _batch(line: Trials) -> AnyCell:
    mean, most = line.mean("batch_mean"), line.mean("max_batch")
    return cells.quantity(mean) if most is not None and most > 1 else ""
