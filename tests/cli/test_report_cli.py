"""`bench report`: what it writes, what it prints, what it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.cli import main
from bench.results.schema import NAMES
from tests.report.report_rows import HOSTILE, configuration, full_rows, hostile_rows, write_run

CARD = "Graphics card 24 GB"


@pytest.fixture
def result(tmp_path: Path) -> str:
    return str(write_run(tmp_path / "run.csv", configuration("imaging-train", CARD)))


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and the one line that was printed."""
    code = main(["report", *arguments])
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return code, line


def test_the_path_is_all_that_is_printed_or_a_document(
    result: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "report.html"
    assert main(["report", result, "-o", str(output)]) == 0
    assert capsys.readouterr().out == f"{output}\n"
    assert list(tmp_path.glob(".report*")) == []
    assert main(["report", result, "-o", str(output), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["path"] == str(output) and document["rows"] == 5
    assert document["sections"][:2] == ["runs", "validity"]
    assert document["sections"][-1] == "provenance"
    assert "claims" not in document["sections"]


def test_a_report_replaces_a_report_and_nothing_else(
    result: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("report.html", "report.md"):
        output = tmp_path / name
        assert main(["report", result, "-o", str(output)]) == 0
        assert main(["report", result, "-o", str(output)]) == 0
        capsys.readouterr()
        output.write_text("# Mine\n")
        code, line = refused([result, "-o", str(output)], capsys)
        assert code == 2 and "was not made by bench report" in line
        assert output.read_text() == "# Mine\n"


def test_a_full_disk_is_one_line(
    result: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    output = tmp_path / "report.html"
    code, line = refused([result, "-o", str(output)], capsys)
    assert code == 2 and "No space left on device" in line
    assert not output.exists() and list(tmp_path.glob(".report*")) == []


@pytest.mark.parametrize(
    ("content", "code", "reported"),
    [
        ("a,b\n1,2\n", 2, "is no result file"),
        ("", 2, "is empty"),
        (",".join(NAMES) + "\n", 5, "no rows to report"),
    ],
)
def test_a_file_without_rows_is_one_line(
    content: str,
    code: int,
    reported: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "odd.csv"
    path.write_text(content)
    output = tmp_path / "report.html"
    found, line = refused([str(path), "-o", str(output)], capsys)
    assert found == code and reported in line and "odd.csv" in line
    assert not output.exists()


def test_markdown_has_the_tables_and_escapes_what_cells_hold(tmp_path: Path) -> None:
    path = str(write_run(tmp_path / "run.csv", [*full_rows(), *hostile_rows()]))
    output = tmp_path / "report.md"
    assert main(["report", path, "-o", str(output)]) == 0
    text = output.read_text(encoding="utf-8")
    for title in ("Status of trials", "Reasons", "Training over inference", "Where it comes from"):
        assert title in text
    rest = [line for line in text.splitlines() if not line.startswith("    ")]
    assert all(HOSTILE[0] not in line for line in rest)
    assert "&lt;script&gt;" in text
    for line in rest:
        if line.startswith("|"):
            assert line.replace("\\|", "").count("|") >= 3


def test_html_and_markdown_have_the_same_tables(tmp_path: Path) -> None:
    path = str(write_run(tmp_path / "run.csv", full_rows()))
    for name in ("report.html", "report.md"):
        assert main(["report", path, "-o", str(tmp_path / name)]) == 0
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    lines = (tmp_path / "report.md").read_text(encoding="utf-8").splitlines()
    rules = sum(line.startswith("| ---") for line in lines)
    cells = sum(line.startswith("|") for line in lines) - 2 * rules
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
