"""Exports: names, selection and figures; each read by its tool or its documented schema."""

import json
import math
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.stats import Stats

from bench.core import statistics
from bench.report.exports import history, pytest_benchmark
from bench.report.exports.figures import ExportedRows, Named, name_of, select
from bench.results.schema import Row
from tests.analysis.synthetic_rows import trials


def sample_rows() -> list[Row]:
    eight: Row = {"mode": "emulated", "link": "h800-nvlink", "device_count": 8}
    failed: Row = {"throughput_per_s": None, "step_median_ms": None, "trial": 9}
    (failure,) = trials(num=1, status="FAILED", reasons="out_of_memory", **failed)
    (invalid,) = trials(num=1, status="INVALID", reasons="ecc", step_ms=1e-3, trial=8)
    return [
        *trials(num=5, energy_per_item_j=1.5, rss_peak_bytes=10**9, seed=1),
        *trials(num=4, workload="imaging-infer", config_hash="f00d", step_ms=20.0, lat_p90_ms=25.0),
        *trials(num=1, workload="llm-decode", config_hash="beef", items_unit="token", **eight),
        failure,
        invalid,
    ]


def configurations(rows: list[Row]) -> tuple[Named, ...]:
    return select(rows).configurations


@pytest.fixture
def selection() -> ExportedRows:
    return select(sample_rows())


def strict_json(text: str) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def run_compare(folder: Path, *arguments: str) -> str:
    script = shutil.which("pytest-benchmark", path=str(Path(sys.executable).parent))
    command = [script] if script else [sys.executable, "-m", "pytest_benchmark"]
    command += ["compare", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Failed to load" not in done.stderr
    return done.stdout


def test_pytest_benchmark_compare_shows_our_trials_as_rounds_and_compares_two_files(
    selection: ExportedRows, tmp_path: Path
) -> None:
    (tmp_path / "ours.json").write_text(pytest_benchmark.document(selection))
    table = run_compare(tmp_path, "ours.json", "--columns=min,median,rounds", "--time-unit=ms")
    assert "benchmark: 3 tests" in table
    (line,) = (line for line in table.splitlines() if line.startswith("imaging-train"))
    medians = [float(str(row["step_median_ms"])) for row in trials(num=5, seed=1)]
    assert f"{statistics.median(medians):.4f}" in line
    assert f"{min(medians):.4f}" in line
    assert line.split()[-1] == "5"
    assert "llm-decode tiny fp32 b2 [emulated] x8 over h800-nvlink" in table
    assert "0.0010" not in table, "the INVALID trial's time"
    for name, step_ms in (("before", 100.0), ("later", 150.0)):
        rows = trials(num=3, step_ms=step_ms, noise_frac=0.0)
        (tmp_path / f"{name}.json").write_text(pytest_benchmark.document(select(rows)))
    table = run_compare(tmp_path, "before.json", "later.json", "--between=median")
    assert "1 tests, 2 sources" in table and "+50.0%" in table


def test_pytest_benchmark_has_its_own_statistics_and_a_note_of_what_has_no_step_times() -> None:
    for num in range(1, 14):
        source = random.Random(num)
        data_s = [source.lognormvariate(-3.0, 0.5) for _ in range(num)]
        theirs = Stats()
        for value in data_s:
            theirs.update(value)
        ours = pytest_benchmark.stats_of(data_s)
        assert set(theirs.fields) <= ours.keys()
        for name, value in theirs.as_dict().items():
            expected = value if isinstance(value, str) else pytest.approx(value)
            assert ours[name] == expected, f"{name} of {num}"
    timeless: list[Row] = [{**row, "step_median_ms": None} for row in trials(num=1)]
    selection = select(timeless + trials(num=2, config_hash="beef"))
    assert len(strict_json(pytest_benchmark.document(selection))["benchmarks"]) == 1
    (note,) = pytest_benchmark.notes(selection)
    assert note.startswith("imaging-train") and "left out" in note
    same = trials(num=2, git_commit="abc-dirty", cpu_model="One CPU")
    content = strict_json(pytest_benchmark.document(select(same)))
    assert content["machine_info"]["processor"] == "One CPU"
    assert (content["commit_info"]["id"], content["commit_info"]["dirty"]) == ("abc", True)
    mixed = same + trials(num=1, run_id="r2", git_commit="def", cpu_model="Other CPU")
    content = strict_json(pytest_benchmark.document(select(mixed)))
    assert "processor" not in content["machine_info"] and content["commit_info"] == {}


# https://bencher.dev/docs/reference/bencher-metric-format
BMF = {"value", "lower_value", "upper_value"}
MAX_BENCHMARK_NAME, MAX_MEASURE_NAME = 1024, 64


def test_bmf_fits_its_schema_and_json_has_trials_and_unusable_rows(selection: ExportedRows) -> None:
    content = strict_json(history.bmf_document(selection))
    metrics = [metric for measures in content.values() for metric in measures.values()]
    assert all({"value"} <= metric.keys() <= BMF for metric in metrics)
    assert all(type(value) in (int, float) for metric in metrics for value in metric.values())
    metric = content["imaging-train tiny fp32 b2 [real] on Test CPU #c0ffee"]["step_median_ms"]
    medians = [float(str(row["step_median_ms"])) for row in trials(num=5, seed=1)]
    expected = statistics.mean_interval_log(medians)
    assert expected is not None
    assert (metric["value"], metric["lower_value"], metric["upper_value"]) == expected
    # One trial has no bounds.
    (name,) = (name for name in content if "[emulated]" in name)
    assert set(content[name]["throughput_token_per_s"]) == {"value"}
    long: Row = {"workload": "w" * 5000, "device_name": "d" * 5000, "link": "l" * 5000}
    rows = trials(num=2, items_unit="i" * 500, mode="emulated", **long)
    ((name, measures),) = strict_json(history.bmf_document(select(rows))).items()
    assert len(name) <= MAX_BENCHMARK_NAME and "[emulated]" in name
    assert max(map(len, measures)) <= MAX_MEASURE_NAME
    content = strict_json(history.json_document(selection))
    train, infer, decode = content["configurations"]
    assert [len(one["trials"]) for one in (train, infer, decode)] == [5, 4, 1]
    assert train["figures"]["energy_per_patch_j"]["value"] == 1.5
    assert infer["figures"]["lat_p90_ms"]["num_trials"] == 4
    assert decode["mode"] == "emulated"
    assert decode["figures"]["step_median_ms"]["low95"] is None
    assert [row["reasons"] for row in content["unusable_rows"]] == ["out_of_memory", "ecc"]


# https://github.com/benchmark-action/github-action-benchmark#examples (customBiggerIsBetter: name,
# unit and value are needed, range and extra are optional text); an empty list is refused by
# https://github.com/benchmark-action/github-action-benchmark/blob/master/src/extract.ts
GITHUB_ACTION = {"name": str, "unit": str, "value": (int, float), "range": str, "extra": str}


def test_github_files_fit_their_schema_and_have_one_direction(selection: ExportedRows) -> None:
    directions = {"bigger": {"patch/s", "token/s"}, "smaller": {"ms", "J", "bytes"}}
    for direction, units in directions.items():
        content = strict_json(history.github_document(selection, direction=direction))
        assert {entry["unit"] for entry in content} == units, direction
        for entry in content:
            assert {"name", "unit", "value"} <= entry.keys() <= GITHUB_ACTION.keys()
            assert all(isinstance(value, GITHUB_ACTION[name]) for name, value in entry.items())
        assert len({entry["name"] for entry in content}) == len(content)
        assert all(f"({entry['unit']})" in entry["name"] for entry in content)
    rows = trials(num=3, noise_frac=0.0) + trials(num=1, config_hash="beef")
    three, one = strict_json(history.github_document(select(rows), direction="smaller"))
    assert three["range"] == "95 % interval 100 - 100, 3 trials"
    assert "range" not in one and "trials: 1" in one["extra"]


def rows_at(*throughputs: float) -> list[Row]:
    rows = trials(num=len(throughputs))
    return [{**row, "throughput_per_s": one} for row, one in zip(rows, throughputs, strict=True)]


def test_every_mode_is_part_of_a_printable_name_and_what_differs_has_its_own() -> None:
    for mode in ("real", "throttled", "emulated", "simulated"):
        (row,) = trials(num=1, mode=mode, link="h800-nvlink", device_count=8, parallel="ddp")
        name = f"imaging-train tiny fp32 b2 [{mode}] x8 ddp over h800-nvlink on Test CPU #c0ffee"
        assert name_of(row) == name
    (row,) = trials(num=1, device_name="Evil\x1b[31m\nCPU")
    assert name_of(row).isprintable()
    for column in ("config_hash", "link"):
        rows = [{**row, column: value} for value in "ab" for row in trials(num=1)]
        assert len({found.name for found in configurations(rows)}) == 2, column
    alone = trials(num=2)
    sweep = trials(num=2, config_hash="deadbeef", params_json='{"batch": 4, "patch": 64}')
    assert configurations(alone)[0].name == configurations(alone + sweep)[0].name
    rows = trials(num=2, env_id="e1") + trials(num=2, env_id="e2", torch_version="2.11.0")
    first, second = configurations(rows)
    assert first.name.endswith("torch 2.13.0") and second.name.endswith("torch 2.11.0")
    assert len(first.trials.used) == len(second.trials.used) == 2
    rows = trials(num=1, device_type="cpu") + trials(num=1, device_type="cpu2")
    names = [one.name[-4:] for one in configurations(rows)]
    assert names == ["ffee", " (2)"], "names that nothing tells apart are numbered"


def test_figure_is_the_geometric_mean_with_its_t_interval_and_has_a_usable_key() -> None:
    (one,) = configurations(rows_at(8.0, 2.0))
    figure = one.figures()[0]
    # log mean: ln 4; sd of logs: sqrt(2) ln 2; error: ln 2; t(0.975, 1) = 12.7062
    assert (figure.label, figure.unit, figure.num_trials) == ("throughput", "patch/s", 2)
    assert figure.value == pytest.approx(4.0)
    assert figure.ends == pytest.approx((4.0 / 2**12.7062, 4.0 * 2**12.7062), rel=1e-4)
    (figure, *_) = configurations(rows_at(7.3))[0].figures()
    assert (figure.value, figure.ends) == (7.3, None), "one trial has no interval"
    (figure, *_) = configurations(rows_at(1e9, 1e9, 1e9))[0].figures()
    assert (figure.value, figure.ends) == (1e9, (1e9, 1e9)), "equal trials, exactly"
    (figure, *_) = configurations(rows_at(1e-59, 1e59))[0].figures()
    assert figure.ends is None and figure.value == pytest.approx(1.0), "damaged, decades apart"
    for value in (0.0, -1.0, 1e300, math.nan, math.inf, None):
        rows = rows_at(5.0, 5.0)
        rows[1]["throughput_per_s"] = value
        figure = configurations(rows)[0].figures()[0]
        assert (figure.value, figure.num_trials) == (5.0, 1), value
    keys = {figure.key for figure in configurations(trials())[0].figures()}
    assert keys == {"throughput_patch_per_s", "step_median_ms"}
    (one, *_) = configurations(trials(num=1, items_unit="a b/§" * 20))[0].figures()
    assert one.key == "throughput_a_b_a_b_a_b_a_b_a_b_a_b__per_s"
    (one, *_) = configurations(trials(num=1, items_unit=None))[0].figures()
    assert one.key == "throughput_item_per_s"


def test_only_the_first_usable_attempt_is_used_once_and_the_others_are_told() -> None:
    rows = [
        *trials(num=2),
        *trials(num=1, status="WARN", reasons="drift", run_id="run2"),
        *trials(num=1, status="INVALID", reasons="ecc;thermal_throttle", run_id="run3"),
        *trials(num=1, status="FAILED", reasons="out_of_memory", run_id="run4"),
        *trials(num=1, status="SKIPPED", run_id="run5"),
    ]
    selection = select(rows)
    assert [row["status"] for row in selection.usable] == ["OK", "OK", "WARN"]
    assert selection.notes() == [
        "3 of 6 rows unusable, without figures: 1 INVALID (ecc, thermal_throttle), "
        "1 FAILED (out_of_memory), 1 SKIPPED"
    ]
    first, *rest = trials(num=3)
    selection = select([{**first, "status": "INVALID"}, *rest, {**first, "attempt": 2}])
    assert [(row["trial"], row["attempt"]) for row in selection.usable] == [(1, 1), (2, 1), (0, 2)]
    assert len(selection.unusable) == 1
    assert select(trials()).notes() == []
    selection = select(trials() + trials())
    assert len(selection.usable) == 5, "it does not look twice as certain"
    assert selection.notes() == ["5 rows given more than once and counted once"]
