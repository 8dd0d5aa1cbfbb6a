"""Rows of several devices and modelled links: which they are, what they are called, their table.

Speed-up is told only against one device of the same mode: an emulated row never borrows a real one.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.report.content import without_blank_columns
from bench.report.evidence import Shown
from bench.report.grid import Grid
from bench.report.panel import Value
from bench.report.plots_speed import in_figures, mean_of
from bench.report.run_table import trials_text


def swept(shown: Sequence[Shown]) -> list[Shown]:
    """Rows with several devices or a modelled link, and one device on the same terms."""
    terms = {terms_of(one)[1:] for one in shown if is_wide(one)}
    return [one for one in shown if terms_of(one)[1:] in terms]


def is_wide(one: Shown) -> bool:
    """Whether several devices or a modelled link took part."""
    row = one.line.first
    return bool(row.get("link") or row.get("parallel") or count_of(one) > 1)


def count_of(one: Shown) -> int:
    """Devices that took part."""
    count = one.line.first.get("device_count")
    return count if isinstance(count, int) and count > 0 else 1


def kind_of(one: Shown) -> str:
    """How a sweep's curve is called: device, parallelism, link, batch, and the mode in brackets."""
    row = one.line.first
    name = str(row.get("device_name") or row["device"])
    parts = [name, str(row.get("parallel") or ""), str(row.get("link") or ""), one.file]
    parts += [f"b{row['batch']}" if row.get("batch") is not None else ""]
    parts += [str(row.get("dtype") or ""), "" if one.mode == "real" else f"[{one.mode}]"]
    return " ".join(part for part in parts if part)


def sweep_grid(shown: Sequence[Shown]) -> Grid:
    """Throughput and efficiency by number of devices and link."""
    alone, rows = single_devices(shown), []
    for one in sorted(shown, key=lambda one: (str(one.line.first["workload"]), count_of(one))):
        row, value = one.line.first, mean_of(one, "throughput_per_s")
        per_device = None if value is None else value[0] / count_of(one)
        reference = alone.get(terms_of(one))
        speed = None if reference is None else mean_of(reference, "throughput_per_s")
        rows.append(
            (
                f"{row['workload']} {row.get('size') or ''}".strip(),
                f"[{one.mode}]" if one.mode != "real" else "real",
                str(row.get("parallel") or ""),
                str(row.get("link") or ""),
                str(row.get("device_name") or row["device"]),
                one.file,
                str(count_of(one)),
                "" if value is None else in_figures(value, unit=f"{unit_of(one)}/s"),
                _share(per_device, of=speed),
                trials_text(one.line),
            )
        )
    heads = ("workload", "mode", "parallel", "link", "device", "file", "devices>", "throughput>",
             "of linear>", "trials")  # fmt: skip
    note = (
        "of linear: items per second and device over those of one device with the same settings, "
        "mode and link; blank where one device was not measured that way"
    )
    return without_blank_columns(Grid(heads=heads, rows=rows, notes=(note,)))


def _share(value: float | None, *, of: Value | None) -> str:
    return "" if value is None or of is None else f"{value / of[0] * 100:.3g} %"


def single_devices(shown: Sequence[Shown]) -> dict[tuple[object, ...], Shown]:
    """One device on each set of terms; a real one stands for real ones only."""
    single = (one for one in shown if count_of(one) == 1 and one.line.usable)
    return {terms_of(one): one for one in single}


def terms_of(one: Shown) -> tuple[object, ...]:
    """Mode, file and settings: what two numbers of devices must share to be compared."""
    row = one.line.first
    names = ("workload", "workload_version", "size", "dtype", "batch", "device_name")
    return one.mode, one.file, *(row.get(name) for name in names)


def unit_of(one: Shown) -> str:
    """What an item is."""
    return str(one.line.first.get("items_unit") or "item")
