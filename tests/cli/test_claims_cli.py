"""`bench claims`: table, reasons, documents, more rows, and what --run would measure."""

import json
import re
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bench.cli import main
from bench.results.reader import read_rows
from bench.run.recipes import RECIPES
from scripts.readme import claims_block
from tests.analysis.synthetic_rows import trials, write_csv

Captured = pytest.CaptureFixture[str]
REFERENCE = Path(__file__).parents[2] / "results" / "reference"


def document(capsys: Captured, *words: str) -> dict[str, Any]:
    assert main(["claims", *words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_table_has_every_claim_and_counts_the_verdicts(capsys: Captured) -> None:
    """The golden screen holds the form; here the numbers are those of the document."""
    claims = document(capsys)["claims"]
    assert main(["claims"]) == 0
    table, _, words = capsys.readouterr().out.partition("\n\n")
    _, heads, _, *rows = table.splitlines()
    shown: dict[str, set[int]] = {}
    places = [match.start() for match in re.finditer(r"\S+(?: \S+)*", heads)]
    for row in rows:
        for start, end in pairwise((*places[1:], len(heads))):
            for part in filter(None, row[start:end].strip().split(", ")):
                first, _, last = part.partition("-")
                numbers = range(int(first), int(last or first) + 1)
                shown.setdefault(heads[start:end].strip(), set()).update(numbers)
    assert {n: word for word, numbers in shown.items() for n in numbers} == {
        claim["number"]: claim["verdict"] for claim in claims if claim["number"]
    }
    assert main(["claims", "F0", "F1", "F2", "F3", "F4"]) == 0
    out = capsys.readouterr().out
    for name in (" 42 ", "An H20 has 41 % fewer cores", "share-price", "HOLDS WHEN", "REFUTED"):
        assert name in out
    assert "of 42 testable claims decided" in out and "of 42 testable claims decided" in words
    assert "modelled" in out and "projected" in out, "what is not measured is said"


def test_why_shows_cases_figures_and_sources(capsys: Captured) -> None:
    assert main(["claims", "9", "--why"]) == 0
    out = capsys.readouterr().out
    for text in ("compute_units: 78", "40.9 %", "source: ", "https://", "TrendForce", "31.6 %"):
        assert text in out
    assert "Beside, without a say" in out


def test_why_names_the_rows_that_were_measured(capsys: Captured) -> None:
    assert main(["claims", "cpu-and-gpu", "--why"]) == 0
    out = capsys.readouterr().out
    rows = read_rows(REFERENCE / "cpu-2core.csv")
    trials = [row for row in rows if row["workload"] == "imaging-train"]
    numbers = ", ".join(str(row["trial"]) for row in trials)
    assert f"run {trials[0]['run_id']} imaging-train trials {numbers}" in out
    assert "to test it: bench run --workload imaging-train --workload llm-train" in out
    assert "not tested: " in out


def test_the_document_has_every_case_unrounded(capsys: Captured) -> None:
    found = document(capsys, "h20-cores", "1")
    assert [claim["id"] for claim in found["claims"]] == ["h20-cores", "h800-slower"]
    first = found["claims"][0]
    assert first["verdict"] == "HOLDS" and first["article"]["publisher"] == "TrendForce"
    assert first["cases"][0]["figure"]["mid"] == 1 - 78 / 132
    assert found["num_testable"] == 2
    assert all(case["source"] for claim in found["claims"] for case in claim["cases"])


def test_markdown_is_one_table_with_escaped_cells(capsys: Captured) -> None:
    assert main(["claims", "F1", "--format", "markdown"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0].startswith("| no. | claim |") and lines[1].startswith("| ---: |")
    table = [line for line in lines if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1
    assert main(["claims", "9", "--why", "--format", "markdown"]) == 0
    assert "| holds |" in capsys.readouterr().out


def test_rows_that_are_given_count(tmp_path: Path, capsys: Captured) -> None:
    before = document(capsys, "cpu-and-gpu", "--no-reference")
    assert before["claims"][0]["verdict"] == "UNDECIDED"
    rows = trials(data_wait_frac=0.4, device_type="cuda", device_name="Test GPU")
    path = write_csv(tmp_path / "mine.csv", rows)
    after = document(capsys, "cpu-and-gpu", str(path), "--no-reference")
    assert after["claims"][0]["verdict"] == "HOLDS"
    assert after["claims"][0]["cases"][0]["circumstances"]["device"] == "Test GPU"


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["h20-core"], "did you mean 'h20-cores'?"),
        (["99"], "a number from 1 to 42, or an article (F0, F1, F2, F3, F4)"),
        (["--format", "yaml"], "--format 'yaml' is not one of table, markdown, json"),
        (["missing.csv"], "missing.csv: cannot be read"),
        (["1", "--run", "--budget", "10"], "--budget '10' needs a number with a unit"),
    ],
)
def test_mistakes_are_one_line(words: list[str], part: str, capsys: Captured) -> None:
    assert main(["claims", *words]) == 2
    err = capsys.readouterr().err
    assert part in err and len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "code"),
    [("h20-cores", 0), ("h800-slower", 0), ("h20-28-percent", 1), ("event-driven", 3), ("fpga", 0)],
)
def test_strict_ends_with_the_worst_verdict(name: str, code: int, capsys: Captured) -> None:
    assert main(["claims", name]) == 0
    assert main(["claims", name, "--strict"]) == code


class Recorded:
    """Stands in for the processes that --run starts: writes rows, or fails."""

    def __init__(self, folder: Path) -> None:
        self.lines: list[str] = []
        self.fails: tuple[str, ...] = ()
        self._folder = folder

    def run(self, words: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        self.lines.append(" ".join(words[3:]))
        (name,) = (one.name for one in RECIPES if one.command in " ".join(words[2:]))
        if name in self.fails:
            return subprocess.CompletedProcess(words, 2, stdout="")
        rows = trials(data_wait_frac=0.4, device_name=f"by {name}")
        path = write_csv(self._folder / f"{name}.csv", rows)
        return subprocess.CompletedProcess(words, 0, stdout=f"{path}\n")


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    recorded = Recorded(tmp_path)
    monkeypatch.setattr(subprocess, "run", recorded.run)
    return recorded


def test_run_measures_each_recipe_once_and_divides_the_budget(
    recorded: Recorded, tmp_path: Path, capsys: Captured
) -> None:
    words = ["cpu-and-gpu", "h800-slower", "small-handicap", "thresholds", "--run"]
    found = document(capsys, *words, "--budget", "4m", "--out", str(tmp_path))
    assert ["--link" in line for line in recorded.lines] == [False, True]
    assert all("--budget 120s" in line and "--quiet" in line for line in recorded.lines)
    assert "--size tiny" in recorded.lines[1], "four configurations in two minutes"
    assert "--size" not in recorded.lines[0], "two configurations in two minutes"
    cases = [case for claim in found["claims"] for case in claim["cases"]]
    assert any(case["circumstances"].get("device") == "by train" for case in cases)


def test_run_goes_on_when_a_recipe_cannot_run_here(
    recorded: Recorded, tmp_path: Path, capsys: Captured
) -> None:
    recorded.fails = ("limited-link",)
    assert main(["claims", "cpu-and-gpu", "h800-slower", "--run", "--out", str(tmp_path)]) == 0
    err = capsys.readouterr().err
    assert "not measured here: bench run --workload llm-train" in err
    assert "train: 5 of 5 trials can be used" in err


def test_recipes_that_have_no_time_are_named(
    recorded: Recorded, tmp_path: Path, capsys: Captured
) -> None:
    words = ["cpu-and-gpu", "h800-slower", "--run", "--budget", "30s", "--out", str(tmp_path)]
    assert main(["claims", *words]) == 0
    assert len(recorded.lines) == 1 and "--budget 30s" in recorded.lines[0]
    assert "left out, no time in --budget 30s" in capsys.readouterr().err


def test_claims_that_need_no_run_start_none(recorded: Recorded) -> None:
    assert main(["claims", "thresholds", "h20-200k", "--run"]) == 0
    assert recorded.lines == []


def test_a_report_has_the_claims_when_asked(tmp_path: Path, capsys: Captured) -> None:
    rows = write_csv(tmp_path / "rows.csv", trials())
    page = tmp_path / "page.md"
    assert main(["report", str(rows), "-o", str(page)]) == 0
    assert "Published claims" not in page.read_text(encoding="utf-8")
    assert main(["report", str(rows), "-o", str(page), "--claims"]) == 0
    text = page.read_text(encoding="utf-8")
    assert "## Published claims" in text and "h800-slower" in text


def test_the_block_for_the_readme_has_the_testable_claims() -> None:
    lines = claims_block().splitlines()
    numbers = [line.split("|")[1].strip() for line in lines[2:] if line.startswith("|")]
    assert numbers == [str(number) for number in range(1, 43)]
