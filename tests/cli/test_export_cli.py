"""`bench export` through the command line: what goes where, and mistakes in one line."""

from pathlib import Path

import pytest

from bench.cli.export import FORMATS
from bench.results.schema import Row
from tests.analysis.synthetic_rows import trials
from tests.cli.conftest import Ask, Write

TEXT_FORMATS = [name for name in FORMATS if name != "github-action-benchmark"]


@pytest.fixture
def good(write: Write) -> str:
    return write(good=trials())[0]


def test_text_formats_go_to_stdout_and_equal_the_file(good: str, tmp_path: Path, ask: Ask) -> None:
    for to in TEXT_FORMATS:
        printed = ask("export", good, "--to", to).out
        assert printed.endswith("\n"), to
        written = ask("export", good, "--to", to, "-o", tmp_path / "out")
        assert (tmp_path / "out").read_text() == printed, to
        assert written.out == "" and "wrote" in written.err, to
    as_json = ask("export", good, "--json").document
    assert as_json["configurations"][0]["workload"] == "imaging-train"


def test_github_action_benchmark_has_a_document_for_each_direction(
    good: str, tmp_path: Path, ask: Ask
) -> None:
    folder = tmp_path / "new" / "folder"
    command = ["export", good, "--to", "github-action-benchmark"]
    ask(*command, "-o", folder)
    names = ["bigger_is_better.json", "smaller_is_better.json"]
    assert sorted(path.name for path in folder.iterdir()) == names
    printed = ask(*command, "--direction", "bigger")
    assert printed.out == (folder / names[0]).read_text()
    (entry,) = printed.document
    assert entry["unit"] == "patch/s"


def test_rows_that_are_not_usable_are_counted_and_give_no_figures(
    good: str, tmp_path: Path, write: Write, ask: Ask
) -> None:
    (one,) = write(one=[{**trials(num=1)[0], "status": "FAILED", "run_id": "r2"}])
    said = ask("export", good, one, "--to", "bmf").err
    assert "1 of 6 rows unusable, without figures: 1 FAILED" in said
    lost: Row = {"status": "FAILED", "reasons": "error", "step_median_ms": None}
    (failed,) = write(failed=[{**row, **lost} for row in trials()])
    for to in ("pytest-benchmark", "bmf"):
        streams = ask("export", failed, "--to", to, code=5)
        assert streams.out == "", to
        assert "5 FAILED (error)" in streams.err and "no usable trial" in streams.err, to
    assert ask("export", failed, "--to", "json").out.count("FAILED") == 5
    (empty,) = write(empty=[])
    for to in FORMATS:
        ask("export", empty, "--to", to, "-o", tmp_path / "out", code=5)
        assert not (tmp_path / "out").exists(), to


def test_what_cannot_be_read_written_or_must_not_be_replaced_is_one_line(
    good: str, tmp_path: Path, ask: Ask
) -> None:
    before = Path(good).read_bytes()
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    for path, output, reported in (
        (good, good, "is one of the result files"),
        (good, tmp_path, "is a folder; give the name of a file"),
        (good, tmp_path / "missing" / "out.json", "cannot be written"),
        (tmp_path / "other.csv", tmp_path / "out.json", "is no result file"),
    ):
        refused = ask("export", path, "--to", "json", "-o", output, code=2)
        assert reported in refused.one_line
    assert Path(good).read_bytes() == before
