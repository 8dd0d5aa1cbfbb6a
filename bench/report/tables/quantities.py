"""Figures with intervals, ratios and brackets, as all tables print them."""

from __future__ import annotations

from collections.abc import Callable

from bench.analysis.estimates import LogEstimate
from bench.core.units import format_number

Format = Callable[[float], str]


def figure(value: LogEstimate | None, form: Format = format_number, *, prefix: str = "") -> str:
    """'12.3 ms [12.1 ms, 12.5 ms]'; no bracket where trials are too few or nothing varies."""
    if value is None:
        return ""
    interval = value.interval
    told = f"{prefix}{form(value.value)}"
    if interval is None or form(interval[0]) == form(interval[1]):
        return told
    return f"{told} [{form(interval[0])}, {form(interval[1])}]"


def ratio(value: LogEstimate | None) -> str:
    """'x2.31 [2.25, 2.37]'."""
    return figure(value, prefix="x")


def format_ratio(ratio: float | None, *, low: float | None, high: float | None) -> str:
    """'+18.8 % [+14.4, +23.4]', or 'x3.21 [3.10, 3.33]' where a percentage would mislead."""
    if ratio is None:
        return ""
    if 0.5 < ratio < 2.0:
        interval = "" if low is None or high is None else f" [{_percent(low)}, {_percent(high)}]"
        return f"{_percent(ratio)} %{interval}"
    interval = "" if low is None or high is None else f" [{low:.3g}, {high:.3g}]"
    return f"x{ratio:.3g}{interval}"


def change(value: LogEstimate) -> str:
    """A ratio with its interval, as `format_ratio` tells it."""
    low, high = value.interval or (None, None)
    return format_ratio(value.value, low=low, high=high)


def rate(value: LogEstimate | None, *, unit: str) -> str:
    """'38 patch/s [37.1, 39]'."""
    if value is None:
        return ""
    told, interval = f"{format_number(value.value)} {unit}/s", value.interval
    if interval is None:
        return told
    return f"{told} [{format_number(interval[0])}, {format_number(interval[1])}]"


def span(low: float, high: float, form: Format) -> str:
    """'398 ms - 455 ms'."""
    return f"{form(low)} - {form(high)}"


def ratio_span(low: float, high: float, *, beside: float) -> str:
    """'+3.1 to +9.8 %', or 'x2.1 to x3.0', in the form that the ratio `beside` it has."""
    if 0.5 < beside < 2.0:
        return f"{_percent(low)} to {_percent(high)} %"
    return f"x{low:.3g} to x{high:.3g}"


def share(value: float | None) -> str:
    """'12.3 %'; '' where nothing is known."""
    return "" if value is None else f"{value * 100.0:.3g} %"


def _percent(ratio: float) -> str:
    return f"{(ratio - 1.0) * 100.0:+.1f}"
