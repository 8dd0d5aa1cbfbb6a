"""Result files of absurd but well-formed cells: an answer or one clear line, no traceback."""

import json
import random
from pathlib import Path

import pytest

from bench.cli import main
from bench.results.schema import COLUMNS, REQUIRED, Row, Value
from tests.analysis.synthetic_rows import trials, write_csv

CELLS: dict[str, list[Value]] = {
    "float": [None, 0.0, -1.0, 1e300, 1e-300, 5e-324, 1.0, 2.5, 1e59, 1e-59],
    "int": [None, 0, 1, -5, 2**62, 7],
    "bool": [None, True, False],
    "json": [None, "{}", "[1]", '{"batch": null}', '{"a": {"b": [1]}}', '"x"'],
    "utc": ["2026-01-02T03:04:05Z"],
    "str": [None, "x", "=1+1", "a-b-c", "-", "|", "\u202e", "ünï", "a;b", "[bold]", "-train"],
}
WHAT_RAN = ("identity", "what ran")


def absurd(source: random.Random) -> list[Row]:
    rows = []
    for config in ("h0", "h1", "h2"):
        workload = source.choice(["im-train", "im-infer"])
        num = source.choice([1, 3, 5])
        for row in trials(seed=len(rows), num=num, config_hash=config, workload=workload):
            for column in source.sample(COLUMNS, source.choice([0, 3, 20, 60])):
                is_kept = column.group in WHAT_RAN and source.random() < 0.9
                if column.name not in REQUIRED and not is_kept:
                    row[column.name] = source.choice(CELLS[column.kind])
            row["status"] = source.choice(["OK", "OK", "WARN", "INVALID", "FAILED", "SKIPPED"])
            rows.append(row)
    return rows


def test_absurd_cells_never_raise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(12):
        source = random.Random(seed)
        files = [str(write_csv(tmp_path / f"{n}.csv", absurd(source))) for n in range(2 + seed % 2)]
        metric = source.choice(["time", "energy", "memory", "ttft", "latency"])
        compare = ["compare", *files, "--metric", metric, "--force-gate", "--format"]
        for style in ("table", "markdown", "github", "json"):
            assert main([*compare, style]) in (0, 1, 4, 5), seed
        json.loads(capsys.readouterr().out.partition("</details>")[2])
        asked = ["--items", "5", "--load", "3/h", "--latency", "2s"]
        for style in ("table", "markdown", "json"):
            assert main(["gap", *files, "--format", style, *asked]) in (0, 5), seed
