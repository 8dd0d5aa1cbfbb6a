"""The simulated device is a good and strict device; its quirks show in `test_simdev_run`.

Everything runs in child processes: registering the backend would change what torch calls the
current accelerator.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest_plugins = ["tests.simdev.fixture"]

BASICS = Path(__file__).parents[1] / "simdev" / "scripts" / "basics.py"


def run_child(*arguments: str, env: dict[str, str], **more: str) -> str:
    command = [sys.executable, *arguments]
    env = {**env, "OMP_NUM_THREADS": "1", **more}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_it_is_loaded_with_torch_in_child_processes_that_may_switch_it_off(simdev_env):
    code = "import torch; print(torch.accelerator.device_count(), hasattr(torch, 'simdev'))"
    assert run_child("-c", code, env=simdev_env).split() == ["2", "True"]
    off = run_child("-c", code, env=simdev_env, TORCH_DEVICE_BACKEND_AUTOLOAD="0")
    assert off.split() == ["0", "False"]
    assert not hasattr(torch, "simdev")


def test_it_computes_as_the_cpu_does_and_refuses_what_real_devices_refuse(simdev_env):
    basics = json.loads(run_child(str(BASICS), env=simdev_env))
    assert set(basics["training"]) == {"convolutions", "linear", "attention", "lstm", "gru"}
    assert max(basics["training"].values()) <= 1e-5
    attention = basics["attention"]
    assert attention.pop("half") <= 0.1
    assert set(attention) == {"plain", "causal", "masked"}
    assert max(attention.values()) <= 1e-5
    # The fallback writes where the CPU would.
    operators = basics["operators"]
    assert operators["conjugated"] == pytest.approx(operators["expected_conjugated"])
    assert operators["running_mean"] == pytest.approx([0.2, 0.4])
    assert (operators["loaded"], operators["channels_last"]) == ("simdev:0", True)
    assert (operators["written_through_view"], operators["resized"]) == (0, [2, 3])
    assert operators["index_add"] == [0.0, 2.0, 0.0, 1.0]
    refusals = basics["refusals"]
    assert "same device" in refusals["host_and_device"]
    assert "same device" in refusals["two_devices"]
    assert "numpy" in refusals["numpy"]
    assert {"capability", "generator"} <= refusals.keys()
