"""A panel's scales: the words matplotlib would write, where it would write them, as plain SVG."""

import re

import pytest
from matplotlib.axes import Axes

from bench.report.plots.marks import dots, label_below, log_axis
from bench.report.plots.panel import draw


def drawn(paint: object) -> str:
    return draw("x", title="t", description="d", plot_inches=2.0, paint=paint).svg  # type: ignore[arg-type]


def words(svg: str) -> dict[str, tuple[float, float]]:
    found = re.findall(
        r'<text style="[^"]*" x="([-0-9.]+)" y="([-0-9.]+)"[^>]*>([^<]*)</text>', svg
    )
    return {text: (float(x), float(y)) for x, y, text in found}


def line(axes: Axes) -> None:
    axes.plot([1.0, 1000.0], [20.0, 60.0])
    log_axis(axes, values=[1.0, 1000.0], which="x")
    axes.set_ylim(20.0, 60.0)
    axes.locator_params(axis="y", nbins=4)
    label_below(axes, "below & beside")
    axes.set_ylabel("upright")


def test_words_follow_the_axis_from_left_to_right_and_from_below_to_above() -> None:
    places = words(drawn(line))
    across = [places[word] for word in ("1", "10", "100", "1 k")]
    assert [x for x, _ in across] == sorted(x for x, _ in across)
    assert len({y for _, y in across}) == 1
    # Decades are equally far apart on a logarithmic axis.
    gaps = [right[0] - left[0] for left, right in zip(across, across[1:], strict=False)]
    assert gaps == pytest.approx([gaps[0]] * 3, abs=0.05)
    upwards = [places[word] for word in ("20", "40", "60")]
    assert [y for _, y in upwards] == sorted((y for _, y in upwards), reverse=True)


def test_labels_lie_outside_the_words_and_are_escaped() -> None:
    svg = drawn(line)
    places = words(svg)
    assert places["below &amp; beside"][1] > places["10"][1]
    assert places["upright"][0] < places["20"][0]
    assert "rotate(-90" in svg


def test_each_line_of_dots_has_its_name_and_no_tick() -> None:
    def paint(axes: Axes) -> None:
        dots(
            axes,
            values=[(1.0, 0.9, 1.1), (2.0, None, None)],
            labels=["first <b>", "second"],
            numbers=[0, 1],
            is_hollow=[False, True],
        )

    places = words(drawn(paint))
    assert places["first &lt;b&gt;"][1] < places["second"][1]
    assert places["second"][0] == places["first &lt;b&gt;"][0]


def test_matplotlib_draws_no_ticks_beside_ours() -> None:
    svg = drawn(line)
    assert "xtick" not in svg and "ytick" not in svg
    assert len(re.findall(">100<", svg)) == 1
