from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from result_rows import same, stored_row, write_file
from row_strategies import rows

from bench.core.errors import DataError, IncompatibleError
from bench.results.frame import read_frame
from bench.results.reader import read_rows
from bench.results.schema import BY_NAME, COLUMNS, NAMES, Row, Value


def _value(cell: object, *, kind: str) -> Value:
    if pd.isna(cell):
        return None
    match kind:
        case "int":
            return int(cell)  # type: ignore[call-overload]
        case "float":
            return float(cell)  # type: ignore[arg-type]
        case "bool":
            return bool(cell)
    return str(cell)


def _rows_of(frame: pd.DataFrame) -> list[Row]:
    return [
        {name: _value(record[name], kind=BY_NAME[name].kind) for name in NAMES}
        for record in frame.to_dict("records")
    ]


@settings(max_examples=60, deadline=None)
@given(written=st.lists(rows, max_size=4))
def test_the_frame_equals_the_rows_on_any_valid_file(
    tmp_path_factory: pytest.TempPathFactory, written: list[Row]
) -> None:
    path = write_file(tmp_path_factory.mktemp("frame") / "run.csv", written)
    expected, found = read_rows(path), _rows_of(read_frame([path]))
    assert len(found) == len(expected) == len(written)
    assert all(same(left, right) for left, right in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("12.5", "nan", "column window_s: 'nan': expected a finite number"),
        ("12.5", "inf", "column window_s: 'inf': expected a finite number"),
        ("12.5", "-Infinity", "column window_s: '-Infinity': expected a finite number"),
        ("12.5", "NULL", "column window_s: 'NULL': expected a finite number"),
        (",r1,0,", ",r1,0.5,", "column trial: '0.5': expected a whole number"),
        (",r1,0,", ",r1,True,", "column trial: 'True': expected a whole number"),
        (",r1,0,", ",r1,NA,", "column trial: 'NA': expected a whole number"),
        (",r1,0,", ",r1,,", "column trial: '': must not be blank"),
        (",r1,0,", ",r1,0,0,", "cells where the header has"),
        (",r1,0,", ",r10,", "cells where the header has"),
        (",OK,", ",GOOD,", "column status: 'GOOD'"),
        ("T12:00:00Z", "", "column started_utc"),
        ("{}", "{", "column params_json"),
    ],
)
def test_what_pandas_would_forgive_is_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    row = stored_row(window_s=12.5, started_utc="2030-01-31T12:00:00Z", params_json="{}")
    path = write_file(tmp_path / "run.csv", [row, stored_row(trial=1)])
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(DataError, match="line 2") as caught:
        read_frame([path])
    assert message in str(caught.value)


def test_another_major_schema_is_refused(tmp_path: Path) -> None:
    path = write_file(tmp_path / "run.csv", [stored_row(), stored_row(schema_version="2.0")])
    with pytest.raises(IncompatibleError, match="line 3: schema 2.0"):
        read_frame([path])


def test_several_files_follow_each_other_with_every_column(tmp_path: Path) -> None:
    first = write_file(tmp_path / "a.csv", [stored_row()])
    second = tmp_path / "b.csv"
    second.write_text(
        "schema_version,run_id,trial,status,workload,config_hash,device,novelty\n"
        "1.3,r1,7,OK,imaging-train,c0ffee,cpu,x\n"
    )
    frame = read_frame([first, second])
    assert list(frame.columns) == list(NAMES)
    assert frame["trial"].tolist() == [0, 7]
    assert frame["window_s"].isna().all()
    expected = {"int": "Int64", "float": "float64", "bool": "boolean"}
    for column in COLUMNS:
        if column.kind in expected:
            assert frame[column.name].dtype == expected[column.kind], column.name


def test_no_file_is_an_empty_frame() -> None:
    frame = read_frame([])
    assert list(frame.columns) == list(NAMES)
    assert len(frame) == 0


def test_a_last_line_cut_short_is_noted(tmp_path: Path) -> None:
    path = write_file(tmp_path / "run.csv", [stored_row()])
    path.write_bytes(path.read_bytes() + b"1.0,r1")
    notes: list[str] = []
    assert len(read_frame([path], note=notes.append)) == 1
    assert len(notes) == 1


@pytest.mark.parametrize("digits", [2**53 + 1, -(2**63) + 1, 2**63 - 1])
def test_whole_numbers_that_no_float_holds_are_exact_beside_blanks(
    tmp_path: Path, digits: int
) -> None:
    rows = [stored_row(seed=digits), stored_row(trial=1)]
    frame = read_frame([write_file(tmp_path / "a.csv", rows)])
    assert frame["seed"][0] == digits
    assert frame["seed"].isna().tolist() == [False, True]


def test_a_wrong_cell_far_down_is_found(tmp_path: Path) -> None:
    rows = [stored_row(trial=trial, seed=4) for trial in range(300)]
    path = write_file(tmp_path / "a.csv", [*rows, stored_row(trial=300, seed=987654)])
    path.write_text(path.read_text().replace("987654", "7.5"))
    with pytest.raises(DataError, match="line 302, column seed: '7.5'"):
        read_frame([path])
