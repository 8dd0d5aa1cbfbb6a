"""`bench report`: what it writes, what it prints, what it refuses."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.results.schema import NAMES
from tests.cli.conftest import Ask
from tests.report.report_rows import HOSTILE, configuration, full_rows, hostile_rows, write_run


@pytest.fixture
def result(tmp_path: Path) -> str:
    rows = configuration("imaging-train", "Graphics card 24 GB")
    return str(write_run(tmp_path / "run.csv", rows))


def test_a_report_replaces_a_report_and_nothing_else(
    result: str, tmp_path: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "report.html"
    assert ask("report", result, "-o", output).out == f"{output}\n", "the path is all"
    assert list(tmp_path.glob(".report*")) == []
    document = ask("report", result, "-o", output, "--json").document
    assert document["path"] == str(output) and document["rows"] == 5
    assert document["sections"][:2] == ["runs", "validity"]
    assert document["sections"][-1] == "provenance"
    assert "claims" not in document["sections"]
    for name in ("report.html", "report.md"):
        output = tmp_path / name
        for _ in range(2):
            ask("report", result, "-o", output)
        output.write_text("# Mine\n")
        refused = ask("report", result, "-o", output, code=2)
        assert "was not made by bench report" in refused.one_line
        assert output.read_text() == "# Mine\n"

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    output = tmp_path / "report.htm"
    assert "No space left on device" in ask("report", result, "-o", output, code=2).one_line
    assert not output.exists() and list(tmp_path.glob(".report*")) == []


def test_a_file_without_rows_is_one_line(tmp_path: Path, ask: Ask) -> None:
    path, output = tmp_path / "odd.csv", tmp_path / "report.html"
    for content, code, reported in (
        ("a,b\n1,2\n", 2, "is no result file"),
        ("", 2, "is empty"),
        (",".join(NAMES) + "\n", 5, "no rows to report"),
    ):
        path.write_text(content)
        line = ask("report", path, "-o", output, code=code).one_line
        assert reported in line and "odd.csv" in line
        assert not output.exists(), reported


def test_both_formats_have_the_same_tables_and_markdown_escapes_what_cells_hold(
    tmp_path: Path, ask: Ask
) -> None:
    path = str(write_run(tmp_path / "run.csv", [*full_rows(), *hostile_rows()]))
    for name in ("report.html", "report.md"):
        ask("report", path, "-o", tmp_path / name)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    for title in ("Status of trials", "Reasons", "Training over inference", "Where it comes from"):
        assert title in text
    rest = [line for line in text.splitlines() if not line.startswith("    ")]
    assert all(HOSTILE[0] not in line for line in rest)
    assert "&lt;script&gt;" in text
    for line in rest:
        if line.startswith("|"):
            assert line.replace("\\|", "").count("|") >= 3
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    rules = sum(line.startswith("| ---") for line in rest)
    cells = sum(line.startswith("|") for line in rest) - 2 * rules
    assert html.count("<table>") == rules > 8
    assert html.count("<tr>") == cells + rules


def test_a_report_imports_no_torch(result: str, tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from bench.cli import main\n"
        f"assert main(['report', {result!r}, '-o', {str(tmp_path / 'r.html')!r}]) == 0\n"
        "sys.stderr.write(' '.join({'torch', 'matplotlib.pyplot'} & set(sys.modules)) or 'none')\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert answer.stderr == "none"
