"""`bench compare` through the command line: exit codes, formats, and files nobody should trust."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bench.analysis.comparison.noise_floors import default_noise_path, save_floors
from bench.cli import main
from bench.results.schema import Row
from tests.analysis.synthetic_rows import trials, write_csv
from tests.analysis.test_compare import a_floor

Captured = pytest.CaptureFixture[str]


def test_slower_file_exits_1_and_faster_file_exits_0(write: Any, capsys: Captured) -> None:
    a, b = write(before=trials(seed=1), after=trials(seed=2, step_ms=130.0))
    assert main(["compare", a, b]) == 1
    assert "REGRESSION" in capsys.readouterr().out
    assert main(["compare", b, a]) == 0
    assert "IMPROVED" in capsys.readouterr().out


def test_fail_on_and_the_noise_floor_in_the_cache_set_the_threshold(
    write: Any, capsys: Captured
) -> None:
    a, b = write(before=trials(seed=1), after=trials(seed=2, step_ms=120.0))
    assert main(["compare", a, b, "--fail-on", "50%"]) == 0
    assert "SAME" in capsys.readouterr().out
    assert main(["compare", a, b]) == 1
    save_floors(default_noise_path(), floors=[a_floor(0.2)])
    assert main(["compare", a, b]) == 0


def test_undecided_exits_3_only_under_strict_invalid_4_and_nothing_in_common_5(
    write: Any, capsys: Captured
) -> None:
    a, b = write(
        before=trials(seed=1, noise_frac=0.03), after=trials(seed=2, noise_frac=0.03, step_ms=107.0)
    )
    assert main(["compare", a, b, "--fail-on", "3%", "--format", "markdown"]) == 0
    assert re.search(r"INCONCLUSIVE \| about \d+ more trials? \|", capsys.readouterr().out)
    assert main(["compare", a, b, "--fail-on", "3%", "--strict"]) == 3
    bad, other = write(
        bad=trials(status="INVALID", reasons="drift"),
        other=trials(workload="llm-train", config_hash="x"),
    )
    assert main(["compare", a, bad]) == 4
    assert main(["compare", a, other]) == 5


def test_json_is_one_document_with_the_verdicts(write: Any, capsys: Captured) -> None:
    a, b = write(
        before=[*trials(seed=1), *trials(config_hash="gone", batch=9)],
        after=trials(seed=2, step_ms=130.0),
    )
    assert main(["compare", a, b, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["files"] == ["before.csv", "after.csv"]
    assert document["exit_code"] == 1
    (row,) = document["rows"]
    assert (row["verdict"], row["workload"], row["a"]["num"]) == ("REGRESSION", "imaging-train", 5)
    assert row["low"] < row["ratio"] < row["high"]
    (unmatched,) = document["unmatched"]
    assert unmatched["verdict"] == "NOT COMPARED"
    assert unmatched["reason"] == "batch is 9, in after.csv 2"


def test_markdown_and_github_carry_the_verdict(write: Any, capsys: Captured) -> None:
    a, b = write(before=trials(seed=1), after=trials(seed=2, step_ms=130.0))
    assert main(["compare", a, b, "--format", "markdown"]) == 1
    out = capsys.readouterr().out
    assert "| imaging-train |" in out
    assert "REGRESSION" in out
    assert main(["compare", a, b, "--format", "github"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("## bench compare (time): 1 REGRESSION")
    assert "<details><summary>All rows</summary>" in out


def test_different_devices_are_ratios_and_three_files_a_matrix(
    write: Any, capsys: Captured
) -> None:
    a, b = write(a=trials(), b=trials(step_ms=5.0, device_type="cuda", device_name="GPU X"))
    assert main(["compare", a, b]) == 0
    out = capsys.readouterr().out
    assert all(words in out for words in ("Different devices", "x0.05", "ratio only"))
    files = write(a=trials(), b=trials(seed=2, step_ms=130.0), c=trials(seed=3, step_ms=70.0))
    assert main(["compare", *files, "--format", "markdown"]) == 1
    out = capsys.readouterr().out
    assert all(words in out for words in ("| a.csv | b.csv | c.csv |", "IMPROVED", "REGRESSION"))


def test_hostile_cells_are_shown_and_not_obeyed(write: Any, capsys: Captured) -> None:
    hostile = "=cmd()|`x`[red]<script>\x1b[31m"
    a, b = write(a=trials(workload=hostile), b=trials(seed=2, workload=hostile))
    assert main(["compare", a, b]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert main(["compare", a, b, "--format", "github"]) == 0
    out = capsys.readouterr().out
    assert "<script>" not in out and "\x1b" not in out
    assert "\\|\\`x\\`\\[red\\]&lt;script&gt;" in out


MISTAKES = {
    "A B --metric speed": (2, "--metric 'speed' is not one of time"),
    "A B --format html": (2, "--format 'html' is not one of table"),
    "A B --fail-on 5": (2, "such as 5%"),
    "A": (2, "two result files"),
    "A none.csv": (2, "none.csv"),
    "A NEW": (4, "99.0"),
}


def test_mistakes_are_one_line(write: Any, capsys: Captured) -> None:
    a, b, new = write(a=trials(), b=trials(seed=2), new=trials(schema_version="99.0"))
    files = {"A": a, "B": b, "NEW": new}
    for words, (code, reported) in MISTAKES.items():
        assert main(["compare", *(files.get(word, word) for word in words.split())]) == code
        err = capsys.readouterr().err
        assert reported in err and err.count("\n") == 1


def test_files_of_one_name_are_told_apart(tmp_path: Path, capsys: Captured) -> None:
    files = []
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        files.append(str(write_csv(tmp_path / folder / "run.csv", trials())))
    main(["compare", *files, "--json"])
    assert json.loads(capsys.readouterr().out)["files"] == files
    main(["compare", files[0], files[0], "--json"])
    labels = json.loads(capsys.readouterr().out)["files"]
    assert labels == [f"{files[0]} (1)", f"{files[0]} (2)"]


def test_thousands_of_rows_are_cut_on_screen_and_whole_in_json(
    write: Any, capsys: Captured
) -> None:
    def many(seed: int) -> list[Row]:
        return [
            row for i in range(210) for row in trials(seed=seed + i, num=3, config_hash=f"h{i}")
        ]

    a, b = write(a=many(0), b=many(1000))
    assert main(["compare", a, b]) == 0
    assert "10 further rows are not shown" in capsys.readouterr().out
    main(["compare", a, b, "--json"])
    assert len(json.loads(capsys.readouterr().out)["rows"]) == 210
