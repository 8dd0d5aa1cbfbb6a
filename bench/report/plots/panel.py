"""One small figure as an inline SVG that follows the colours and the font of the page around it.

matplotlib draws with stand-in colours, which become CSS variables afterwards: the same picture then
works in light, in dark and on paper. Panels are narrow (one fits a phone), text stays text, and
what a file says is never taken for mathematics or markup. The style is ours alone, whatever
files or variables of the user tell matplotlib.
"""

from __future__ import annotations

import hashlib
import html
import io
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unicodedata import east_asian_width

from bench.core.log_estimate import LogEstimate
from bench.report.page.content import Plot
from bench.report.tables.grid import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH_INCHES = 4.6
"""440 CSS pixels: a phone shows a panel at four fifths of its size."""
ROW_INCHES = 0.27
_ABOVE_INCHES, _BELOW_INCHES, _LEGEND_LINE_INCHES = 0.08, 0.49, 0.19
LABEL_LENGTH = 36
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
"""Shapes, so that no line of a legend rests on colour alone."""

Value = tuple[float, float | None, float | None]
"""A figure and the ends of its interval."""


def value_of(found: LogEstimate | None) -> Value | None:
    """An estimate as a figure to draw."""
    return None if found is None else (found.value, *(found.interval or (None, None)))


# Stand-ins: no figure of ours uses these by itself.
INK, FAINT, GROUND = "#010203", "#040506", "#070809"
SERIES = ("#a10001", "#a10002", "#a10003", "#a10004", "#a10005", "#a10006", "#a10007")
_VARIABLES = {
    INK: "var(--ink)",
    FAINT: "var(--line)",
    GROUND: "var(--ground)",
    **{color: f"var(--series-{number})" for number, color in enumerate(SERIES, start=1)},
}
_STYLE = {
    **dict.fromkeys(("axes.edgecolor", "grid.color", "xtick.color", "ytick.color"), FAINT),
    **dict.fromkeys(("xtick.labelcolor", "ytick.labelcolor", "text.color", "axes.labelcolor"), INK),
    **dict.fromkeys(("axes.facecolor", "figure.facecolor"), "none"),
    **dict.fromkeys(("axes.grid", "axes.axisbelow"), True),
    **dict.fromkeys(("font.size", "axes.labelsize"), 9.0),
    **dict.fromkeys(("legend.fontsize", "xtick.labelsize", "ytick.labelsize"), 8.5),
    **dict.fromkeys(("text.parse_math", "legend.frameon", "axes.spines.top", "axes.spines.right",
                     "axes.unicode_minus", "axes.formatter.use_mathtext"), False),
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "grid.linewidth": 0.6,
    "grid.alpha": 0.6,
    "lines.markersize": 6.5,
}  # fmt: skip


def color_of(number: int) -> str:
    """Colour of the series with this number; the eighth looks like the first, marker apart."""
    return SERIES[number % len(SERIES)]


def marker_of(number: int) -> str:
    """Shape of the series with this number."""
    return MARKERS[number % len(MARKERS)]


def short(text: str, *, length: int = LABEL_LENGTH) -> str:
    """Text that fits beside an axis: cut in the middle, since names differ at their ends."""
    text = plain(text)
    if len(text) <= length:
        return text
    head = (length - 1) * 2 // 3
    return f"{text[:head].rstrip()}…{text[len(text) - (length - 1 - head) :].lstrip()}"


def label_inches(labels: Sequence[str]) -> float:
    """Room that the labels of a vertical axis take, in a font that is as wide as they get."""
    widths = [
        sum(2 if east_asian_width(character) in "WF" else 1 for character in short(label))
        for label in labels
    ]
    return 0.2 + 0.07 * max(widths, default=0)


def draw(
    name: str,
    *,
    title: str,
    description: str,
    plot_inches: float,
    paint: Callable[[Axes], None],
    left_inches: float = 0.78,
    num_legend_lines: int = 0,
    legend_columns: int = 1,
) -> Plot:
    """Draw one panel; `name` makes its inner identifiers unique in the page.

    Margins are given, not found by trial: that takes half the time, and the font is the reader's.
    """
    with _own_style(svg_name=name):
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        below_inches = _BELOW_INCHES + _LEGEND_LINE_INCHES * num_legend_lines
        height_inches = _ABOVE_INCHES + plot_inches + below_inches
        figure = Figure(figsize=(WIDTH_INCHES, height_inches))
        FigureCanvasSVG(figure)
        left = left_inches / WIDTH_INCHES
        area = (left, below_inches / height_inches, 0.97 - left, plot_inches / height_inches)
        axes = figure.add_axes(area)
        paint(axes)
        if num_legend_lines:
            figure.legend(
                loc="lower left", ncols=legend_columns, borderaxespad=0.0, handletextpad=0.5
            )
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    title, description = plain(title), plain(description)
    svg = _themed(buffer.getvalue(), name=name, title=title, description=description)
    return Plot(title=title, description=description, svg=svg)


@contextmanager
def _own_style(*, svg_name: str) -> Iterator[None]:
    """matplotlib with our settings alone; a backend named by the user is never looked up."""
    set_by_user = {name: os.environ.pop(name, None) for name in ("MPLBACKEND", "MATPLOTLIBRC")}
    try:
        import matplotlib
    finally:
        os.environ.update({name: value for name, value in set_by_user.items() if value is not None})
    with matplotlib.rc_context(), warnings.catch_warnings():
        # The reader's own fonts show the text; that ours lack a glyph does not matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        matplotlib.rcdefaults()
        settings: dict[Any, Any] = {**_STYLE, "svg.hashsalt": svg_name}
        matplotlib.rcParams.update(settings)
        yield


def _themed(text: str, *, name: str, title: str, description: str) -> str:
    """Inline SVG out of a whole file: colours, names and a text alternative."""
    body = text[text.index("<svg") :]
    head, _, rest = body.partition(">")
    view_box = re.search(r'viewBox="[^"]*"', head)
    assert view_box is not None  # matplotlib always writes one
    key = hashlib.sha256(name.encode()).hexdigest()[:8]
    rest = re.sub(r"<metadata>.*?</metadata>", "", rest, flags=re.DOTALL)
    rest = re.sub(r'<g id="[^"]*"', "<g", rest)
    rest = re.sub(r'(<[a-zA-Z]+ [^<>]*?)\bid="', rf'\1id="{key}-', rest)
    rest = rest.replace("url(#", f"url(#{key}-").replace('xlink:href="#', f'href="#{key}-')
    for color, variable in _VARIABLES.items():
        rest = rest.replace(color, variable)
    rest = re.sub(r"font: ([0-9.]+)px [^;\"]*", r"font-size: \1px", rest)
    return (
        f'<svg role="img" aria-labelledby="{key}-title {key}-desc" {view_box[0]}>'
        f'<title id="{key}-title">{html.escape(title)}</title>'
        f'<desc id="{key}-desc">{html.escape(description)}</desc>{rest.strip()}'
    )
