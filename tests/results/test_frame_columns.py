"""`read_frame` with some columns only: the same cells, and the required ones always."""

from pathlib import Path

import pytest
from result_rows import stored_row, write_file

from bench.core.errors import DataError
from bench.results.frame import read_frame
from bench.results.plain import is_plain
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


@pytest.mark.parametrize("digits", [2**53 + 1, 2**60 + 1, -(2**63) + 1, 2**63 - 1])
def test_whole_numbers_that_no_float_holds_are_exact_beside_blanks(
    tmp_path: Path, digits: int
) -> None:
    rows = [stored_row(seed=digits), stored_row(trial=1)]
    frame = read_frame([write_file(tmp_path / "a.csv", rows)])
    assert frame["seed"][0] == digits
    assert frame["seed"].isna().tolist() == [False, True]


@pytest.mark.parametrize("digits", ["-9223372036854775808", "9223372036854775808", "1e19"])
def test_whole_numbers_beyond_64_bits_are_refused(tmp_path: Path, digits: str) -> None:
    path = write_file(tmp_path / "a.csv", [stored_row(seed=12345)])
    path.write_text(path.read_text().replace("12345", digits))
    with pytest.raises(DataError, match="line 2, column seed.*64 bits"):
        read_frame([path])


@pytest.mark.parametrize("cell", ["seven", "True", "7.5"])
def test_a_wrong_cell_far_down_is_found(tmp_path: Path, cell: str) -> None:
    """pandas reads a file in stretches of some thousand rows, each by itself."""
    rows = [stored_row(trial=trial, seed=4) for trial in range(5000)]
    path = write_file(tmp_path / "a.csv", [*rows, stored_row(trial=5000, seed=987654)])
    path.write_text(path.read_text().replace("987654", cell))
    with pytest.raises(DataError, match=f"line 5002, column seed: '{cell}'"):
        read_frame([path])


def test_texts_are_categories_in_the_order_of_the_alphabet(tmp_path: Path) -> None:
    rows = [stored_row(trial=i, size=size) for i, size in enumerate(["tiny", "base", "'=x", "b"])]
    frame = read_frame([write_file(tmp_path / "a.csv", rows)])
    assert list(frame["size"].cat.categories) == ["'=x", "b", "base", "tiny"]
    assert frame["size"].sort_values().tolist() == ["'=x", "b", "base", "tiny"]


def test_two_texts_that_are_one_once_read_are_one_category(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.csv", [stored_row(size="=x"), stored_row(trial=1, size="yyy")])
    path.write_text(path.read_text().replace("yyy", "=x"))  # as by hand, without the apostrophe
    assert list(read_frame([path])["size"].cat.categories) == ["=x"]


# Plain bytes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"1,2,3\n", True),
        (b'1,"a ""b"", c\nd",3\n', True),
        (b"1,banana,3\n", True),
        (b"1,loss is nan at once,3\n", True),
        (b"1,nano,3\n", True),
        (b"1,nan,3\n", False),
        (b"1, NaN ,3\n", False),
        (b"1,2,-nAn\n", False),
        (b'1,"nan",3\n', False),
        (b"1," + b" " * 100 + b"nan,3\n", False),
        (b"1,2\n1,2,3,4\n", True),  # pandas itself refuses the long one
        (b"1,2\n", False),
        (b"1,2,3", False),
        (b"1,2,3\r\n", False),
        (b"1,\0,3\n", False),
        (b'1,a"b",3\n', False),
        (b'1,"b"a,3\n', False),
        (b'1,"b,3\n', False),
        (b"\n1,2,3\n", False),
    ],
)
def test_only_what_pandas_cannot_misread_is_plain(body: bytes, expected: bool) -> None:
    assert is_plain(b"a,b,c\n" + body) == expected


def test_pieces_of_a_large_file_make_no_difference_to_what_is_plain() -> None:
    row = b'1,"a ""b"", c",' + b"x" * 1000 + b"\n"
    many = b"a,b,c\n" + row * 1500  # several pieces, cut within quotes and cells
    assert is_plain(many)
    assert not is_plain(many + b"1,nan,3\n")
    assert not is_plain(many + b"1,2\n")
