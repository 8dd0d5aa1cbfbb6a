"""The simulated device: it must be a good device by default, and each quirk must bite.

Everything runs in child processes: registering the backend would change what torch calls the
current accelerator. One process answers many tests, because importing torch takes seconds.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest_plugins = ["tests.simdev.fixture"]

SCRIPTS = Path(__file__).parents[1] / "simdev" / "scripts"
MIB = 2**20
QUEUE_US = 2000


def run_child(
    arguments: list[str], *, env: dict[str, str], quirks: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env={**env, "SIMDEV_QUIRKS": quirks, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def answers_of(script: str, *, env: dict[str, str], quirks: str = "") -> dict[str, Any]:
    done = run_child([str(SCRIPTS / script)], env=env, quirks=quirks)
    assert done.returncode == 0, done.stderr[-4000:]
    answers: dict[str, Any] = json.loads(done.stdout)
    return answers


@pytest.fixture(scope="module")
def basics(simdev_env: dict[str, str]) -> dict[str, Any]:
    return answers_of("basics.py", env=simdev_env)


@pytest.fixture(scope="module")
def nets(simdev_env: dict[str, str]) -> dict[str, Any]:
    return answers_of("nets.py", env=simdev_env)


@pytest.fixture(scope="module")
def without_quirks(simdev_env: dict[str, str]) -> dict[str, Any]:
    return answers_of("quirks.py", env=simdev_env)


@pytest.fixture(scope="module")
def with_missing_parts(simdev_env: dict[str, str]) -> dict[str, Any]:
    quirks = "no_float64,no_bf16,no_events,no_pin_memory"
    return answers_of("quirks.py", env=simdev_env, quirks=quirks)


@pytest.fixture(scope="module")
def with_faults(simdev_env: dict[str, str]) -> dict[str, Any]:
    quirks = f"wrong_fp16,no_memory_stats,fail_device_1,oom_above={64 * MIB},queue_us={QUEUE_US}"
    return answers_of("quirks.py", env=simdev_env, quirks=quirks)


def test_importing_torch_makes_simdev_the_current_accelerator(basics: dict[str, Any]) -> None:
    assert basics["runtime"] == {
        "accelerator": "simdev",
        "count": 2,
        "available": True,
        "inside_device_1": "simdev:1",
        "stream": "torch.Stream device_type=simdev, device_index=0, stream_id=0",
    }


def test_autoload_can_be_switched_off(simdev_env: dict[str, str]) -> None:
    env = {**simdev_env, "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    code = "import torch; print(torch.accelerator.device_count(), hasattr(torch, 'simdev'))"
    assert run_child(["-c", code], env=env).stdout.split() == ["0", "False"]


def test_the_test_process_itself_has_no_simdev(basics: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    assert basics["runtime"]["accelerator"] == "simdev"
    assert not hasattr(torch, "simdev")


def test_events_measure_the_time_between_them(basics: dict[str, Any]) -> None:
    assert 50 <= basics["event_ms"] < 5000


def test_memory_statistics_follow_one_block(basics: dict[str, Any]) -> None:
    rounded_bytes = -(-1_000_000 // 512) * 512
    memory = basics["memory"]
    assert memory["held_bytes"] == rounded_bytes
    assert memory["peak_bytes"] == rounded_bytes
    assert memory["after_release_bytes"] == 0
    assert memory["reserved_bytes"] >= rounded_bytes
    assert memory["reserved_after_empty_cache_bytes"] == 0
    assert memory["free_bytes"] == memory["total_bytes"] == 16 * 2**30
    assert memory["properties_total_bytes"] == memory["total_bytes"]


@pytest.mark.parametrize("net", ["convolutions", "linear", "attention", "lstm", "gru"])
def test_two_training_steps_equal_the_cpu(basics: dict[str, Any], net: str) -> None:
    assert basics["training"][net] <= 1e-5


@pytest.mark.parametrize("variant", ["plain", "causal", "masked"])
def test_attention_and_its_gradients_equal_the_cpu(basics: dict[str, Any], variant: str) -> None:
    assert basics["attention"][variant] <= 1e-5


def test_attention_in_bf16_is_as_close_as_bf16_can_be(basics: dict[str, Any]) -> None:
    assert basics["attention"]["half"] <= 0.1


def test_autocast_computes_in_bf16_and_sums_in_fp32(basics: dict[str, Any]) -> None:
    autocast = basics["autocast"]
    assert autocast["matmul_dtype"] == "torch.bfloat16"
    assert autocast["softmax_dtype"] == "torch.float32"
    assert autocast["difference"] == 0


def test_gradient_scaling_leaves_the_step_as_it_is(basics: dict[str, Any]) -> None:
    assert basics["autocast"]["scaled_step"] == [0.0, 0.0, 0.0]


def test_a_loader_pins_and_moves_batches(basics: dict[str, Any]) -> None:
    assert basics["loader"] == {"pinned": True, "sum": 66.0}


def test_the_fallback_writes_where_the_cpu_would(basics: dict[str, Any]) -> None:
    operators = basics["operators"]
    assert operators["written_through_view"] == 0
    assert operators["resized"] == [2, 3]
    assert operators["index_add"] == [0.0, 2.0, 0.0, 1.0]
    assert operators["running_mean"] == pytest.approx([0.2, 0.4])
    assert operators["conjugated"] == pytest.approx(operators["expected_conjugated"])
    assert operators["loaded"] == "simdev:0"
    assert operators["channels_last"]


def test_it_refuses_what_real_devices_refuse(basics: dict[str, Any]) -> None:
    refusals = basics["refusals"]
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
def test_the_nets_of_the_workloads_equal_the_cpu(
    nets: dict[str, Any], case: str, tolerance: float
) -> None:
    found = nets[case]
    assert found["losses"] == pytest.approx(found["host_losses"], rel=min(tolerance, 1e-3))
    assert found["losses"][1] < found["losses"][0]
    assert found["largest_difference"] <= tolerance
    assert found["is_same_text"]


def test_nothing_is_missing_without_quirks(without_quirks: dict[str, Any]) -> None:
    assert {name for name, answer in without_quirks.items() if "raised" in answer} == set()
    assert without_quirks["float16"]["value"] < 1e-2
    assert without_quirks["bfloat16"]["value"] < 1e-2
    assert without_quirks["amp_dtypes"]["value"] == ["torch.float16", "torch.bfloat16"]


def test_quirks_for_missing_parts_raise_and_leave_the_rest(
    with_missing_parts: dict[str, Any],
) -> None:
    raised = {name for name, answer in with_missing_parts.items() if "raised" in answer}
    assert raised == {
        "float64", "complex128", "bfloat16", "event", "queue_ms", "module_event", "pin_memory",
    }  # fmt: skip
    assert with_missing_parts["float64"]["raised"] == "TypeError"
    assert "float64" in with_missing_parts["float64"]["text"]
    assert "DT_BFLOAT16" in with_missing_parts["bfloat16"]["text"]
    assert "events" in with_missing_parts["event"]["text"]
    assert with_missing_parts["module_event"]["raised"] == "AttributeError"
    assert with_missing_parts["amp_dtypes"]["value"] == ["torch.float16"]


def test_wrong_fp16_is_wrong_only_in_fp16(with_faults: dict[str, Any]) -> None:
    assert with_faults["float16"]["value"] == pytest.approx(0.125, rel=0.01)
    assert with_faults["float32"]["value"] == 0
    assert with_faults["bfloat16"]["value"] < 1e-2


def test_missing_memory_statistics_raise(with_faults: dict[str, Any]) -> None:
    assert with_faults["memory_allocated"]["raised"] == "RuntimeError"
    assert with_faults["module_memory_allocated"]["raised"] == "AttributeError"


def test_a_failing_device_1_is_still_counted(with_faults: dict[str, Any]) -> None:
    assert with_faults["count"]["value"] == 2
    assert with_faults["device_0"]["value"] == 3.0
    assert "device 1 is not healthy" in with_faults["device_1"]["text"]


def test_memory_runs_out_with_the_words_of_a_vendor(with_faults: dict[str, Any]) -> None:
    assert with_faults["48_mib"]["value"] == 48 * MIB
    assert with_faults["128_mib"]["raised"] == "RuntimeError"
    assert "SIMDEV out of memory. Tried to allocate 0.12 GiB" in with_faults["128_mib"]["text"]
    assert with_faults["48_mib_again"]["value"] == 48 * MIB
    assert with_faults["total_bytes"]["value"] == 64 * MIB


def test_queued_device_time_is_seen_only_by_those_who_wait(with_faults: dict[str, Any]) -> None:
    times_ms = with_faults["queue_ms"]["value"]
    device_ms = 50 * QUEUE_US / 1000
    assert times_ms["events"] == pytest.approx(device_ms, rel=0.5)
    assert times_ms["synchronized"] >= device_ms
    assert times_ms["returned"] < times_ms["synchronized"]
    assert times_ms["item"] >= 2 * QUEUE_US / 1000
    assert not times_ms["is_done_at_once"]
    assert "must be completed" in times_ms["early"]["text"]


def test_without_a_queue_work_is_done_when_python_returns(without_quirks: dict[str, Any]) -> None:
    assert without_quirks["queue_ms"]["value"]["is_done_at_once"]


def test_an_unknown_quirk_is_refused(simdev_env: dict[str, str]) -> None:
    done = run_child(["-c", "import torch"], env=simdev_env, quirks="no_flaot64")
    assert done.returncode != 0
    assert "no_flaot64" in done.stderr
