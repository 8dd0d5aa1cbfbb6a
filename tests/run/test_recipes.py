"""Recipes: the command line of every one plans what it says."""

import json
import shlex
from typing import Any

import pytest

from bench import discovery
from bench.cli import main
from bench.run.planning.checks import select
from bench.run.recipes import RECIPES

Captured = pytest.CaptureFixture[str]


def planned(capsys: Captured, *words: str) -> dict[str, Any]:
    assert main(["run", *words, "--device", "fake", "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert isinstance(plan, dict)
    return plan


def test_every_recipe_plans_what_it_says_on_the_fake_device(capsys: Captured) -> None:
    for one in RECIPES:
        plan = planned(capsys, *shlex.split(one.command)[2:], "--size", "tiny")
        names = {f"{c['config']['workload']}-{c['config']['phase']}" for c in plan["planned"]}
        assert names == set(one.request.workloads)
        assert len(plan["planned"]) == one.num_configurations
        assert all(entry["refusal"] is None for entry in plan["planned"])
        if one.name == "tabular":
            batches = [entry["config"]["params"]["batch"] for entry in plan["planned"]]
            assert batches == [100, 1_000, 10_000]


def test_recipes_are_listed(capsys: Captured) -> None:
    assert main(["list", "recipes"]) == 0
    out = capsys.readouterr().out
    assert "does not use DPX" in out
    assert "bench run --workload tabular-train --batch 100,1000,10000\n" in out
    assert main(["list", "recipes", "tabular", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["command"] == "bench run --workload tabular-train --batch 100,1000,10000"
    assert main(["list", "recipes", "limited-lnk"]) == 2
    assert "did you mean 'limited-link'" in capsys.readouterr().err


def test_probes_for_one_claim_stay_out_of_all_workloads() -> None:
    names = {found.name for found, _ in select(("all",))}
    assert names == {"imaging", "llm"}
    assert {"align", "tabular"} <= set(discovery.names())
