"""Rows read in bulk are the rows that the exact reader gives, whatever the size of the file."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from result_rows import same, stored_row, write_file
from row_strategies import rows

from bench.core.errors import DataError
from bench.results import bulk
from bench.results.bulk import read_many
from bench.results.reader import read_rows
from bench.results.schema import Row


@pytest.fixture
def any_file_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "LARGE_BYTES", 0)


def filled(row: Row) -> Row:
    return {name: value for name, value in row.items() if value is not None}


@settings(max_examples=40, deadline=None)
@given(written=st.lists(rows, max_size=4))
def test_a_large_file_gives_the_same_cells_without_its_blanks(
    tmp_path_factory: pytest.TempPathFactory, written: list[Row]
) -> None:
    path = write_file(tmp_path_factory.mktemp("bulk") / "run.csv", written)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bulk, "LARGE_BYTES", 0)
        found = read_many([path])
    expected = [filled(row) for row in read_rows(path)]
    assert len(found) == len(expected)
    assert all(same(left, right) for left, right in zip(found, expected, strict=True))


@pytest.mark.usefixtures("any_file_is_large")
def test_only_the_columns_asked_for_and_the_required_ones(tmp_path: Path) -> None:
    path = write_file(tmp_path / "run.csv", [stored_row(batch=4, window_s=1.5, detail="x")])
    (row,) = read_many([path], columns=["batch"])
    assert row["batch"] == 4 and row["workload"] == "imaging-train"
    assert "window_s" not in row and "detail" not in row


def test_small_files_are_read_whole_with_their_blanks(tmp_path: Path) -> None:
    paths = [write_file(tmp_path / name, [stored_row(run_id=name)]) for name in ("a.csv", "b.csv")]
    assert read_many(paths, columns=["batch"]) == [row for path in paths for row in read_rows(path)]


@pytest.mark.usefixtures("any_file_is_large")
def test_what_the_exact_reader_refuses_is_refused(tmp_path: Path) -> None:
    path = write_file(tmp_path / "run.csv", [stored_row(window_s=1.5)])
    path.write_text(path.read_text().replace("1.5", "soon"))
    with pytest.raises(DataError, match="line 2, column window_s"):
        read_many([path])


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_many([tmp_path / "missing.csv"])
