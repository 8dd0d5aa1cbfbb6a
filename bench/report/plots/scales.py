"""Ticks, grid and labels of a panel's axes, drawn as few artists instead of several for each tick.

matplotlib makes a tick of three lines and two texts and lays all of them out several times, which
is half of the time that a small panel takes. Here the places and the words are still those of the
axis's locator and formatter; grid lines are one collection, marks another, and the words are put
into the picture as they are. Margins are fixed, so nothing has to be measured.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Which = Literal["x", "y"]

_MARK_POINTS = 3.5
_PAD_POINTS = 7.0
"""From the axis to the words at a tick: its mark, and as much again."""
_NAME_POINTS = 4.0
"""The same where lines of a panel have names: there is no mark."""
_LABEL_POINTS = 17.0
"""From the axis to the label below the words."""
_DIGIT_POINTS, _GAP_POINTS = 5.4, 4.0
_TICK_SIZE, _LABEL_SIZE = 8.5, 9.0
_FALL = {"top": 0.76, "center": 0.36}
"""From where a text is to stand down to its base line, in its size: figures have no descenders."""
_ANCHORS = {"left": "start", "center": "middle", "right": "end"}


@dataclass(frozen=True, kw_only=True)
class Word:
    """A text beside an axis; places are in points from the lower left corner of the figure."""

    text: str
    x: float
    y: float
    size: float = _TICK_SIZE
    side: str = "center"
    level: str = "center"
    is_upright: bool = False

    def svg(self, *, height: float, ink: str) -> str:
        """Text element of a picture that is `height` points high."""
        x, y = self.x, height - self.y
        turn = f' transform="rotate(-90 {x:.2f} {y:.2f})"' if self.is_upright else ""
        y += _FALL[self.level] * self.size
        style = f"font-size: {self.size}px; text-anchor: {_ANCHORS[self.side]}; fill: {ink}"
        return (
            f'<text style="{style}" x="{x:.2f}" y="{y:.2f}"{turn}>{html.escape(self.text)}</text>'
        )


def name_lines(axes: Axes, names: list[str]) -> None:
    """Give the lines of a panel, at 0, 1, 2, ..., the words beside its vertical axis."""
    from matplotlib.ticker import FixedFormatter, FixedLocator

    axes.yaxis.set_major_locator(FixedLocator(range(len(names))))
    axes.yaxis.set_major_formatter(FixedFormatter(names))


def draw_scales(axes: Axes, *, ink: str, faint: str) -> str:
    """Draw both axes as they are set now, in place of matplotlib; returns the words as SVG."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    words = [*_scale(axes, figure, which="x", colors=(ink, faint)),
             *_scale(axes, figure, which="y", colors=(ink, faint))]  # fmt: skip
    height = float(figure.get_figheight()) * 72.0
    return "\n".join(word.svg(height=height, ink=ink) for word in words if word.text)


def _scale(axes: Axes, figure: Figure, *, which: Which, colors: tuple[str, str]) -> list[Word]:
    from matplotlib.ticker import FixedFormatter

    is_x = which == "x"
    axis = axes.xaxis if is_x else axes.yaxis
    low, high = sorted(axes.get_xlim() if is_x else axes.get_ylim())
    places = [float(place) for place in axis.get_majorticklocs() if low <= place <= high]
    texts = [str(text) for text in axis.get_major_formatter().format_ticks(places)]
    has_names = isinstance(axis.get_major_formatter(), FixedFormatter)
    axis.set_visible(False)
    if places and not has_names:
        _lines(axes, which=which, places=places, colors=colors)
    pad = _NAME_POINTS if has_names else _PAD_POINTS
    words = [
        _beside(axes, figure, which=which, place=place, pad=pad, text=text)
        for place, text in zip(places, texts, strict=True)
    ]
    label = axis.get_label_text()
    return [*words, _label(axes, figure, which=which, text=label, texts=texts)] if label else words


def _lines(axes: Axes, *, which: Which, places: list[float], colors: tuple[str, str]) -> None:
    """Grid lines across the panel, and marks outside it."""
    from matplotlib.collections import LineCollection
    from matplotlib.lines import Line2D
    from matplotlib.markers import TICKDOWN, TICKLEFT

    is_x, none = which == "x", [0.0] * len(places)
    along = axes.get_xaxis_transform() if is_x else axes.get_yaxis_transform()
    ends = [[(place, 0.0), (place, 1.0)] if is_x else [(0.0, place), (1.0, place)]
            for place in places]  # fmt: skip
    grid = LineCollection(ends, colors=colors[1], linewidths=0.6, alpha=0.6, zorder=0.5)
    grid.set_transform(along)
    axes.add_collection(grid, autolim=False)
    marks = Line2D(
        places if is_x else none,
        none if is_x else places,
        linestyle="none",
        marker=TICKDOWN if is_x else TICKLEFT,  # type: ignore[arg-type]
        markersize=_MARK_POINTS,
        markeredgewidth=0.8,
        color=colors[0],
        transform=along,
        clip_on=False,
    )
    axes.add_artist(marks)


def _points(
    axes: Axes, figure: Figure, *, which: Which | None, at: tuple[float, float]
) -> tuple[float, float]:
    """Where a place is in the figure; `which` names the axis along which it is a figure."""
    transform = axes.transAxes
    if which is not None:
        transform = axes.get_xaxis_transform() if which == "x" else axes.get_yaxis_transform()
    x, y = transform.transform(at)
    return float(x) * 72.0 / figure.dpi, float(y) * 72.0 / figure.dpi


def _beside(
    axes: Axes, figure: Figure, *, which: Which, place: float, pad: float, text: str
) -> Word:
    if which == "x":
        x, y = _points(axes, figure, which="x", at=(place, 0.0))
        return Word(text=text, x=x, y=y - pad, level="top")
    x, y = _points(axes, figure, which="y", at=(0.0, place))
    return Word(text=text, x=x - pad, y=y, side="right")


def _label(axes: Axes, figure: Figure, *, which: Which, text: str, texts: list[str]) -> Word:
    if which == "x":
        place, side = axes.xaxis.label.get_position()[0], axes.xaxis.label.get_horizontalalignment()
        x, y = _points(axes, figure, which=None, at=(place, 0.0))
        return Word(text=text, x=x, y=y - _LABEL_POINTS, size=_LABEL_SIZE, side=side, level="top")
    widest = max((len(text) for text in texts), default=0)
    x, y = _points(axes, figure, which=None, at=(0.0, 0.5))
    x -= _PAD_POINTS + _DIGIT_POINTS * widest + _GAP_POINTS + 0.5 * _LABEL_SIZE
    return Word(text=text, x=x, y=y, size=_LABEL_SIZE, is_upright=True)
