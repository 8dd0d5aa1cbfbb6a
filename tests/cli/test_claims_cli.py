"""`bench claims`: table, reasons, documents, more rows, and what --run would measure."""

import subprocess
from pathlib import Path

import pytest

from bench.results.reader import read_rows
from bench.run.recipes import RECIPES
from scripts.readme import claims_block
from tests.analysis.synthetic_rows import trials, write_csv
from tests.cli.conftest import Ask, Write


def test_articles_are_shown_with_what_is_not_measured_said(ask: Ask) -> None:
    out = ask("claims", "F0", "F1", "F2", "F3", "F4").out
    for name in (" 42 ", "An H20 has 41 % fewer cores", "share-price", "HOLDS WHEN", "REFUTED"):
        assert name in out
    assert "of 44 testable claims decided" in out
    assert "modelled" in out and "projected" in out


def test_why_shows_cases_figures_sources_and_the_rows_that_were_measured(ask: Ask) -> None:
    why = ("compute_units: 78", "40.9 %", "source: ", "https://", "TrendForce", "31.6 %",
           "Beside, without a say")  # fmt: skip
    out = ask("claims", "9", "--why").out
    assert [text for text in why if text not in out] == []
    out = ask("claims", "cpu-and-gpu", "--why").out
    rows = read_rows(Path(__file__).parents[2] / "results" / "reference" / "cpu-2core.csv")
    trials = [row for row in rows if row["workload"] == "imaging-train"]
    numbers = ", ".join(str(row["trial"]) for row in trials)
    assert f"run {trials[0]['run_id']} imaging-train trials {numbers}" in out
    assert "to test it: bench run --workload imaging-train --workload llm-train" in out
    assert "not tested: " in out


def test_the_document_is_unrounded_and_markdown_has_tables_of_escaped_cells(ask: Ask) -> None:
    found = ask("claims", "h20-cores", "1", "--json").document
    assert [claim["id"] for claim in found["claims"]] == ["h20-cores", "h800-slower"]
    first = found["claims"][0]
    assert first["verdict"] == "HOLDS" and first["article"]["publisher"] == "TrendForce"
    assert first["cases"][0]["figure"]["mid"] == 1 - 78 / 132
    assert found["num_testable"] == 2
    assert all(case["source"] for claim in found["claims"] for case in claim["cases"])
    lines = ask("claims", "F1", "--format", "markdown").out.strip().splitlines()
    assert lines[0].startswith("| no. | claim |") and lines[1].startswith("| ---: |")
    table = [line for line in lines if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1
    assert "| holds |" in ask("claims", "9", "--why", "--format", "markdown").out


def test_rows_that_are_given_count(write: Write, ask: Ask) -> None:
    words = ("claims", "cpu-and-gpu", "--no-reference", "--json")
    assert ask(*words).document["claims"][0]["verdict"] == "UNDECIDED"
    rows = trials(data_wait_frac=0.4, device_type="cuda", device_name="Test GPU")
    (claim,) = ask(*words, *write(mine=rows)).document["claims"]
    assert claim["verdict"] == "HOLDS"
    assert claim["cases"][0]["circumstances"]["device"] == "Test GPU"


def test_strict_ends_with_the_worst_verdict(ask: Ask) -> None:
    codes = {"h20-cores": 0, "h800-slower": 0, "h20-28-percent": 1, "event-driven": 3, "fpga": 0}
    for name, code in codes.items():
        ask("claims", name)
        ask("claims", name, "--strict", code=code)


class Recorded:
    """Stands in for the processes that --run starts: writes rows, or fails."""

    def __init__(self, folder: Path) -> None:
        self.lines: list[str] = []
        self.fails: tuple[str, ...] = ()
        self._folder = folder

    def run(self, words: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        self.lines.append(" ".join(words[3:]))
        asked = [*words[2:4], *words[words.index("--out") + 2 :]]
        (name,) = (one.name for one in RECIPES if one.command in " ".join(asked))
        if name in self.fails:
            return subprocess.CompletedProcess(words, 2, stdout="")
        rows = trials(data_wait_frac=0.4, device_name=f"by {name}")
        path = write_csv(self._folder / f"{name}.csv", rows)
        return subprocess.CompletedProcess(words, 0, stdout=f"{path}\n")


def test_run_measures_each_recipe_once_divides_the_budget_and_names_what_it_leaves_out(
    tmp_path: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = Recorded(tmp_path)
    monkeypatch.setattr(subprocess, "run", recorded.run)
    ask("claims", "thresholds", "h20-200k", "--run")
    assert recorded.lines == [], "claims that need no run start none"
    asked = ["cpu-and-gpu", "h800-slower", "small-handicap", "thresholds", "--run", "--json"]
    found = ask("claims", *asked, "--budget", "4m", "--out", tmp_path).document
    assert ["--link" in line for line in recorded.lines] == [False, True]
    assert all("--budget 120s" in line and "--quiet" in line for line in recorded.lines)
    assert "--size tiny" in recorded.lines[1], "four configurations in two minutes"
    assert "--size" not in recorded.lines[0], "two configurations in two minutes"
    cases = [case for claim in found["claims"] for case in claim["cases"]]
    assert any(case["circumstances"].get("device") == "by train" for case in cases)
    recorded.lines.clear()
    words = ("claims", "cpu-and-gpu", "h800-slower", "--run", "--out", tmp_path)
    said = ask(*words, "--budget", "30s").err
    assert len(recorded.lines) == 1 and "--budget 30s" in recorded.lines[0]
    assert "left out, no time in --budget 30s" in said
    recorded.fails = ("limited-link",)
    said = ask(*words).err
    assert "not measured here: bench run --workload llm-train" in said
    assert "train: 5 of 5 trials can be used" in said, "it goes on with the others"


def test_a_report_has_the_claims_when_asked_and_the_readme_the_testable_ones(
    write: Write, ask: Ask, tmp_path: Path
) -> None:
    (rows,) = write(rows=trials())
    page = tmp_path / "page.md"
    ask("report", rows, "-o", page)
    assert "Published claims" not in page.read_text(encoding="utf-8")
    ask("report", rows, "-o", page, "--claims")
    text = page.read_text(encoding="utf-8")
    assert "## Published claims" in text and "h800-slower" in text
    lines = claims_block().splitlines()
    numbers = [line.split("|")[1].strip() for line in lines[2:] if line.startswith("|")]
    assert numbers == [str(number) for number in range(1, 45)]
