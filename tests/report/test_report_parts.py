"""Small parts of a report: sort keys, thinning, labels, samples that do not fit."""

import gzip
import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes

from bench.analysis.trials.configuration import gather
from bench.report.page import evidence as module
from bench.report.page.evidence import MAX_SAMPLES_BYTES, gather_evidence
from bench.report.plots.kinds import Axis, DrawnMark, interval, tick
from bench.report.plots.panel import draw, short
from bench.report.plots.plots_speed import thinned
from bench.report.tables import cells
from bench.report.tables.run_table import data_lines
from bench.results.store import samples_path
from tests.analysis.synthetic_rows import trials
from tests.report.report_rows import configuration, write_run

CARD = "Graphics card 24 GB"


def test_a_figure_says_its_unit_once_and_sorts_by_its_value() -> None:
    for key, reported, scale, ends in (
        (850e-6, "850 us", cells.seconds, None),
        (12.3e-3, "12.3 ms [12.1, 12.5]", cells.seconds, (12.1e-3, 0.0125)),
        (200.0, "3 min 20 s [3 min 10 s, 2 h 05 min]", cells.seconds, (190.0, 7500.0)),
        (7.82 * 2**30, "7.82 GiB", cells.num_bytes, None),
        (2.2e12, "2.2 TFLOP", cells.of("FLOP"), None),
        (172341.0, "172 ktoken/s [168, 177]", cells.of("token/s"), (167910.0, 176888.0)),
        (9670.0, "9,670 token/s", cells.of("token/s"), None),
        (3.34, "3.34 [3.23, 3.45]", cells.bare, (3.23, 3.45)),
        (0.123, "12.3 %", cells.percent, None),
        (5.0, "5", cells.bare, (5.0, 5.0)),
    ):
        cell = cells.quantity(key, scale, ends=ends)
        assert isinstance(cell, cells.Cell) and (cell.plain, cell.key) == (reported, key)
    made = (
        cells.change(1.176, ends=(1.141, 1.213)),
        cells.change(3.21, ends=(3.1, 3.33)),
        cells.span((0.398, 0.455), cells.seconds),
        cells.change_span((1.031, 1.098), beside=1.05),
    )
    words = ["+17.6 % [+14.1, +21.3]", "x3.21 [3.1, 3.33]", "398 - 455 ms", "+3.1 to +9.8 %"]
    assert [cells.text_of(cell) for cell in made] == words
    assert [getattr(cell, "key", None) for cell in made] == [1.176, 3.21, 0.398, 1.031]
    assert {cells.quantity(None), cells.figure(None), cells.change(None)} == {""}, "not measured"


def test_thinning_keeps_the_extremes_long_names_both_ends_and_ticks_are_short() -> None:
    steps = np.ones(10_000)
    steps[4321], steps[77] = 9.0, 0.1
    places, values = thinned(steps, limit=100)
    assert len(values) <= 100
    assert places[np.argmax(values)] == 4321 and values.max() == 9.0
    assert places[np.argmin(values)] == 77 and values.min() == 0.1
    assert np.all(np.diff(places) > 0)
    assert thinned(steps[:3])[1].tolist() == [1.0, 1.0, 1.0]
    cut = short("Some Accelerator With A Very Long Name 80 GB", length=20)
    assert len(cut) <= 20 and cut.startswith("Some") and cut.endswith("80 GB")
    assert [tick(value) for value in (0.0, 0.02, 2e4, 3e6)] == ["0", "0.02", "20 k", "3 M"]


def drawn(name: str, text: str) -> str:
    def paint(axes: Axes) -> None:
        axes.text(0.5, 0.5, text)
        axes.plot([1, 2])

    return draw(name, title=text, description=text, plot_inches=1.0, paint=paint).svg


def test_plots_share_no_identifier_and_text_in_them_is_neither_formula_nor_markup() -> None:
    first, second = (
        set(part.split('"')[0] for part in drawn(n, "t").split('id="')[1:]) for n in "ab"
    )
    assert first and not first & second
    text = "$\\frac{1}{0}$ <b> & --> ]]> 昇腾"
    svg = drawn("one", text)
    assert "<b>" not in svg and "&lt;b&gt; &amp; --&gt; ]]&gt; 昇腾" in svg
    assert "$\\frac{1}{0}$" in svg


def test_an_axis_is_logarithmic_where_values_lie_decades_apart() -> None:
    def words(*values: float) -> list[str]:
        marks = [DrawnMark(label=f"<{value}>", value=(value, None, None)) for value in values]
        svg = interval("x", title="t", what="w", marks=marks, axis=Axis(label="a & b")).svg
        return [html.unescape(word) for word in re.findall(r"<text[^>]*>([^<]*)</text>", svg)]

    near, far = words(1.0, 2.0), words(1.0, 1000.0)
    assert {"0", "1", "2"} <= set(near) and "1,000" not in near
    assert {"1", "10", "100", "1,000"} <= set(far) and "0" not in far
    assert {"<1.0>", "<1000.0>", "a & b"} <= set(far), "names of lines and of the axis"


def test_a_plot_is_ours_whatever_matplotlib_is_told(tmp_path: Path) -> None:
    rc = tmp_path / "matplotlibrc"
    rc.write_text("axes.grid: False\nlines.linewidth: 40\nfont.size: 3\ntext.usetex: True\n")
    program = (
        "from bench.report.plots.kinds import Axis, DrawnMark, interval\n"
        "marks = [DrawnMark(label='a', value=(2.0, 1.0, 3.0))]\n"
        "print(interval('x', title='t', what='w', marks=marks, axis=Axis(label='a')).svg)\n"
    )
    told = {**os.environ, "MPLBACKEND": "no_such_backend", "MATPLOTLIBRC": str(rc)}
    marks = [DrawnMark(label="a", value=(2.0, 1.0, 3.0))]
    ours = interval("x", title="t", what="w", marks=marks, axis=Axis(label="a")).svg
    command = [sys.executable, "-c", program]
    assert subprocess.check_output(command, env=told, text=True) == f"{ours}\n"


def test_configurations_take_turns_so_that_each_workload_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        row for batch in range(2, 40, 2) for row in configuration("llm-train", CARD, batch=batch)
    ]
    rows += configuration("imaging-infer", CARD)
    monkeypatch.setattr(module, "MAX_SHOWN", 4)
    evidence = gather_evidence([("a", write_run(tmp_path / "a.csv", rows))], note=print)
    workloads = [one.first["workload"] for one in evidence.shown]
    assert workloads == ["llm-train"] * 3 + ["imaging-infer"]
    assert evidence.num_hidden == 16


def test_samples_too_large_to_open_and_damaged_sidecars_are_left_out_with_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_run(tmp_path / "a.csv", configuration("llm-train", CARD), steps=50)
    assert MAX_SAMPLES_BYTES > 2**20
    with monkeypatch.context() as patch:
        patch.setattr(module, "MAX_SAMPLES_BYTES", 10)
        samples, notes = gather_evidence([("a", path)], note=print).samples()
    assert samples == [] and "more than a report opens" in notes[0]
    path.with_name("a.env.json").write_text("{")
    samples_path(path).write_bytes(gzip.compress(json.dumps({"no": "keys"}).encode()))
    reported: list[str] = []
    evidence = gather_evidence([("a", path)], note=reported.append)
    assert evidence.sources[0].sidecar is None
    assert "environment is left out" in reported[0] and evidence.notes == tuple(reported)
    samples, notes = evidence.samples()
    assert samples == [] and "samples are left out" in notes[0]


def test_what_a_batch_of_several_items_holds_is_said_on_average() -> None:
    volumes = {"workload": "imaging-infer", "batch": 1, "distinct_items": 3}
    molecules = {"workload": "molecules-infer", "items_unit": "molecule", "elements_unit": "atom"}
    for cells_of_row, said in (
        (volumes | {"item_sizes": "2 of 8; 1 of 64"}, "2 of 8 voxels, 1 of 64 voxels"),
        (volumes | {"elements_per_item": 9216.0}, "9,216 voxels each"),
        (molecules | {"item_sizes": "16 of 7; 16 of 6"}, "16 of 7 atoms, 16 of 6 atoms on average"),
        (molecules | {"elements_per_item": 6.5}, "6.5 atoms each on average"),
    ):
        row = {"distinct_items": 32, "items_unit": "volume", "data": "content-1"} | cells_of_row
        (line,) = data_lines(gather(trials(num=1, **row)))  # type: ignore[arg-type]
        assert line.endswith(f" of its data: {said}")
