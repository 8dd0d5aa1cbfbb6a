"""Typed cells: a figure with its unit and interval, a verdict, a mode, or plain text (a `str`).

Made once where the figure is known, rendered once for the terminal, Markdown and HTML; nothing
reads a cell's text again. A figure's interval is in the figure's own unit: '12.3 ms [12.1, 12.5]'.
A blank cell is '': not measured.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from bench.analysis.trials.titles import LONG, title_of
from bench.core.log_estimate import LogEstimate
from bench.core.units import bytes_scale, duration_scale, format_duration, format_number, si_scale
from bench.results.schema import Value

Ends = tuple[float, float]
Scale = Callable[[float], tuple[float, str]]
"""How many base units a suitable unit has, and its name."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell; it is a figure where it has a `key`."""

    text: str = ""
    aside: str = ""
    """Interval, range or remark, shown quieter beside the text."""
    key: float | None = None
    """Value in base units, by which a page sorts."""
    word: str = ""
    """A verdict or a status, which has a colour."""
    mode: str = ""
    """A mode other than real, with its link where the text has none."""

    @property
    def plain(self) -> str:
        """Everything on one line."""
        mode = f"[{self.mode}]" if self.mode else ""
        return " ".join(part for part in (self.text, self.aside, self.word, mode) if part)

    def __bool__(self) -> bool:
        return bool(self.plain)


AnyCell = Cell | str


def of(unit: str, *, period_s: float = 1.0) -> Scale:
    """Scale of a unit with SI prefixes; of a rate, in a period other than a second."""
    return lambda value: si_scale(value, unit, period_s=period_s)


def plain_unit(unit: str) -> Scale:
    """Scale of a unit that has no prefixes: W, %, tokens."""
    return lambda _: (1.0, unit)


seconds: Scale = duration_scale
num_bytes: Scale = bytes_scale
watts: Scale = plain_unit("W")


def percent(_: float) -> tuple[float, str]:
    """Scale of a share."""
    return 0.01, "%"


def bare(_: float) -> tuple[float, str]:
    """Scale of a figure without a unit."""
    return 1.0, ""


def ends_of(low: float | None, high: float | None) -> Ends | None:
    """Both ends, or None where either is unknown."""
    return None if low is None or high is None else (low, high)


def quantity(
    value: float | None, scale: Scale = bare, *, ends: Ends | None = None, prefix: str = ""
) -> AnyCell:
    """A figure in its unit; ends that print like the figure are left out."""
    if value is None:
        return ""
    form, unit = _form(value, scale)
    low, high = map(form, ends or (value, value))
    aside = "" if low == high else f"[{low}, {high}]"
    return Cell(text=f"{prefix}{form(value)} {unit}".rstrip(), aside=aside, key=value)


def _form(value: float, scale: Scale) -> tuple[Callable[[float], str], str]:
    """How figures near this one print, and their unit."""
    factor, unit = scale(value)
    is_long = scale is seconds and not unit
    return format_duration if is_long else (lambda one: format_number(one / factor)), unit


def figure(value: LogEstimate | None, scale: Scale = bare, prefix: str = "") -> AnyCell:
    """An estimate from trials with its 95 % interval, if there are enough of them."""
    if value is None:
        return ""
    return quantity(value.value, scale, ends=value.interval, prefix=prefix)


def ratio(value: LogEstimate | None) -> AnyCell:
    """'x2.31 [2.25, 2.37]'."""
    return figure(value, prefix="x")


def share(value: float | None) -> AnyCell:
    """'12.3 %'."""
    return quantity(value, percent)


def change(value: float | None, *, ends: Ends | None = None) -> AnyCell:
    """'+18.8 % [+14.4, +23.4]', or 'x3.21 [3.1, 3.33]' where a percentage would mislead."""
    if value is None:
        return ""
    if not 0.5 < value < 2.0:
        return quantity(value, ends=ends, prefix="x")
    aside = f"[{_percent(ends[0])}, {_percent(ends[1])}]" if ends else ""
    return Cell(text=f"{_percent(value)} %", aside=aside, key=value)


def span(ends: Ends | None, scale: Scale) -> AnyCell:
    """'398 - 455 ms'."""
    if ends is None:
        return ""
    form, unit = _form(ends[1], scale)
    return Cell(text=f"{form(ends[0])} - {form(ends[1])} {unit}".rstrip(), key=ends[0])


def change_span(ends: Ends | None, *, beside: float) -> AnyCell:
    """'+3.1 to +9.8 %' or 'x2.1 to x3', in the form that the ratio `beside` it has."""
    if ends is None:
        return ""
    if not 0.5 < beside < 2.0:
        return ratio_span(ends)
    return Cell(text=f"{_percent(ends[0])} to {_percent(ends[1])} %", key=ends[0])


def ratio_span(ends: Ends) -> Cell:
    """'x0.705 to x2.08'."""
    return Cell(text=f"x{format_number(ends[0])} to x{format_number(ends[1])}", key=ends[0])


def title_cell(
    row: Mapping[str, Value], *, shown: Collection[str] = LONG, name: str | None = None
) -> AnyCell:
    """A configuration's title; its mode is a badge, with the link where the title has none."""
    title = title_of(row, shown=[word for word in shown if word != "mode"], name=name)
    badge = str(row.get("mode") or "real")
    if badge == "real":
        return title
    link = "" if "link" in shown else str(row.get("link") or "")
    return Cell(text=title, mode=f"{badge} {link}".rstrip())


def text_of(cell: AnyCell) -> str:
    """A cell on one line."""
    return cell if isinstance(cell, str) else cell.plain


def _percent(value: float) -> str:
    return f"{(value - 1.0) * 100.0:+.1f}"
