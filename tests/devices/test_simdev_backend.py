"""The simulated device: it must be a good device by default, and each quirk must bite.

Everything runs in child processes: registering the backend would change what torch calls the
current accelerator. One process answers many tests, because importing torch takes seconds.
"""

import functools
import json
import subprocess
import sys
from collections.abc import Callable
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

Ask = Callable[..., dict[str, Any]]


def run_child(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    env = {**env, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def ask(simdev_env: dict[str, str]) -> Ask:
    """Answers of a script with these quirks, asked once."""

    @functools.cache
    def answers_of(script: str, quirks: str = "") -> dict[str, Any]:
        done = run_child(str(SCRIPTS / script), env={**simdev_env, "SIMDEV_QUIRKS": quirks})
        assert done.returncode == 0, done.stderr[-4000:]
        answers: dict[str, Any] = json.loads(done.stdout)
        return answers

    return answers_of


def test_importing_torch_makes_simdev_the_current_accelerator_in_children_alone(ask: Ask) -> None:
    assert ask("basics.py")["runtime"] == {
        "accelerator": "simdev",
        "count": 2,
        "available": True,
        "inside_device_1": "simdev:1",
        "stream": "torch.Stream device_type=simdev, device_index=0, stream_id=0",
    }
    assert not hasattr(torch, "simdev")


def test_autoload_can_be_switched_off_and_an_unknown_quirk_is_refused(
    simdev_env: dict[str, str],
) -> None:
    code = "import torch; print(torch.accelerator.device_count(), hasattr(torch, 'simdev'))"
    off = run_child("-c", code, env={**simdev_env, "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"})
    assert off.stdout.split() == ["0", "False"]
    bad = run_child("-c", "import torch", env={**simdev_env, "SIMDEV_QUIRKS": "no_flaot64"})
    assert bad.returncode != 0
    assert "no_flaot64" in bad.stderr


def test_events_and_memory_statistics_follow_the_work(ask: Ask) -> None:
    assert 50 <= ask("basics.py")["event_ms"] < 5000
    memory = ask("basics.py")["memory"]
    rounded_bytes = -(-1_000_000 // 512) * 512
    assert memory["held_bytes"] == memory["peak_bytes"] == rounded_bytes
    assert memory["after_release_bytes"] == memory["reserved_after_empty_cache_bytes"] == 0
    assert memory["reserved_bytes"] >= rounded_bytes
    assert memory["free_bytes"] == memory["total_bytes"] == 16 * 2**30
    assert memory["properties_total_bytes"] == memory["total_bytes"]


def test_training_and_attention_equal_the_cpu(ask: Ask) -> None:
    basics = ask("basics.py")
    assert set(basics["training"]) == {"convolutions", "linear", "attention", "lstm", "gru"}
    assert max(basics["training"].values()) <= 1e-5
    attention = dict(basics["attention"])
    assert attention.pop("half") <= 0.1
    assert set(attention) == {"plain", "causal", "masked"}
    assert max(attention.values()) <= 1e-5


def test_autocast_computes_in_bf16_and_sums_in_fp32(ask: Ask) -> None:
    autocast = ask("basics.py")["autocast"]
    assert autocast["matmul_dtype"] == "torch.bfloat16"
    assert autocast["softmax_dtype"] == "torch.float32"
    assert autocast["difference"] == 0
    assert autocast["scaled_step"] == [0.0, 0.0, 0.0]


def test_the_fallback_writes_where_the_cpu_would(ask: Ask) -> None:
    operators = ask("basics.py")["operators"]
    assert operators["written_through_view"] == 0
    assert operators["resized"] == [2, 3]
    assert operators["index_add"] == [0.0, 2.0, 0.0, 1.0]
    assert operators["running_mean"] == pytest.approx([0.2, 0.4])
    assert operators["conjugated"] == pytest.approx(operators["expected_conjugated"])
    assert operators["loaded"] == "simdev:0"
    assert operators["channels_last"]
    assert ask("basics.py")["loader"] == {"pinned": True, "sum": 66.0}


def test_it_refuses_what_real_devices_refuse(ask: Ask) -> None:
    refusals = ask("basics.py")["refusals"]
    assert "same device" in refusals["host_and_device"]
    assert "same device" in refusals["two_devices"]
    assert "numpy" in refusals["numpy"]
    assert {"capability", "generator"} <= refusals.keys()


# Autocast lists differ between the CPU and accelerators, so reduced precision agrees only roughly.
@pytest.mark.parametrize(
    ("case", "tolerance"),
    [
        ("unet_fp32", 1e-5),
        ("unet_bf16", 0.1),
        ("unet_fp16", 0.02),
        ("llama_dynamic", 1e-5),
        ("llama_static", 1e-5),
        ("llama_fused", 1e-5),
        ("llama_compiled", 1e-5),
    ],
)
def test_the_nets_of_the_workloads_equal_the_cpu(ask: Ask, case: str, tolerance: float) -> None:
    found = ask("nets.py")[case]
    assert found["losses"] == pytest.approx(found["host_losses"], rel=min(tolerance, 1e-3))
    assert found["losses"][1] < found["losses"][0]
    assert found["largest_difference"] <= tolerance
    assert found["is_same_text"]


def test_nothing_is_missing_without_quirks(ask: Ask) -> None:
    answers = ask("quirks.py")
    assert {name for name, answer in answers.items() if "raised" in answer} == set()
    assert max(answers[dtype]["value"] for dtype in ("float16", "bfloat16")) < 1e-2
    assert answers["amp_dtypes"]["value"] == ["torch.float16", "torch.bfloat16"]
    assert answers["queue_ms"]["value"]["is_done_at_once"]


def test_quirks_for_missing_parts_raise_and_leave_the_rest(ask: Ask) -> None:
    answers = ask("quirks.py", MISSING)
    raised = {name for name, answer in answers.items() if "raised" in answer}
    assert raised == {
        "float64", "complex128", "bfloat16", "event", "queue_ms", "module_event", "pin_memory",
    }  # fmt: skip
    assert answers["float64"]["raised"] == "TypeError"
    assert answers["module_event"]["raised"] == "AttributeError"
    for name, word in (("float64", "float64"), ("bfloat16", "DT_BFLOAT16"), ("event", "events")):
        assert word in answers[name]["text"]
    assert answers["amp_dtypes"]["value"] == ["torch.float16"]


def test_faults_bite_where_they_should_and_only_there(ask: Ask) -> None:
    answers = ask("quirks.py", FAULTS)
    assert answers["float16"]["value"] == pytest.approx(0.125, rel=0.01)
    assert answers["float32"]["value"] == 0
    assert answers["bfloat16"]["value"] < 1e-2
    assert answers["memory_allocated"]["raised"] == "RuntimeError"
    assert answers["module_memory_allocated"]["raised"] == "AttributeError"
    assert (answers["count"]["value"], answers["device_0"]["value"]) == (2, 3.0)
    assert "device 1 is not healthy" in answers["device_1"]["text"]
    assert answers["48_mib"]["value"] == answers["48_mib_again"]["value"] == 48 * MIB
    assert answers["128_mib"]["raised"] == "RuntimeError"
    assert "SIMDEV out of memory. Tried to allocate 0.12 GiB" in answers["128_mib"]["text"]
    assert answers["total_bytes"]["value"] == 64 * MIB


def test_queued_device_time_is_seen_only_by_those_who_wait(ask: Ask) -> None:
    times_ms = ask("quirks.py", FAULTS)["queue_ms"]["value"]
    device_ms = 50 * QUEUE_US / 1000
    assert times_ms["events"] == pytest.approx(device_ms, rel=0.5)
    assert times_ms["synchronized"] >= device_ms
    assert times_ms["returned"] < times_ms["synchronized"]
    assert times_ms["item"] >= 2 * QUEUE_US / 1000
    assert not times_ms["is_done_at_once"]
    assert "must be completed" in times_ms["early"]["text"]
