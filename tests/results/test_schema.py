"""What the schema's columns look like as cells, as any row of them, and on the page."""

import csv
import io
import json
import math
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.nouns import Status
from bench.results.beside_rows import failures_path, profiles_path
from bench.results.record_text import (
    MAX_CELL_CHARACTERS,
    canonical_json,
    complete_length,
    format_cell,
    format_record,
    parse_cell,
)
from bench.results.schema import (
    BY_NAME,
    COLUMNS,
    NAMES,
    REASONS,
    REQUIRED,
    SCHEMA_VERSION,
    SIGNED,
    STATUSES,
    Kind,
)
from bench.results.store import samples_path, sidecar_path
from scripts.results_readme import KINDS, README, results_readme


def storable(text: str) -> str:
    """What becomes of a text that a UTF-8 file cannot hold."""
    return "".join("\ufffd" if c == "\0" or "\ud800" <= c <= "\udfff" else c for c in text)


texts = st.one_of(st.text(alphabet="=+-@\t\r\n'\",; \0a\ud800é", max_size=12), st.text(max_size=40))
json_texts = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
).map(lambda value: canonical_json(json.dumps(value)))

CELLS = {
    "str": texts.map(lambda text: storable(text) or None),
    "utc": st.datetimes().map(lambda moment: moment.isoformat(timespec="seconds") + "Z"),
    "json": json_texts,
    "bool": st.booleans(),
    "int": st.integers(-(2**63) + 1, 2**63 - 1),
    "float": st.floats(allow_nan=False, allow_infinity=False),
}
GIVEN = {
    "schema_version": st.just(SCHEMA_VERSION),
    "run_id": st.just("r1"),
    "trial": st.integers(0, 99),
    "status": st.sampled_from(["OK", "WARN", "INVALID", "FAILED", "SKIPPED"]),
    "reasons": st.sampled_from([None, "drift", "drift;steal"]),
    **dict.fromkeys(("workload", "config_hash", "device"), st.text("ab,'=", min_size=1)),
}
# A dozen columns of every kind vary; hundreds of draws per row would only slow hypothesis down.
VARIED = ("detail", "started_utc", "params_json", "compile", "seed", "window_s", "lat_p50_ms")
TIMES = dict.fromkeys(("window_s", "lat_p50_ms"), st.none() | st.floats(0, allow_infinity=False))
rows = st.fixed_dictionaries(
    GIVEN | {name: st.none() | CELLS[BY_NAME[name].kind] for name in VARIED} | TIMES
).map(lambda cells: {name: cells.get(name) for name in NAMES})

WRONG_VALUES: dict[str, list[Any]] = {
    "window_s": [math.nan, math.inf, "1.0", True],
    "items": [1.0, True, 2**63],
    "compile": [1],
    "detail": [5],
    "started_utc": ["yesterday", "2030-02-31T00:00:00Z"],
    "params_json": ["{", "[NaN]", '"' + "x" * MAX_CELL_CHARACTERS + '"'],
}
WRONG_TEXTS: dict[str, list[Any]] = {
    "window_s": ["nan", "inf", "1e999", "1_0", "0x10", "1,5"],
    "items": ["1.5", "9" * 19, "9" * 5000, "\u0663"],
    "compile": ["2"],
    "started_utc": ["2030-01-31"],
    "params_json": ["[1e999]", "[" * 100_000, "9" * 5000],
}


@given(texts)
def test_any_text_reads_back_and_none_starts_as_a_formula(text: str) -> None:
    detail = BY_NAME["detail"]
    cell = format_cell(text, detail)
    assert parse_cell(cell, detail) == (storable(text) or None)
    assert not cell.startswith(tuple("=+-@\t\r\n"))


@given(st.lists(texts.map(storable), min_size=2))
def test_other_csv_readers_see_the_same_cells(cells: list[str]) -> None:
    line = format_record(cells)
    assert list(csv.reader(io.StringIO(line.decode(), newline=""), strict=True)) == [cells]


def test_cells_are_written_and_read_as_here_and_wrong_ones_refused() -> None:
    for name, value, cell in [
        ("params_json", '{"b": 1, "a": [1, 2]}', '{"a":[1,2],"b":1}'),
        ("energy_j", None, ""),
        ("compile", True, "1"),
        ("compile", False, "0"),
        ("detail", "=" + "x" * 40_000, "'=" + "x" * (MAX_CELL_CHARACTERS - 5) + "..."),
    ]:
        assert format_cell(value, BY_NAME[name]) == cell
    for name, cell, value in [
        ("items", "5.0", 5),
        ("compile", "TRUE", True),
        ("energy_j", "", None),
    ]:
        assert parse_cell(cell, BY_NAME[name]) == value
    for function, wrong in ((format_cell, WRONG_VALUES), (parse_cell, WRONG_TEXTS)):
        for name, cells in wrong.items():
            for wrong_cell in cells:
                with pytest.raises(ValueError):
                    pytest.fail(f"{name}: {function(wrong_cell, BY_NAME[name])!r}")


@given(st.lists(st.lists(texts.map(storable), min_size=2, max_size=3), max_size=4), st.data())
def test_a_cut_file_ends_at_its_last_whole_record(
    records: list[list[str]], data: st.DataObject
) -> None:
    lines = [format_record(cells) for cells in records]
    whole = b"".join(lines)
    cut = data.draw(st.integers(0, len(whole)))
    ends = [len(b"".join(lines[:count])) for count in range(len(lines) + 1)]
    assert complete_length(whole[:cut]) == max(end for end in ends if end <= cut)
    with pytest.raises(ValueError, match="line 2: a quote"):  # no torn row
        complete_length(b'h,i\n1.0,"x\n1.0,y\n1.0,z\n')


def test_the_committed_page_is_the_schemas_and_has_a_line_for_each_name() -> None:
    assert README.read_text() == results_readme(), (
        "run python -m scripts.results_readme and commit results/README.md"
    )
    lines = results_readme().partition("## Files")[2].splitlines()
    beside = (sidecar_path, samples_path, profiles_path, failures_path)
    files = [of(Path("<stem>.csv")).name for of in beside]
    for name in [*BY_NAME, *REASONS, *STATUSES, *KINDS, *files]:
        assert sum(line.startswith(f"| `{name}` | ") for line in lines) == 1, name
    assert set(STATUSES) == set(get_args(Status))
    assert {column.kind for column in COLUMNS} == set(KINDS) == set(get_args(Kind))
    assert len(BY_NAME) == len(COLUMNS)
    assert COLUMNS[0].name == "schema_version"
    assert set(REQUIRED) | set(SIGNED) <= set(BY_NAME)
