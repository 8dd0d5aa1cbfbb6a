"""What a spreadsheet saves again is read as what it was, or refused with line and column."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from result_rows import UTC, file_bytes, small_row, stored_row, write_file
from test_schema import rows
from typer.testing import CliRunner

from bench.analysis.projection.published_ratios import COLUMNS as RATIO_COLUMNS
from bench.cli import app
from bench.core.errors import BenchError, DataError
from bench.core.separated import decimal_mark, decoded, plain_number, separated, unmarked
from bench.hardware.links.curves import COLUMNS as LINK_COLUMNS
from bench.hardware.links.curves import Point, read_points, read_table
from bench.results.reader import parse_rows, read_rows
from bench.results.schema import COLUMNS, Row

NUMBERS = {"schema_version", *(one.name for one in COLUMNS if one.kind in ("int", "float"))}
LINK_NUMBERS = set(LINK_COLUMNS[1:])
LINKS = st.lists(
    st.tuples(
        st.sampled_from(["all_reduce", "All-to-All", "send"]),
        st.integers(2, 4096),
        st.integers(1, 2**40),
        st.floats(1e-3, 1e9),
    ),
    min_size=1,
    max_size=6,
)
HABITS = st.fixed_dictionaries(
    {
        "separator": st.sampled_from(",;\t"),
        "mark": st.sampled_from(".,"),
        "end": st.sampled_from(["\n", "\r\n"]),
        "has_sep_line": st.booleans(),
        "num_blank": st.integers(0, 3),
        "space": st.sampled_from(["", " "]),
        "quoting": st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
        "encoding": st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    }
)
"""What spreadsheets do to a file that they open and save."""


def saved_again(data: bytes, habits: dict[str, Any], *, numbers: set[str]) -> bytes:
    header, *records = csv.reader(io.StringIO(data.decode(), newline=""))
    text = io.StringIO(newline="")
    separator, end, blank = habits["separator"], habits["end"], [""] * habits["num_blank"]
    if habits["has_sep_line"]:
        text.write(f"sep={separator}{end}")
    # Python leaves a carriage return without quotes, which no spreadsheet does.
    quoting = csv.QUOTE_ALL if b"\r" in data else habits["quoting"]
    writer = csv.writer(text, delimiter=separator, lineterminator=end, quoting=quoting)
    writer.writerow([*(f"{name}{habits['space']}" for name in header), *blank])
    for cells in records:
        spelled = [
            cell.replace(".", habits["mark"]) if name in numbers else cell
            for name, cell in zip(header, cells, strict=True)
        ]
        writer.writerow([*spelled, *blank])
    return text.getvalue().encode(habits["encoding"])


def read_result(data: bytes) -> list[Row]:
    return parse_rows(data, path=Path("run.csv"), note=lambda text: pytest.fail(text))


def link_bytes(points: list[tuple[str, int, int, float]]) -> bytes:
    lines = [",".join(LINK_COLUMNS), *(",".join(map(str, point)) for point in points)]
    return "".join(f"{line}\n" for line in lines).encode()


@given(st.lists(rows, max_size=4), HABITS)
def test_a_result_file_saved_by_a_spreadsheet_is_the_same_rows(
    given_rows: list[Row], habits: dict[str, Any]
) -> None:
    data = file_bytes(given_rows)
    again = saved_again(data, habits, numbers=NUMBERS)
    assert read_result(again) == read_result(data)


def _points_of(data: bytes) -> list[Point]:
    return read_points(decoded(unmarked(data, what="t.csv"), what="t.csv"), what="t.csv")


@given(LINKS, HABITS, st.binary(max_size=12), st.randoms())
def test_a_link_table_saved_by_a_spreadsheet_is_the_same_points_or_refused_in_one_line(
    points: list[tuple[str, int, int, float]], habits: dict[str, Any], junk: bytes, choose: Random
) -> None:
    data = link_bytes(points)
    again = saved_again(data, habits, numbers=LINK_NUMBERS)
    # Three digits after a comma alone, as in 1,234, are a decimal only between semicolons.
    shows_its_mark = any(len(str(point[3]).partition(".")[2]) != 3 for point in points)
    if habits["separator"] == ";" or habits["mark"] == "." or shows_its_mark:
        assert _points_of(again) == _points_of(data)
    place = choose.randrange(len(again))
    try:
        assert _points_of(again[:place] + junk + again[place + len(junk) // 2 :])
    except BenchError as error:
        assert str(error).startswith("t.csv: ") and "\n" not in str(error)


@given(
    st.lists(rows, min_size=1, max_size=4),
    HABITS,
    st.data(),
    st.sampled_from(["nan", "inf", "-1e999", "fast", "04. Mai", "1.2.3", "1,2,3", "#####", "0x10"]),
)
def test_a_damaged_figure_is_refused_with_its_line_and_column(
    given_rows: list[Row], habits: dict[str, Any], data: st.DataObject, junk: str
) -> None:
    broken = data.draw(st.integers(0, len(given_rows) - 1))
    # Cells of several lines would make the count of lines a second reader of its own.
    whole = [{**row, "detail": None, "power_mean_w": 1.5} for row in given_rows]
    whole[broken]["power_mean_w"] = 987654.5
    habits = habits | {"quoting": csv.QUOTE_ALL, "encoding": "utf-8-sig"}
    again = saved_again(file_bytes(whole), habits, numbers=NUMBERS)
    before, after = again.split(f'"987654{habits["mark"]}5"'.encode())
    line = before.count(b"\n") + 1
    with pytest.raises(DataError, match=rf"\Arun\.csv: line {line}, column power_mean_w: .*\Z"):
        read_result(before + f'"{junk}"'.encode() + after)


def test_a_number_of_two_readings_is_refused_unless_the_file_tells() -> None:
    def mark(*cells: str, separator: str = ",") -> str:
        return decimal_mark(separated(f"a{separator}b\n", what="f.csv"), numbers=cells)

    assert mark("1.5", "1,234") == "." and mark("1,5", "1.234") == "," and mark("2", "1.234") == "."
    assert mark("0,123") == mark("1,234", separator=";") == ","
    with pytest.raises(DataError, match=r"'1,234' may be a decimal comma or a thousand"):
        mark("1,234", "7")
    for text in ("1,234,567.5", "1.234.567,5", "1'234'567.5", "1\u202f234\xa0567,5"):
        assert plain_number(text, mark=text[-2]) == "1234567.5", text


REWRITTEN = [
    ("config_hash", "c0ffee", "1.23E+15", "a spreadsheet or a script made a number of this hash"),
    ("run_id", "r1", "8,11E+56", "a spreadsheet or a script made a number of this hash"),
    ("run_id", "r1", "8.1074e+56", "a spreadsheet or a script made a number of this hash"),
    ("config_hash", "c0ffee", "inf", "a spreadsheet or a script made a number of this hash"),
    ("started_utc", UTC, "31.01.2030 12:00", "rewritten by a spreadsheet"),
    ("window_s", "12.5", "12. Mai", "rewritten by a spreadsheet"),
    ("window_s", "12.5", "Mai 12", "rewritten by a spreadsheet"),
    ("window_s", "12.5", "-12.5", "expected 0 or more"),
    ("throughput_per_s", "81.25", "-81.25", "expected 0 or more"),
    ("items", "1016", "-1016", "expected 0 or more"),
]


@pytest.mark.parametrize(("column", "old", "new", "words"), REWRITTEN)
def test_what_a_spreadsheet_rewrote_or_nothing_can_be_is_named(
    tmp_path: Path, column: str, old: str, new: str, words: str
) -> None:
    cells = {"window_s": 12.5, "throughput_per_s": 81.25, "items": 1016, "started_utc": UTC}
    path = write_file(tmp_path / "a.csv", [stored_row(trial=n, **cells) for n in range(2)])
    header, first, second = path.read_text().splitlines()
    assert f",{old}," in second
    damaged = second.replace(f",{old},", f',"{new}",')
    path.write_text(f"{header}\n{first}\n{damaged}\n")
    result = CliRunner().invoke(app, ["gap", str(path)], standalone_mode=False)
    message = str(result.exception)
    assert f"a.csv: line 3, column {column}: '{new}': " in message and words in message
    # A time that went backwards is why a trial is invalid; its row stays readable.
    if "more" in words:
        path.write_text(path.read_text().replace(",OK,", ",INVALID,"))
        assert read_rows(path)[1][column] == pytest.approx(float(new))


def test_a_time_with_a_space_and_a_last_line_without_an_end_are_read(tmp_path: Path) -> None:
    row = small_row(started_utc=UTC)
    path = write_file(tmp_path / "a.csv", [{"schema_version": "1.0", "run_id": "r1", **row}] * 2)
    text = path.read_text().replace("T12:00:00Z", " 12:00:00").replace("\n1.0,", "\n1,")
    path.write_bytes(text.replace("\n", "\r\n").rstrip().encode())
    read = read_rows(path)
    assert [one["started_utc"] for one in read] == [UTC] * 2
    assert read[0]["schema_version"] == "1"


def _ends(*words: str) -> str:
    result = CliRunner().invoke(app, list(words), standalone_mode=False)
    return str(result.exception) if isinstance(result.exception, BenchError) else result.output


def test_files_of_a_german_spreadsheet_give_the_same_answer(
    shared_case: Callable[[str], Path],
) -> None:
    files = sorted(shared_case("17-excel-de").glob("*.csv"))
    answers = {path.stem: _ends("gap", str(path)) for path in files}
    assert "line 2 is not UTF-8 text; in a spreadsheet save as 'CSV UTF-8'" in answers.pop("cp1252")
    assert len(answers) == 6 and len(set(answers.values())) == 1
    assert "Training over inference" in answers["german"]


def test_hashes_that_a_spreadsheet_rewrote_are_no_other_configuration(
    shared_case: Callable[[str], Path],
) -> None:
    folder = shared_case("18-excel-hash")
    message = _ends("compare", str(folder / "before.csv"), str(folder / "saved.csv"))
    assert "saved.csv: line 2, column run_id: '8.11E+56': a spreadsheet or a script made" in message


LINK_CASES = {
    "empty": "no column 'op'",
    "extra": "line 2 has 6 cells where the header has 4",
    "header": "no rows below the header",
    "huge": "line 20: num_gpus: expected a number <= 10000000",
    "inf": "line 20: latency_us: expected a number",
    "latency_ms_col": "no column 'latency_us'; needed: op, num_gpus, message_bytes, latency_us; "
    "found: op, num_gpus, message_bytes, latency_ms",
    "mib": "line 2: message_bytes: expected a number, found '0.000976562 MiB'",
    "ms": "1,147 times faster than h100-nvlink: its latency_us seems to be in ms, not us",
    "nan": "line 20: latency_us: expected a number > 0",
    "ragged": "line 6 has 3 cells where the header has 4",
    "rank1": "line 20: num_gpus: expected a number >= 2",
    "ranks12": "56.0%",
    "sci": "line 2: message_bytes: 1.02E+03 is a whole number that a spreadsheet cut down",
    "sendrecv": "line 2: op: 'sendrecv' is not one of all_reduce",
    "zero": "line 20: latency_us: expected a number > 0",
}


def test_link_tables_are_scored_or_refused_with_the_line(
    shared_case: Callable[[str], Path],
) -> None:
    for path in sorted(shared_case("48-link-tables").glob("*.csv")):
        answer = _ends("list", "links", "h100-nvlink", "--check", str(path))
        assert LINK_CASES.get(path.stem, "mean absolute error 16.7%") in answer, path.stem
        if path.stem == "good":
            worst = "furthest off: all_reduce over 8, 4194304 bytes: 38.3 us measured"
            assert worst in answer


@pytest.mark.parametrize(("unit", "factor"), [("ms", 1e-3), ("s", 1e-6), ("ns", 1e3)])
def test_a_link_table_in_another_unit_is_named_and_not_scored(
    tmp_path: Path, unit: str, factor: float
) -> None:
    path = tmp_path / "mine.csv"
    points = [("send", 2, 4096, 13.0), ("send", 2, 2**20, 60.0)]
    path.write_bytes(link_bytes([(*point, us * factor) for *point, us in points]))
    message = _ends("list", "links", "a100-nvlink", "--check", str(path))
    assert f"seems to be in {unit}, not us" in message and "furthest off: send over 2" in message
    # A part of a table, whichever part: the median of all points is right in the last two.
    for half in (points, points[:1], points[1:]):
        changed = [(*one[:3], one[3] * factor) if one in half else one for one in points * 3]
        path.write_bytes(link_bytes([*changed, *points[: 3 - len(half)], ("send", 2, 8192, 14.0)]))
        message = _ends("list", "links", "a100-nvlink", "--check", str(path))
        assert f"{3 * len(half)} of " in message and f"seems to be in {unit}, not us" in message
    path.write_bytes(link_bytes(points[::-1] * 2))
    assert len(read_table(path)) == 4
    document = json.loads(_ends("list", "links", "a100-nvlink", "--check", str(path), "--json"))
    assert (document["num_points"], document["worst"]["op"]) == (4, "send")


def test_published_ratios_saved_by_a_spreadsheet_are_scored(tmp_path: Path) -> None:
    record = ["t4", "l4", "infer", "a net", "rnn", "1", "2.5", "a note", "p1"]
    plain, german = tmp_path / "plain.csv", tmp_path / "german.csv"
    plain.write_text(f"{','.join(RATIO_COLUMNS)}\n{','.join(record)}\n")
    spelled = plain.read_text().replace(",", ";").replace("2.5", "2,5")
    german.write_text(f"sep=;\n{spelled}")
    assert _ends("project", "--score", str(plain)) == _ends("project", "--score", str(german))
    german.write_text(german.read_text().replace("2,5", "-2,5"))
    message = _ends("project", "--score", str(german))
    assert "german.csv: line 3: throughput_ratio_b_over_a" in message


@pytest.mark.parametrize(
    ("whole", "cut"),
    [("0012345678901234", "12345678901234"), ("1234567890123456", "1234567890123450")],
)
def test_a_hash_of_digits_that_a_spreadsheet_cut_down_is_named(
    tmp_path: Path, whole: str, cut: str
) -> None:
    rows = [stored_row(trial=n, config_hash=whole, step_median_ms=1.0) for n in range(3)]
    before = write_file(tmp_path / "before.csv", rows)
    after = write_file(tmp_path / "after.csv", [row | {"config_hash": cut} for row in rows])
    answer = _ends("compare", str(before), str(after))
    assert answer.count("a spreadsheet cut its config_hash down") == 2
    write_file(after, [row | {"config_hash": "9" + cut} for row in rows])
    assert "something that has no column (config_hash)" in _ends("compare", str(before), str(after))
