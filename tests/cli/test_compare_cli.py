"""`bench compare` through the command line: exit codes, formats, and files nobody should trust."""

import re
from pathlib import Path

from bench.analysis.comparison.noise_floors import default_noise_path, save_floors
from bench.results.schema import Row
from tests.analysis.synthetic_rows import trials, write_csv
from tests.analysis.test_compare import a_floor
from tests.cli.conftest import Ask, Write


def test_every_format_carries_the_verdict(write: Write, ask: Ask) -> None:
    before = [*trials(seed=1), *trials(config_hash="gone", batch=9)]
    a, b = write(before=before, after=trials(seed=2, step_ms=130.0))
    assert "REGRESSION" in ask("compare", a, b, code=1).out
    assert "IMPROVED" in ask("compare", b, a).out
    document = ask("compare", a, b, "--json", code=1).document
    assert (document["files"], document["exit_code"]) == (["before.csv", "after.csv"], 1)
    (row,) = document["rows"]
    assert (row["verdict"], row["workload"], row["a"]["num"]) == ("REGRESSION", "imaging-train", 5)
    assert row["low"] < row["ratio"] < row["high"]
    (unmatched,) = document["unmatched"]
    assert unmatched["verdict"] == "NOT COMPARED"
    assert unmatched["reason"] == "batch is 9, in after.csv 2"
    out = ask("compare", a, b, "--format", "markdown", code=1).out
    assert "| imaging-train |" in out and "REGRESSION" in out
    out = ask("compare", a, b, "--format", "github", code=1).out
    assert out.startswith("## bench compare (time): 1 REGRESSION")
    assert "<details><summary>All rows</summary>" in out


def test_fail_on_and_the_noise_floor_in_the_cache_set_the_threshold(write: Write, ask: Ask) -> None:
    a, b = write(before=trials(seed=1), after=trials(seed=2, step_ms=120.0))
    assert "SAME" in ask("compare", a, b, "--fail-on", "50%").out
    ask("compare", a, b, code=1)
    save_floors(default_noise_path(), floors=[a_floor(0.2)])
    ask("compare", a, b)


def test_undecided_exits_3_only_under_strict_and_nothing_to_compare_4_or_5(
    write: Write, ask: Ask
) -> None:
    a, b, bad, other, new = write(
        before=trials(seed=1, noise_frac=0.03),
        after=trials(seed=2, noise_frac=0.03, step_ms=107.0),
        bad=trials(status="INVALID", reasons="drift"),
        other=trials(workload="llm-train", config_hash="x"),
        new=trials(schema_version="99.0"),
    )
    out = ask("compare", a, b, "--fail-on", "3%", "--format", "markdown").out
    assert re.search(r"INCONCLUSIVE \| about \d+ more trials? \|", out)
    ask("compare", a, b, "--fail-on", "3%", "--strict", code=3)
    ask("compare", a, bad, code=4)
    ask("compare", a, other, code=5)
    err = ask("compare", a, new, code=4).err
    assert "99.0" in err and err.count("\n") == 1


def test_different_devices_are_ratios_and_three_files_a_matrix(
    tmp_path: Path, write: Write, ask: Ask
) -> None:
    a, b = write(a=trials(), b=trials(step_ms=5.0, device_type="cuda", device_name="GPU X"))
    out = ask("compare", a, b).out
    assert all(words in out for words in ("Different devices", "x0.05", "ratio only"))
    files = write(a=trials(), b=trials(seed=2, step_ms=130.0), c=trials(seed=3, step_ms=70.0))
    out = ask("compare", *files, "--format", "markdown", code=1).out
    assert all(words in out for words in ("| a.csv | b.csv | c.csv |", "IMPROVED", "REGRESSION"))
    # Files of one name are told apart.
    (tmp_path / "y").mkdir()
    files = [files[0], str(write_csv(tmp_path / "y" / "a.csv", trials()))]
    assert ask("compare", *files, "--json").document["files"] == files
    labels = ask("compare", files[0], files[0], "--json").document["files"]
    assert labels == [f"{files[0]} (1)", f"{files[0]} (2)"]


def test_hostile_cells_are_shown_and_not_obeyed(write: Write, ask: Ask) -> None:
    hostile = "=cmd()|`x`[red]<script>\x1b[31m"
    a, b = write(a=trials(workload=hostile), b=trials(seed=2, workload=hostile))
    assert "\x1b" not in ask("compare", a, b).out
    out = ask("compare", a, b, "--format", "github").out
    assert "<script>" not in out and "\x1b" not in out
    assert "\\|\\`x\\`\\[red\\]&lt;script&gt;" in out


def test_thousands_of_rows_are_cut_on_screen_and_whole_in_json(write: Write, ask: Ask) -> None:
    def many(seed: int) -> list[Row]:
        return [
            row for i in range(210) for row in trials(seed=seed + i, num=3, config_hash=f"h{i}")
        ]

    files = write(a=many(0), b=many(1000))
    assert "10 further rows are not shown" in ask("compare", *files).out
    assert len(ask("compare", *files, "--json").document["rows"]) == 210
