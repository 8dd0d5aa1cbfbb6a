"""The flow of a run: flags are declared once, and few files carry a run from flags to its row."""

import json
import os
import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from bench_process import ROOT, command, environment

from bench.cli import app, main
from bench.core.errors import UsageError
from bench.devices.torch import roof
from bench.devices.torch.adapter import Adapter
from bench.measure import inspection
from bench.measure.inspection import FAKE, Inspection
from bench.measure.timing.limits import PROFILES
from bench.results.reader import read_rows
from bench.run import session
from bench.run.planning.checks import check_request
from bench.run.planning.request import FLAGS, RunRequest, command_words, read_flags
from bench.run.recipes import RECIPES
from bench.run.session import prepare

CARRIES = """
import os, sys, threading
NOUNS = {"RunRequest", "Plan", "Planned", "Config", "Layout", "TrialRequest", "Outcome"}
NOUNS |= {"Measured", "Findings", "TrialResult"}
FOLDER, FOUND, seen = os.sep + "bench" + os.sep, os.environ["FOUND"], set()

def is_noun(value):
    is_row = isinstance(value, dict) and bool({"config_hash", "step_median_ms"} & value.keys())
    return is_row or type(value).__name__ in NOUNS

def is_in_an_import(frame):
    while frame := frame.f_back:
        if frame.f_code.co_name == "<module>" and frame.f_globals["__name__"] != "__main__":
            return True
    return False

def note(frame, event, value):
    code = frame.f_code
    if FOLDER not in code.co_filename or code.co_filename in seen or not code.co_flags & 1:
        return
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    values = [frame.f_locals.get(name) for name in names] if event == "call" else [value]
    if any(map(is_noun, values)) and not is_in_an_import(frame):
        seen.add(code.co_filename)
        with open(FOUND, "a") as file:
            print("bench" + code.co_filename.rpartition(FOLDER[:-1])[2], file=file)

threading.setprofile(note)
sys.setprofile(note)
"""
"""Notes each file with a function that is given, or returns, what travels: the request, the plan, a
configuration, the trial's request or result, the row."""

VALUES: dict[str, Any] = {
    "workload": ["llm-train,imaging", "./mine.py:infer"],
    "size": "tiny,small",
    "batch": "1,2",
    "cases": "2,9",
    "set": ["filters=8x16,16x32", "depth=3"],
    "link": ["h100-nvlink,bw=25GB/s,latency=5us", "a*8/b*4"],
    "budget": "90s",
    "timeout": "1.5m",
    "max_wait": "5ms",
    "stall": "5s",
    "think": "1m",
    "devices": "1,8",
}


def request_of(*arguments: str) -> RunRequest:
    run = typer.main.get_command(app).commands["run"]  # type: ignore[attr-defined]
    return read_flags(run.make_context("run", list(arguments)).params)


def test_every_flag_is_printed_as_it_is_read() -> None:
    typed = {str: "text", int: 7, float: 0.5, bool: True}
    given = {
        flag.parameter: VALUES.get(flag.parameter, typed.get(flag.kind.given, "one,two"))
        for flag in FLAGS.values()
    }
    request = read_flags(given)
    assert all(getattr(request, name) != getattr(RunRequest(), name) for name in FLAGS)
    assert request_of(*command_words(request)) == request
    assert request_of() == RunRequest()
    bounds = [dict.fromkeys((one.min_trials, one.max_trials)) for one in PROFILES.values()]
    *counts, most = ["-".join(map(str, one)) for one in bounds]
    assert f"{', '.join(counts)} or {most} trials" in FLAGS["profile"].help


def test_few_files_carry_a_run_from_its_flags_to_its_row(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(CARRIES)
    seen = {"FOUND": str(tmp_path / "found"), "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    flags = ("-w", "imaging-train", "--device", "fake", "--profile", "quick", "--quiet")
    subprocess.run(command(*flags, out=tmp_path), env={**environment(), **seen}, check=True)
    files = set((tmp_path / "found").read_text().splitlines())
    assert {
        "bench/cli/measuring/run.py",
        "bench/measure/trial.py",
        "bench/results/store.py",
    } <= files
    assert len(files) <= 20, " ".join(sorted(files))


def test_each_size_that_was_asked_for_must_take_the_layout() -> None:
    request = RunRequest(
        workloads=("llm-train",), devices=(8,), parallel=("tp",), links=("ndr",), sizes=("small",)
    )
    check_request(request)
    with pytest.raises(UsageError, match="cannot be divided by 8 devices"):
        check_request(replace(request, sizes=("tiny", "small")))


def test_long_runs_without_a_firm_budget_end_with_profiles() -> None:
    base = RunRequest(workloads=("sleep-infer",), device="fake")
    for profile, budget_s, is_wanted in [
        ("smoke", None, False),
        ("quick", None, False),
        ("default", None, True),
        ("default", 60.0, False),
        ("rigorous", None, True),
    ]:
        request = replace(base, profile=profile, budget_s=budget_s)
        assert prepare(request, note=print)[0].wants_profiles is is_wanted, profile


def test_every_recipe_plans_what_it_says_and_is_listed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = ("--size", "tiny", "--device", "fake", "--dry-run", "--json")
    for one in RECIPES:
        assert main([*shlex.split(one.command)[1:], *flags]) == 0, one.name
        plan = json.loads(capsys.readouterr().out)
        names = {f"{c['config']['workload']}-{c['config']['phase']}" for c in plan["planned"]}
        assert names == set(re.findall("--workload (\\S+)", one.command)), one.name
        assert len(plan["planned"]) == one.num_configurations
        assert all(entry["refusal"] is None for entry in plan["planned"])
    assert main(["list", "recipes"]) == 0
    out = capsys.readouterr().out
    assert "does not use DPX" in out and all(f"  {one.command}\n" in out for one in RECIPES)
    assert main(["list", "recipes", "tabular", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["command"] == "bench run --workload tabular-train --batch 100,1000,10000"


def test_a_sweep_looks_at_the_device_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    looked_at = []

    def look(label: str | None, **flags: Any) -> Inspection:
        looked_at.append(label)
        return Inspection(device=FAKE, capabilities={})

    monkeypatch.setattr(session, "inspect_device", look)
    sweep = ("--workload", "sleep-infer", "--set", "seconds=0.01,0.02", "--trials", "1")
    assert main(["run", *sweep, "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("*.csv")
    assert len(read_rows(path)) == 2
    assert looked_at == [None]


@pytest.mark.parametrize(
    ("asked", "measured"), [((), ("fp32",)), (("bf16", "fp32"), ("bf16", "fp32"))]
)
def test_the_roof_of_a_processor_is_that_of_what_runs_unasked(
    monkeypatch: pytest.MonkeyPatch, asked: tuple[str, ...], measured: tuple[str, ...]
) -> None:
    """Nothing runs in bf16 unasked there, and its roof would take seconds of the first run."""
    seen: list[Any] = []
    monkeypatch.setattr(roof, "roof_for", lambda _, *, dtypes: seen.append(dtypes))
    monkeypatch.setattr(inspection, "pin", lambda cpu_ids: None)
    monkeypatch.setattr(Adapter, "make_current", lambda self: seen.append(self.label))
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    question = inspection._Question(label="cpu", dtypes=asked, with_roof=True, threads=(1, 4))
    inspection._inspect(question)
    # On the current device, once for each number of threads.
    assert seen == ["cpu", 1, measured, 4, measured]
