"""docs/serving.md: its reasons, verdicts, arrivals and flags are those of the program."""

import re
from pathlib import Path

import pytest

from bench.measure.timing.validity import INVALIDATING
from bench.report.tables.offered_table import HOW
from bench.results.schema import NAMES, REASONS
from bench.run.planning.request import FLAGS
from bench.serve.arrivals import parse_arrivals
from bench.serve.live.capacity_search import OVER, WANTED_SERVICES
from bench.serve.slo import parse_slo

TEXT = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
DAY = " ".join(["1"] * 24)
TRACE = '{"timestamp": 0}\n{"timestamp": 1000}'


def rows_under(head: str) -> list[list[str]]:
    """Cells of the table whose first head this is, the lines below its rule."""
    table = re.search(rf"^\| {re.escape(head)} \|.*\n\|[-| ]+\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    assert table is not None, head
    return [line.strip("| \n").split(" | ") for line in table[1].splitlines()]


def codes_in(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_every_reason_of_served_requests_is_explained_and_marked_as_it_counts() -> None:
    names = list(REASONS)
    served = names[names.index("client_late") : names.index("smoke")]
    assert [code for code in served if f"`{code}`" not in TEXT] == []
    for cell, *_ in rows_under("reason"):
        code, *marks = codes_in(cell)
        assert code in REASONS and (marks == ["INVALID"]) == (code in INVALIDATING), code


def test_what_a_capacity_is_has_a_line_for_each_word() -> None:
    words = [codes_in(cell)[0] for cell, *_ in rows_under("the row says")]
    assert {*words, "measured"} == HOW.keys()
    assert f"{WANTED_SERVICES} studies" in TEXT and f"{(OVER - 1) * 100:.0f} % over" in TEXT


@pytest.mark.parametrize(
    "text", [code for cell, *_ in rows_under("`--arrivals`") for code in codes_in(cell)]
)
def test_arrivals_are_read_as_they_stand_there(text: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text(TRACE if text.startswith("trace") else DAY)
    assert parse_arrivals(text.replace("FILE", str(path))).law == text.partition(":")[0]


def test_flags_limits_and_columns_are_those_of_the_program() -> None:
    ours = {name for flag in FLAGS.values() for name in flag.names}
    of_gap = {"--load", "--busy-hour", "--latency", "--at", "--urgent", "--servers"}
    of_project = {"--to", "--size-for"}
    assert {*re.findall(r"(?<![\w-])--[a-z][a-z-]*", TEXT)} <= ours | of_gap | of_project
    for slo in re.findall(r"--slo ([\w=@,]*@p[\d.]+)", TEXT):
        parse_slo(slo)
    words = {code for cell, *_ in rows_under("here") for code in codes_in(cell)}
    assert words and all(any(word in name for name in NAMES) for word in words)
