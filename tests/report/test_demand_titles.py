"""No two settings look alike in a table of `bench gap`, and none says more than it takes."""

import json

from bench.analysis.gap.gap_result import GapResult, measure_gap
from bench.report.plots.plots_gap import gap_plots
from bench.report.tables import gap_tables
from bench.results.schema import Row, Value
from tests.analysis.synthetic_rows import trials


def both_phases(number: int, *, params: dict[str, object], **cells: Value) -> list[Row]:
    return [
        row
        for phase in ("train", "infer")
        for row in trials(
            num=3,
            workload=f"imaging-{phase}",
            config_hash=f"{phase}{number}",
            params_json=json.dumps(params),
            **cells,
        )
    ]


def result_of(*parts: list[Row]) -> GapResult:
    return measure_gap([row for part in parts for row in part], load=None, num_items=None)


def names(result: GapResult) -> list[str]:
    return [str(row[0]) for row in gap_tables.gap_grid(result.gaps).rows]


DIFFER: list[tuple[list[dict[str, Value]], list[str]]] = [
    ([{}], [""]),
    ([{"batch": 2, "patch": 32}, {"batch": 4, "patch": 64}], [" b2 patch=32", " b4 patch=64"]),
    ([{"channels_last": False}, {"channels_last": True}], ["", " channels-last"]),
    ([{"data": "generated"}, {"data": "resident"}], [" data generated", " data resident"]),
    (
        [{"workload_version": "1-abc"}, {"workload_version": "2-def"}],
        [" version 1-abc", " version 2-def"],
    ),
]


def test_settings_say_that_in_which_they_differ() -> None:
    for cells, words in DIFFER:
        parts = []
        for number, one in enumerate(map(dict, cells)):
            params = {"patch": one.pop("patch", 32), "filters": 8, "batch": one.get("batch", 2)}
            parts.append(both_phases(number, params=params, **one))
        assert names(result_of(*parts)) == [
            f"imaging-train/infer tiny fp32{word}" for word in words
        ]


def test_other_sizes_have_other_parameters_without_telling_them() -> None:
    result = result_of(
        both_phases(1, params={"patch": 32}), both_phases(2, params={"patch": 64}, size="small")
    )
    assert names(result) == ["imaging-train/infer tiny fp32", "imaging-train/infer small fp32"]


def test_no_two_lines_of_any_table_and_no_two_panels_look_alike() -> None:
    devices = ("Test CPU", "Other CPU")
    result = result_of(
        *(
            both_phases(10 * i + batch, params={"batch": batch}, batch=batch, device_name=device)
            for i, device in enumerate(devices)
            for batch in (2, 4)
        )
    )
    for grid in gap_tables.grids(result, load="", latency=None):
        named = [row[:3] for row in grid.rows]
        assert len(set(named)) == len(named), grid.title
    plots = gap_plots(result.gaps)
    assert plots is not None
    titles = [panel.title for panel in plots.panels]
    assert len(set(titles)) == len(titles) == 4
