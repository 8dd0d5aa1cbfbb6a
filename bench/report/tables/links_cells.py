"""Cells that the tables of links share: which run a line is, its step, its efficiency."""

from __future__ import annotations

from collections.abc import Sequence

from bench.analysis.links import LinkRun
from bench.analysis.scaling import Efficiency
from bench.core.units import format_duration
from bench.report.tables.quantities import share, span
from bench.report.tables.run_table import Line, remedies_of, swept_params, title_of, trials_text

AGAINST = {
    "one device": "of one device: items per second and device over those of one device",
    "compute": (
        "of compute: the step without communication over the whole step, because one device was "
        "not measured in the same mode; what smaller pieces of work lose is not in it"
    ),
}
"""What an efficiency is a share of, as a note."""
WHO = ("link", "mode", "devices>", "layout", "with")
"""Heads of the cells of `who`."""


def swept_among(runs: Sequence[LinkRun]) -> list[str]:
    """Parameters that tell runs of one workload apart."""
    return swept_params([Line(rows=run.rows, usable=run.used) for run in runs])


def workload_title(run: LinkRun, params: Sequence[str]) -> str:
    """Workload with its settings, without mode, devices and link."""
    kept = ("workload", "size", "dtype", "batch", "compile", "channels_last", "params_json")
    return title_of({name: run.first.get(name) for name in kept}, shown_params=params)


def mode_badge(run: LinkRun) -> str:
    """'[emulated]', or 'real'."""
    return run.mode if run.mode == "real" else f"[{run.mode}]"


def who(run: LinkRun) -> tuple[str, ...]:
    """Cells that say which run a line is; under `WHO`."""
    layout = str(run.first.get("layout") or "")
    return (
        run.link,
        mode_badge(run),
        str(run.num_devices),
        layout if " x " in layout else "",
        remedies_of(run.first),
    )


def bracket(run: LinkRun) -> str:
    """Both ends of the step."""
    return "" if run.bracket_s is None else span(*run.bracket_s, format_duration)


def is_host_bound(run: LinkRun) -> bool:
    """Whether in any trial the device waited for the host in most steps."""
    return any("host_bound" in str(row.get("reasons") or "").split(";") for row in run.rows)


def trials(run: LinkRun) -> str:
    """How many trials ended how."""
    return trials_text(run.rows).replace("\n", ", ")


def ms(run: LinkRun, column: str) -> str:
    """Mean of a column in milliseconds, with a unit that suits it."""
    value_ms = run.mean(column)
    return "" if value_ms is None else format_duration(value_ms * 1e-3)


def efficiency_text(found: Efficiency | None) -> str:
    """'93.2 % of compute [91.1, 95.4]'."""
    if found is None:
        return ""
    middle = share(found.share.value)
    interval = found.share.interval
    if interval is not None and share(interval[0]) != share(interval[1]):
        low, high = (f"{end * 100.0:.3g}" for end in interval)
        return f"{middle} of {found.against} [{low}, {high}]"
    return f"{middle} of {found.against}"
