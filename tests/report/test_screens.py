"""Golden screens: what each verb shows of committed rows, at 100 columns.

`pytest tests/report/test_screens.py --update-screens` writes them anew; look at the difference.
"""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.cli import main
from bench.cli.measuring.run import show_result
from bench.results.reader import read_rows
from bench.results.schema import Row
from tests.report.link_rows import device_sweep, link_run, three_links
from tests.report.offered_rows import served_rows
from tests.report.report_rows import configuration

ROOT = Path(__file__).parents[2]
SCREENS = Path(__file__).parent / "screens"
REFERENCE = "results/reference/cpu-2core.csv"
SMALL = "results/reference/cpu-2core-small.csv"
WRAPPED = "results/validation/cpu-2core-wrap.csv"
WIDTH = 100
MOST_LINES = 25


def smoke_rows() -> list[Row]:
    """One trial of each shipped workload, as the smoke profile leaves it."""
    first = {row["workload"]: row for row in reversed(read_rows(ROOT / REFERENCE))}
    reasons = {"imaging-train": "smoke;input_bound"}
    return [
        {**row, "reasons": reasons.get(str(name), "smoke"), "detail": None}
        for name, row in reversed(first.items())
    ]


def many_reasons() -> list[Row]:
    """Trials with several reasons and messages, and one configuration that failed."""
    rows = configuration("imaging-train", "Accelerator 80 GB")
    rows += configuration("llm-train", "Graphics card 24 GB")
    for number, row in enumerate(rows):
        row |= {"status": "WARN", "reasons": "drift" if number % 2 else "drift;foreign_cpu"}
        row["detail"] = f"load {number % 7}.5 on 2 cores"
    failed = {"status": "FAILED", "reasons": "out_of_memory", "throughput_per_s": None}
    return [*rows, {**rows[0], **failed, "config_hash": "bad", "batch": 512}]


def wrapped_rows() -> list[Row]:
    """The example under `bench wrap`, over three links."""
    return [{**row, "reasons": None, "detail": None} for row in read_rows(ROOT / WRAPPED)]


RUNS: dict[str, Callable[[], list[Row]]] = {
    "run": lambda: read_rows(ROOT / REFERENCE),
    "run-small": lambda: read_rows(ROOT / SMALL),
    "run-smoke": smoke_rows,
    "run-reasons": many_reasons,
    "run-links": three_links,
    "run-sweep": device_sweep,
    "run-wrap": wrapped_rows,
    "run-served": served_rows,
}
VERBS = {
    "gap": ["gap", REFERENCE],
    "gap-load": [
        *("gap", REFERENCE, "-w", "imaging:infer", "--load", "100000/day", "--busy-hour", "12%"),
        *("--latency", "1s", "--urgent", "5%:100ms"),
    ],
    "gap-overload": [
        "gap",
        SMALL,
        "-w",
        "imaging:infer",
        "--load",
        "50000/day",
        "--latency",
        "10s",
    ],
    "compare": ["compare", REFERENCE, REFERENCE],
    "compare-apart": ["compare", REFERENCE, SMALL],
    "project": ["project", REFERENCE, "--to", "h20,l4"],
    "size-for": ["project", REFERENCE, "--size-for", "imaging-infer < 30s", "--to", "h20,l4"],
    "size-for-load": [
        *("project", REFERENCE, "--to", "h20,l4"),
        *("--size-for", "imaging-infer 100000 volumes/day < 1s at p99"),
    ],
    "claims": ["claims"],
    "claims-one-article": ["claims", "F2"],
}
LONG = {"run-sweep"}  # a row for each of many things


@pytest.fixture(autouse=True)
def _screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # as without a terminal
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(ROOT)


def tables_of(lines: list[str]) -> list[list[str]]:
    """Rows of each table: from its rule to the next blank line."""
    found = []
    for place, line in enumerate(lines):
        if line and set(line) == {"─"}:
            end = lines.index("", place) if "" in lines[place:] else len(lines)
            found.append(lines[place + 1 : end])
    return found


@pytest.mark.parametrize("name", [*RUNS, *VERBS])
def test_a_screen_is_the_golden_one_and_keeps_the_rules_of_every_screen(
    name: str, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    if name in RUNS:
        show_result(RUNS[name](), path=ROOT / "results" / "run.csv")
    else:
        main(VERBS[name])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    path = SCREENS / f"{name}.txt"
    if request.config.getoption("--update-screens"):
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert "\n".join(lines) + "\n" == path.read_text(encoding="utf-8")
    assert name in LONG or len(lines) <= MOST_LINES
    assert not [line for line in lines if "—" in line or "<" in line]
    assert not re.findall(r"(?<![0-9.,])\b1 [a-z]{2,}s\b", "\n".join(lines))
    for table in tables_of(lines):
        wrapped = [line for line in table if re.match(r" +(?![0-9 ]|real )", line)]
        assert wrapped == []
        assert max(map(len, table)) <= WIDTH


def test_a_modelled_configuration_that_failed_is_on_the_screen(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lost: Row = {"status": "FAILED", "reasons": "out_of_memory", "step_median_ms": None}
    show_result(link_run("pcie5", 9.0, cells=lost), path=ROOT / "run.csv")
    out = capsys.readouterr().out
    assert "trials: 3 FAILED" in out and "out_of_memory: 3 of 3 trials" in out
