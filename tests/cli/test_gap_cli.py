"""`bench gap` through the command line: tables, one document, and commands for what is missing."""

import json
import shlex
from typing import Any

import pytest

from bench import discovery
from bench.cli import main
from bench.results.schema import Value
from tests.analysis.synthetic_rows import trials
from tests.analysis.test_gap import INFER

Captured = pytest.CaptureFixture[str]


def test_json_is_one_document(write: Any, capsys: Captured) -> None:
    (file,) = write(both=[*trials(seed=1, step_ms=300.0), *trials(seed=2, **INFER)])
    asked = ["--items", "1000", "--epochs", "5", "--load", "200/day", "--latency", "30s"]
    assert main(["gap", file, "--json", *asked]) == 0
    document = json.loads(capsys.readouterr().out)
    (gap,) = document["gaps"]
    assert gap["time_ratio"]["value"] == pytest.approx(12.0, rel=0.1)
    assert document["trainings"][0]["items"] == 5000.0
    assert document["shares"][0]["needed"] == pytest.approx(0.1 / 30.0, rel=0.1)


def test_halves_in_two_files_make_one_gap_with_every_table(write: Any, capsys: Captured) -> None:
    files = write(train=trials(seed=1, step_ms=300.0), infer=trials(seed=2, **INFER))
    assert main(["gap", *files]) == 0
    out = capsys.readouterr().out
    assert "Training over inference" in out and "compared per voxel" in out
    assert main(["gap", *files, "--format", "markdown", "--load", "5/h"]) == 0
    out = capsys.readouterr().out
    assert out.count("| --- |") >= 3 and "**Share of one device for 5/h**" in out


def test_missing_half_is_named_with_a_command_that_measures_it(
    write: Any, capsys: Captured
) -> None:
    found = discovery.load("imaging")
    params = discovery.parameters(
        discovery.instance(found, size="tiny", overrides={"batch": 3, "schedule_steps": 99})
    )
    cells: dict[str, Value] = {
        "params_json": json.dumps(params),
        "compile": True,
        "compile_mode": "max-autotune",
        "dtype": "bf16",
        "workload_version": found.version,
    }
    (file,) = write(train=trials(**cells))
    assert main(["gap", file]) == 5
    reported = capsys.readouterr().out
    command = shlex.split(reported[reported.index("bench run") :].splitlines()[0])
    expected = "bench run --workload imaging-infer --size tiny --batch 3 --dtype bf16 --compile"
    flags = ["--compile-mode", "max-autotune", "--set", "schedule_steps=99", "--device", "cpu"]
    assert command == [*expected.split(), *flags]


def test_both_phases_of_the_llm_and_all_parameters_of_what_is_not_at_hand(
    write: Any, capsys: Captured
) -> None:
    def missing(rows: Any) -> Any:
        main(["gap", *write(half=rows), "--json"])
        (found,) = json.loads(capsys.readouterr().out)["missing"]
        return found

    found = discovery.load("llm")
    params = json.dumps(discovery.parameters(discovery.instance(found, size="tiny", overrides={})))
    half = missing(trials(workload="llm-train", params_json=params))
    assert half["lacks"] == "inference"
    assert "--workload llm-prefill --workload llm-decode" in half["command"]
    half = missing(trials(workload="mine-infer", params_json='{"batch": 2, "width": 7}', size=None))
    assert half["lacks"] == "training"
    assert half["command"] == (
        "bench run --workload mine-train --batch 2 --dtype fp32 --set width=7 --device cpu"
    )


def test_only_lost_rows_exit_5_with_one_line(write: Any, capsys: Captured) -> None:
    (file,) = write(lost=trials(status="FAILED", reasons="crashed"))
    assert main(["gap", file]) == 5
    assert capsys.readouterr().err == "bench: no usable trial (OK or WARN) in the files given\n"


MISTAKES = {
    "--load 200": "such as 200/day",
    "--latency 30s": "give both",
    "--load 200/day --latency 30": "needs a number with a unit",
    "--load 200/day --latency 0s": "must be over 0",
    "--items 0": "--items 0 is not a number over 0",
    "--epochs 3": "--epochs needs --items",
    "--format html": "--format 'html' is not one of table",
}


def test_wrong_flags_are_one_line_and_exit_2(write: Any, capsys: Captured) -> None:
    (file,) = write(a=trials())
    for flags, reported in MISTAKES.items():
        assert main(["gap", file, *flags.split()]) == 2
        err = capsys.readouterr().err
        assert reported in err and err.count("\n") == 1


def test_hostile_cells_are_shown_and_not_obeyed(write: Any, capsys: Captured) -> None:
    hostile = "<script>[red]\x1b[31m|-train"
    (file,) = write(a=trials(workload=hostile, params_json="{}"))
    assert main(["gap", file, "--format", "markdown"]) == 5
    out = capsys.readouterr().out
    assert "<script>" not in out and "\x1b" not in out
