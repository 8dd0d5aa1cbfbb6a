"""Recipes: the command line of every one plans what it says."""

import json
import shlex
from typing import Any

import pytest

from bench import discovery
from bench.cli import main
from bench.core.errors import BenchError
from bench.run.planning.checks import select
from bench.run.recipes import RECIPES, Recipe, recipe

Captured = pytest.CaptureFixture[str]


def test_an_unknown_recipe_is_answered_with_the_nearest() -> None:
    with pytest.raises(BenchError, match="did you mean 'limited-link'"):
        recipe("limited-lnk")


def planned(capsys: Captured, *words: str) -> dict[str, Any]:
    assert main(["run", *words, "--device", "fake", "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert isinstance(plan, dict)
    return plan


@pytest.mark.parametrize("one", RECIPES, ids=lambda one: one.name)
def test_a_recipe_plans_on_the_fake_device(one: Recipe, capsys: Captured) -> None:
    plan = planned(capsys, *shlex.split(one.command)[2:], "--size", "tiny")
    names = {f"{c['config']['workload']}-{c['config']['phase']}" for c in plan["planned"]}
    assert names == set(one.request.workloads)
    assert len(plan["planned"]) == one.num_configurations
    assert all(entry["refusal"] is None for entry in plan["planned"])


def test_the_tabular_recipe_sweeps_rows_in_a_step(capsys: Captured) -> None:
    plan = planned(capsys, *shlex.split(recipe("tabular").command)[2:], "--size", "tiny")
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


def test_probes_for_one_claim_stay_out_of_all_workloads() -> None:
    names = {found.name for found, _ in select(("all",))}
    assert names == {"imaging", "llm"}
    assert {"align", "tabular"} <= set(discovery.names())
