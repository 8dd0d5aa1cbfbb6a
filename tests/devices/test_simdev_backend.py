"""The simulated device: it must be a good device by default, and each quirk must bite.

Everything runs in child processes: registering the backend would change what torch calls the
current accelerator. One process answers many questions, because importing torch takes seconds.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest_plugins = ["tests.simdev.fixture"]

SCRIPTS = Path(__file__).parents[1] / "simdev" / "scripts"
MIB = 2**20
QUEUE_US = 2000
MISSING = "no_float64,no_bf16,no_events,no_pin_memory"
FAULTS = f"wrong_fp16,no_memory_stats,fail_device_1,oom_above={64 * MIB},queue_us={QUEUE_US}"


def run_child(*arguments: str, env: dict[str, str], **more: str) -> str:
    command = [sys.executable, *arguments]
    env = {**env, "OMP_NUM_THREADS": "1", **more}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def answers(script: str, *, env: dict[str, str], quirks: str = "") -> dict[str, Any]:
    answered: dict[str, Any] = json.loads(
        run_child(str(SCRIPTS / script), env=env, SIMDEV_QUIRKS=quirks)
    )
    return answered


def test_autoload_can_be_switched_off(simdev_env: dict[str, str]) -> None:
    code = "import torch; print(torch.accelerator.device_count(), hasattr(torch, 'simdev'))"
    off = run_child("-c", code, env=simdev_env, TORCH_DEVICE_BACKEND_AUTOLOAD="0")
    assert off.split() == ["0", "False"]


def test_without_quirks_it_is_a_good_device_in_child_processes_alone(
    simdev_env: dict[str, str],
) -> None:
    basics = answers("basics.py", env=simdev_env)
    assert basics["runtime"] == {
        "accelerator": "simdev",
        "count": 2,
        "available": True,
        "inside_device_1": "simdev:1",
        "stream": "torch.Stream device_type=simdev, device_index=0, stream_id=0",
    }
    assert not hasattr(torch, "simdev")
    # Events and memory statistics follow the work.
    assert 50 <= basics["event_ms"] < 5000
    memory = basics["memory"]
    rounded_bytes = -(-1_000_000 // 512) * 512
    assert memory["held_bytes"] == memory["peak_bytes"] == rounded_bytes
    assert memory["after_release_bytes"] == memory["reserved_after_empty_cache_bytes"] == 0
    assert memory["reserved_bytes"] >= rounded_bytes
    assert memory["free_bytes"] == memory["total_bytes"] == 16 * 2**30
    assert memory["properties_total_bytes"] == memory["total_bytes"]
    # Training, attention and reduced precision equal the CPU.
    assert set(basics["training"]) == {"convolutions", "linear", "attention", "lstm", "gru"}
    assert max(basics["training"].values()) <= 1e-5
    attention = basics["attention"]
    assert attention.pop("half") <= 0.1
    assert set(attention) == {"plain", "causal", "masked"}
    assert max(attention.values()) <= 1e-5
    assert basics["autocast"] == {
        "matmul_dtype": "torch.bfloat16",
        "softmax_dtype": "torch.float32",
        "difference": 0,
        "scaled_step": [0.0, 0.0, 0.0],
    }
    # The fallback writes where the CPU would.
    operators = basics["operators"]
    assert operators["conjugated"] == pytest.approx(operators["expected_conjugated"])
    assert operators["running_mean"] == pytest.approx([0.2, 0.4])
    assert (operators["loaded"], operators["channels_last"]) == ("simdev:0", True)
    assert (operators["written_through_view"], operators["resized"]) == (0, [2, 3])
    assert operators["index_add"] == [0.0, 2.0, 0.0, 1.0]
    assert basics["loader"] == {"pinned": True, "sum": 66.0}
    # It refuses what real devices refuse.
    refusals = basics["refusals"]
    assert "same device" in refusals["host_and_device"]
    assert "same device" in refusals["two_devices"]
    assert "numpy" in refusals["numpy"]
    assert {"capability", "generator"} <= refusals.keys()


def test_quirks_for_missing_parts_raise_and_leave_the_rest(simdev_env: dict[str, str]) -> None:
    whole = answers("quirks.py", env=simdev_env)
    assert {name for name, answer in whole.items() if "raised" in answer} == set()
    assert max(whole[dtype]["value"] for dtype in ("float16", "bfloat16")) < 1e-2
    assert whole["amp_dtypes"]["value"] == ["torch.float16", "torch.bfloat16"]
    assert whole["queue_ms"]["value"]["is_done_at_once"]
    partial = answers("quirks.py", env=simdev_env, quirks=MISSING)
    texts = {name: str(answer) for name, answer in partial.items() if "raised" in answer}
    words = {
        "float64": "float64",
        "complex128": "TypeError",
        "bfloat16": "DT_BFLOAT16",
        "event": "events",
        "queue_ms": "events",
        "module_event": "AttributeError",
        "pin_memory": "RuntimeError",
    }
    assert texts.keys() == words.keys()
    assert [name for name, word in words.items() if word not in texts[name]] == []
    assert partial["float64"]["raised"] == "TypeError"
    assert partial["amp_dtypes"]["value"] == ["torch.float16"]


def test_faults_bite_where_they_should_and_only_there(simdev_env: dict[str, str]) -> None:
    faulty = answers("quirks.py", env=simdev_env, quirks=FAULTS)
    assert faulty["float16"]["value"] == pytest.approx(0.125, rel=0.01)
    assert faulty["float32"]["value"] == 0
    assert faulty["bfloat16"]["value"] < 1e-2
    assert faulty["memory_allocated"]["raised"] == "RuntimeError"
    assert faulty["module_memory_allocated"]["raised"] == "AttributeError"
    assert (faulty["count"]["value"], faulty["device_0"]["value"]) == (2, 3.0)
    assert "device 1 is not healthy" in faulty["device_1"]["text"]
    assert faulty["48_mib"]["value"] == faulty["48_mib_again"]["value"] == 48 * MIB
    assert faulty["128_mib"]["raised"] == "RuntimeError"
    assert "SIMDEV out of memory. Tried to allocate 0.12 GiB" in faulty["128_mib"]["text"]
    assert faulty["total_bytes"]["value"] == 64 * MIB
    # Queued device time is seen only by those who wait.
    times_ms = faulty["queue_ms"]["value"]
    device_ms = 50 * QUEUE_US / 1000
    assert times_ms["events"] == pytest.approx(device_ms, rel=0.5)
    assert times_ms["synchronized"] >= device_ms
    assert times_ms["returned"] < times_ms["synchronized"]
    assert times_ms["item"] >= 2 * QUEUE_US / 1000
    assert not times_ms["is_done_at_once"]
    assert "must be completed" in times_ms["early"]["text"]
