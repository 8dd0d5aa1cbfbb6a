import csv
import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from row_strategies import CELLS, storable, texts

from bench.results.csvio import (
    MAX_CELL_CHARACTERS,
    complete_length,
    format_cell,
    format_record,
    parse_cell,
)
from bench.results.schema import BY_NAME

DETAIL = BY_NAME["detail"]


@given(texts)
def test_any_text_reads_back_as_it_was_written(text: str) -> None:
    assert parse_cell(format_cell(text, DETAIL), DETAIL) == (storable(text) or None)


@given(texts)
def test_no_text_cell_starts_as_a_formula(text: str) -> None:
    assert not format_cell(text, DETAIL).startswith(tuple("=+-@\t\r\n"))


@given(st.lists(texts.map(storable), min_size=2))
def test_other_csv_readers_see_the_same_cells(cells: list[str]) -> None:
    line = format_record(cells)
    assert list(csv.reader(io.StringIO(line.decode(), newline=""), strict=True)) == [cells]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("window_s", "float"), ("seed", "int"), ("params_json", "json"), ("compile", "bool")],
)
@given(data=st.data())
def test_every_value_keeps_type_and_every_bit(name: str, kind: str, data: st.DataObject) -> None:
    column, value = BY_NAME[name], data.draw(CELLS[kind])
    read = parse_cell(format_cell(value, column), column)
    assert (type(read), repr(read)) == (type(value), repr(value))


@pytest.mark.parametrize(
    ("name", "value", "cell"),
    [
        ("params_json", '{"b": 1, "a": [1, 2]}', '{"a":[1,2],"b":1}'),
        ("energy_j", None, ""),
        ("compile", True, "1"),
        ("compile", False, "0"),
        ("detail", "=" + "x" * 40_000, "'=" + "x" * (MAX_CELL_CHARACTERS - 5) + "..."),
    ],
)
def test_a_cell_is_written_as(name: str, value: object, cell: str) -> None:
    assert format_cell(value, BY_NAME[name]) == cell  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [("items", "5.0", 5), ("compile", "TRUE", True), ("energy_j", "", None)],
)
def test_a_cell_is_read_as(name: str, text: str, value: object) -> None:
    assert parse_cell(text, BY_NAME[name]) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("window_s", math.nan),
        ("window_s", math.inf),
        ("window_s", "1.0"),
        ("window_s", True),
        ("items", 1.0),
        ("items", True),
        ("items", 2**63),
        ("compile", 1),
        ("detail", 5),
        ("started_utc", "yesterday"),
        ("started_utc", "2030-02-31T00:00:00Z"),
        ("params_json", "{"),
        ("params_json", "[NaN]"),
        ("params_json", '"' + "x" * MAX_CELL_CHARACTERS + '"'),
    ],
)
def test_a_value_of_the_wrong_kind_is_our_mistake(name: str, value: object) -> None:
    with pytest.raises(ValueError):
        format_cell(value, BY_NAME[name])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("window_s", "nan"),
        ("window_s", "inf"),
        ("window_s", "1e999"),
        ("window_s", "1_0"),
        ("window_s", "0x10"),
        ("window_s", "1,5"),
        ("items", "1.5"),
        ("items", "9" * 19),
        ("items", "9" * 5000),
        ("items", "\u0663"),
        ("compile", "2"),
        ("started_utc", "2030-01-31"),
        ("params_json", "[1e999]"),
        ("params_json", "[" * 100_000),
        ("params_json", "9" * 5000),
    ],
)
def test_a_malformed_cell_is_refused(name: str, text: str) -> None:
    with pytest.raises(ValueError):
        parse_cell(text, BY_NAME[name])


@given(st.lists(st.lists(texts.map(storable), min_size=2, max_size=3), max_size=4), st.data())
def test_a_cut_file_ends_at_its_last_whole_record(
    records: list[list[str]], data: st.DataObject
) -> None:
    lines = [format_record(cells) for cells in records]
    whole = b"".join(lines)
    cut = data.draw(st.integers(0, len(whole)))
    ends = [len(b"".join(lines[:count])) for count in range(len(lines) + 1)]
    assert complete_length(whole[:cut]) == max(end for end in ends if end <= cut)


def test_a_stray_quote_is_not_taken_for_a_torn_row() -> None:
    with pytest.raises(ValueError, match="line 2: a quote"):
        complete_length(b'h,i\n1.0,"x\n1.0,y\n1.0,z\n')
