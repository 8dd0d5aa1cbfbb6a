"""`bench list links NAME --check CSV` through the command line."""

import json
from pathlib import Path

import pytest

from bench.cli import main

HEAD = "op,num_gpus,message_bytes,latency_us\n"
# bw=1GB/s,latency=10us: 2 * 10 us + 1 ns a byte; the second row is twice that, the third half.
TABLE = HEAD + "alltoall,2,2000,11\nall_reduce,2,1000000,2040\nall_reduce,2,16000000,8010\n"
LINK = "bw=1GB/s,latency=10us"


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["list", "links", *words])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.fixture
def table(tmp_path: Path) -> str:
    path = tmp_path / "table.csv"
    path.write_text(TABLE, encoding="utf-8")
    return str(path)


def test_the_errors_are_printed_by_op_and_size_class(
    table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, LINK, "--check", table, "--json")
    document = json.loads(out)
    scores = {(row["op"], row["size_class"]): row for row in document["scores"]}
    assert code == 0
    assert scores["all_to_all", "small"]["mean_abs_error"] == pytest.approx(0.0)
    assert scores["all_reduce", "medium"]["mean_error"] == pytest.approx(-0.5)
    assert scores["all_reduce", "large"]["mean_error"] == pytest.approx(1.0)
    assert scores["all_reduce", "all"]["mean_abs_error"] == pytest.approx(0.75)
    assert document["mean_abs_error"] == pytest.approx(0.5)
    assert document["methods"] == ["alpha-beta"]
    assert not document["leave_one_size_out"]
    code, out, _ = run(capsys, LINK, "--check", table)
    assert code == 0
    assert "mean absolute error 50.0% by alpha-beta" in out


def test_a_pci_formula_is_called_unrated(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "pcie4", "--check", table)
    assert code == 0
    assert "unrated" in out


def test_a_curve_is_scored_without_the_size_in_question(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "h100.csv"
    path.write_text(HEAD + "all_gather,2,1048576,11.29\n", encoding="utf-8")  # its own point
    for words, method in (((), "curve"), (("--formula",), "tuner")):
        code, out, _ = run(capsys, "h100-nvlink", "--check", str(path), "--json", *words)
        document = json.loads(out)
        assert code == 0
        assert document["methods"] == [method]
        assert document["mean_abs_error"] > 0.01


DAMAGED = {
    "op,num_gpus,latency_us\nsend,2,1\n": "no column 'message_bytes'",
    HEAD + "send,2,8,soon\n": "latency_us",
    HEAD + "fly,2,8,1\n": "'fly' is not one of",
    HEAD: "no rows",
    "": "no column",
}


def test_a_damaged_table_is_one_line_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "table.csv"
    for content, words in DAMAGED.items():
        path.write_text(content, encoding="utf-8")
        code, out, err = run(capsys, "h100-nvlink", "--check", str(path))
        assert (code, out) == (2, "")
        assert words in err
        assert "Traceback" not in err and len(err.strip().splitlines()) == 1
