"""`read_frame` with some columns only: the same cells, and the required ones always."""

from pathlib import Path

from bench.results.frame import read_frame
from bench.results.schema import REQUIRED
from tests.analysis.synthetic_rows import trials, write_csv


def test_some_columns_are_the_same_as_all_of_them(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", trials(num=3))
    some = read_frame([path], columns=["dtype", "steps"])
    assert set(some.columns) == {*REQUIRED, "dtype", "steps"}
    assert some.equals(read_frame([path])[list(some.columns)])


def test_the_exact_reader_gives_the_same_columns(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", trials(num=3))
    fast = read_frame([path], columns=["dtype", "steps"])
    path.write_text(path.read_text().replace("\n", "\r\n"), newline="")
    assert read_frame([path], columns=["dtype", "steps"]).equals(fast)


def test_no_files_give_the_columns_asked_for() -> None:
    assert "steps" in read_frame([], columns=["steps"])
    assert "batch" not in read_frame([], columns=["steps"])
