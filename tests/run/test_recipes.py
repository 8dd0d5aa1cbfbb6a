"""Recipes: every one plans or says what answers instead, and flags win over them."""

import json
from typing import Any

import pytest

from bench import discovery
from bench.cli import main
from bench.core.errors import BenchError
from bench.run.layouts import make_layouts
from bench.run.recipes import RECIPES, Recipe, recipe, with_recipe
from bench.run.request import RunRequest
from bench.run.selection import select

RUNNABLE = [one for one in RECIPES if one.request is not None]
Captured = pytest.CaptureFixture[str]


def test_all_twelve_experiments_have_a_recipe() -> None:
    assert {one.number for one in RECIPES} == {f"X{number}" for number in range(1, 13)}
    assert len({one.name for one in RECIPES}) == len(RECIPES)


@pytest.mark.parametrize("one", RUNNABLE, ids=lambda one: one.name)
def test_workloads_and_layouts_of_a_recipe_exist(one: Recipe) -> None:
    assert one.request is not None
    assert select(one.request.workloads)
    assert make_layouts(one.request)


@pytest.mark.parametrize("one", [r for r in RECIPES if r.request is None], ids=lambda r: r.name)
def test_what_measures_nothing_names_the_command_that_answers(one: Recipe) -> None:
    with pytest.raises(BenchError, match=f"use: {one.instead}"):
        with_recipe(one.name, RunRequest())


def test_an_unknown_recipe_is_answered_with_the_nearest() -> None:
    with pytest.raises(BenchError, match="did you mean 'limited-link'"):
        recipe("limited-lnk")


def test_flags_win_over_the_recipe() -> None:
    given = RunRequest(workloads=(), sizes=("tiny",), links=("pcie4",), device="fake")
    told = with_recipe("limited-link", given)
    assert told.links == ("pcie4",) and told.devices == (8,)
    assert told.workloads == ("llm-train", "imaging-train") and told.sizes == ("tiny",)
    assert with_recipe("train", RunRequest(workloads=("sleep",))).workloads == ("sleep",)


def planned(capsys: Captured, *words: str) -> dict[str, Any]:
    assert main(["run", *words, "--device", "fake", "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert isinstance(plan, dict)
    return plan


@pytest.mark.parametrize("one", RUNNABLE, ids=lambda one: one.name)
def test_a_recipe_plans_on_the_fake_device(one: Recipe, capsys: Captured) -> None:
    plan = planned(capsys, "--recipe", one.name, "--size", "tiny")
    assert one.request is not None
    names = {f"{c['config']['workload']}-{c['config']['phase']}" for c in plan["planned"]}
    assert names == set(one.request.workloads)
    assert len(plan["planned"]) == one.num_configurations
    assert all(entry["refusal"] is None for entry in plan["planned"])


def test_the_tabular_recipe_sweeps_rows_in_a_step(capsys: Captured) -> None:
    plan = planned(capsys, "--recipe", "tabular", "--size", "tiny")
    batches = [entry["config"]["params"]["batch"] for entry in plan["planned"]]
    assert batches == [100, 1_000, 10_000]


def test_recipes_are_listed(capsys: Captured) -> None:
    assert main(["list", "recipes"]) == 0
    out = capsys.readouterr().out
    assert "bench run --recipe stacking" in out and "does not use DPX" in out
    assert main(["list", "recipes", "--json"]) == 0
    assert {entry["recipe"] for entry in json.loads(capsys.readouterr().out)} == {
        one.name for one in RECIPES
    }


def test_probes_for_one_claim_stay_out_of_all_workloads() -> None:
    names = {found.name for found, _ in select(("all",))}
    assert names == {"imaging", "llm"}
    assert {"align", "tabular"} <= set(discovery.names())
