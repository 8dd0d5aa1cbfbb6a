"""`bench devices` on the simulated device: an unknown vendor, with and without its quirks.

Nothing in the harness knows the name `simdev`; everything it says here, torch reported it.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest_plugins = ["tests.simdev.fixture"]

ROOT = Path(__file__).parents[2]
VERB = "import typer; from bench.cli.devices import devices; typer.run(devices)"


def shown(env: dict[str, str], *, quirks: str = "") -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", VERB, "--json"],
        cwd=ROOT,
        env={**env, "SIMDEV_QUIRKS": quirks, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_an_unknown_backend_is_described_and_works(simdev_env):
    document = shown(simdev_env)
    devices = {device["label"]: device for device in document["devices"]}
    assert list(devices) == ["simdev:0", "simdev:1", "cpu"]
    first = devices["simdev:0"]
    assert (first["vendor"], first["memory_bytes"], first["chips"]) == (None, 16 * 2**30, [])
    assert {first["dtypes"][dtype] for dtype in ("fp64", "fp32", "bf16", "fp16")} == {"ok"}
    assert document["problems"] == []


@pytest.fixture(scope="module")
def with_quirks(simdev_env):
    quirks = "no_float64,no_bf16,no_events,no_memory_stats,wrong_fp16,fail_device_1"
    return shown(simdev_env, quirks=quirks)


def test_missing_dtypes_and_counters_stop_nothing(with_quirks):
    dtypes = with_quirks["devices"][0]["dtypes"]
    states = {dtype: dtypes[dtype] for dtype in ("fp64", "fp32", "bf16")}
    assert states == {"fp64": "raises", "fp32": "ok", "bf16": "raises"}


def test_wrong_products_are_found(with_quirks):
    assert with_quirks["devices"][0]["dtypes"]["fp16"] == "wrong"


def test_a_device_that_fails_when_used_does_not_hide_the_first(with_quirks):
    labels = [device["label"] for device in with_quirks["devices"]]
    assert labels == ["simdev:0", "simdev:1", "cpu"]
    assert with_quirks["devices"][1]["dtypes"] is None
    assert with_quirks["problems"] == [
        "simdev:1 does not work: simdev error 507: device 1 is not healthy"
    ]


def test_a_full_device_is_listed_with_the_reason(simdev_env):
    document = shown(simdev_env, quirks="oom_above=1000")
    assert document["devices"][0]["label"] == "simdev:0"
    assert document["problems"][0].startswith("no memory is free on simdev:0")
