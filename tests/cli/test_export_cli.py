"""`bench export` through the command line: what goes where, and mistakes in one line."""

import json
from pathlib import Path

import pytest

from bench.cli import main
from bench.cli.export import FORMATS
from tests.analysis.synthetic_rows import trials, write_csv

Captured = pytest.CaptureFixture[str]
TEXT_FORMATS = [name for name in FORMATS if name != "github-action-benchmark"]


@pytest.fixture
def good(tmp_path: Path) -> str:
    return str(write_csv(tmp_path / "good.csv", trials()))


@pytest.fixture
def failed(tmp_path: Path) -> str:
    rows = [
        {**row, "status": "FAILED", "reasons": "error", "step_median_ms": None} for row in trials()
    ]
    return str(write_csv(tmp_path / "failed.csv", rows))


@pytest.mark.parametrize("to", TEXT_FORMATS)
def test_text_formats_go_to_stdout_and_equal_the_file(
    to: str, good: str, tmp_path: Path, capsys: Captured
) -> None:
    assert main(["export", good, "--to", to]) == 0
    printed = capsys.readouterr().out
    assert main(["export", good, "--to", to, "-o", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out").read_text() == printed
    assert printed.endswith("\n")
    streams = capsys.readouterr()
    assert streams.out == ""
    assert "wrote" in streams.err


def test_json_flag_is_the_json_format(good: str, capsys: Captured) -> None:
    assert main(["export", good, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["configurations"][0]["workload"] == "imaging-train"


def test_github_action_benchmark_has_a_document_for_each_direction(
    good: str, tmp_path: Path, capsys: Captured
) -> None:
    folder = tmp_path / "new" / "folder"
    command = ["export", good, "--to", "github-action-benchmark"]
    assert main([*command, "-o", str(folder)]) == 0
    names = ["bigger_is_better.json", "smaller_is_better.json"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert main([*command, "--direction", "bigger"]) == 0
    printed = capsys.readouterr().out
    assert printed == (folder / names[0]).read_text()
    (entry,) = json.loads(printed)
    assert entry["unit"] == "patch/s"


def test_unusable_rows_are_counted_on_stderr(
    good: str, failed: str, tmp_path: Path, capsys: Captured
) -> None:
    write_csv(Path(failed), [{**trials(num=1)[0], "status": "FAILED", "run_id": "r2"}])
    assert main(["export", good, failed, "--to", "bmf"]) == 0
    assert "1 of 6 rows are not usable and give no figures: 1 FAILED" in capsys.readouterr().err


@pytest.mark.parametrize("to", ["pytest-benchmark", "bmf"])
def test_only_failed_rows_leave_nothing_to_export(to: str, failed: str, capsys: Captured) -> None:
    assert main(["export", failed, "--to", to]) == 5
    streams = capsys.readouterr()
    assert streams.out == ""
    assert "5 FAILED (error)" in streams.err
    assert "no usable trial" in streams.err


def test_json_keeps_failed_rows(failed: str, capsys: Captured) -> None:
    assert main(["export", failed, "--to", "json"]) == 0
    assert capsys.readouterr().out.count("FAILED") == 5


@pytest.mark.parametrize("to", FORMATS)
def test_file_without_rows_is_nothing_matched(to: str, tmp_path: Path) -> None:
    empty = write_csv(tmp_path / "empty.csv", [])
    assert main(["export", str(empty), "--to", to, "-o", str(tmp_path / "out")]) == 5
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_read_written_or_must_not_be_replaced_is_one_line(
    good: str, tmp_path: Path, capsys: Captured
) -> None:
    before = Path(good).read_bytes()
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    for path, output, reported in (
        (good, good, "is one of the result files"),
        (good, str(tmp_path / "missing" / "out.json"), "cannot be written"),
        (str(tmp_path / "other.csv"), str(tmp_path / "out.json"), "is no result file"),
    ):
        assert main(["export", path, "--to", "json", "-o", output]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert reported in line
    assert Path(good).read_bytes() == before


def test_rows_of_a_simulated_run_are_called_simulated_everywhere(
    tmp_path: Path, capsys: Captured
) -> None:
    command = ["run", "-w", "sleep-infer", "--size", "tiny", "--device", "fake", "--quiet"]
    assert main([*command, "--trials", "3", "--out", str(tmp_path)]) == 0
    path = capsys.readouterr().out.strip()
    for to in ("pytest-benchmark", "bmf", "json"):
        assert main(["export", path, "--to", to]) == 0
        printed = capsys.readouterr().out
        assert "sleep-infer tiny fp32 b1 [simulated] on fake device" in printed
        assert "NaN" not in printed
        assert "[real]" not in printed
