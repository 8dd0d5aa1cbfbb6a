"""The simulated device is good and strict, and `bench` runs on it, whatever a vendor's quirk is.

It goes through the command line, in as few processes as show it: each takes seconds to import
torch and MONAI, so that a small net stands for the workloads where any would do. Nothing in the
harness knows the name `simdev`: what works here works on a backend that nobody has seen yet.
All of it runs in child processes: the backend would change what torch calls the accelerator here.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.cli import main

pytest_plugins = ["tests.simdev.fixture"]

ROOT = Path(__file__).parents[2]
BASICS = ROOT / "tests" / "simdev" / "scripts" / "basics.py"
NET = str(ROOT / "tests" / "workload_files" / "device_net.py")
PHASES = {"imaging-train", "imaging-infer", "llm-train", "llm-prefill", "llm-decode"}
MEMORY = ("mem_alloc_peak_bytes", "mem_reserved_peak_bytes", "mem_init_peak_bytes")
QUEUE_US = 1000
MISSING = "no_float64,no_bf16,no_events,no_memory_stats,no_pin_memory,wrong_fp16,fail_device_1"
"""All that can be missing: the second device, 64 bits, bf16, events, counters."""
UNHEALTHY = "simdev error 507: device 1 is not healthy"


def in_python(*arguments, env, quirks="", cwd=ROOT, **more) -> subprocess.CompletedProcess[str]:
    paths = f"{env['PYTHONPATH']}:{ROOT}"
    more = {**more, "PYTHONPATH": paths, "SIMDEV_QUIRKS": quirks, "OMP_NUM_THREADS": "1"}
    env = {**env, **more, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


def read_json(*arguments, **options):
    done = in_python(*arguments, **options)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def run(workload, *flags, env, out, quirks="", at="simdev"):
    """Exit code, rows and stderr of one `bench run --json`."""
    fixed = ("--size", "tiny", "--profile", "smoke", "--threads", "1", "--out", str(out), "--json")
    chosen = ("--device", at, "--workload", workload)
    # A loader's processes are tested once; they too import everything.
    loader = () if "--workers" in flags else ("--workers", "0")
    done = in_python("-m", "bench", "run", *chosen, *fixed, *loader, *flags, env=env, quirks=quirks)
    assert "Traceback" not in done.stderr, done.stderr[-4000:]
    rows = json.loads(done.stdout)["rows"] if done.stdout else []
    return done.returncode, rows, done.stderr


def assert_right(row):
    """The row is usable, nothing but short, and its output was compared with the CPU's."""
    assert row["status"] == "WARN", row
    harmless = {"smoke", "input_bound", "host_bound", "oom_shrunk"}
    assert set(row["reasons"].split(";")) <= harmless, row
    assert row["check_value"] is not None
    assert row["throughput_per_s"] > 0


def test_it_is_loaded_with_torch_unless_switched_off_and_refuses_what_real_devices_do(simdev_env):
    code = "import json, torch; print(json.dumps([torch.accelerator.device_count()]))"
    off = {"env": simdev_env, "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    assert read_json("-c", code, **off) == [0]
    assert not hasattr(torch, "simdev")
    refusals = read_json(str(BASICS), env=simdev_env)
    assert "same device" in refusals["host_and_device"]
    assert "same device" in refusals["two_devices"]
    assert "numpy" in refusals["numpy"]
    assert {"capability", "generator"} <= refusals.keys()
    assert "no_flaot64" in refusals["quirk"], "it would imitate nothing"


def test_workloads_run_on_a_backend_that_nobody_told_us_of(simdev_env, tmp_path):
    """Three phases; all five are run below."""
    code, rows, _ = run("llm-train,llm-decode,imaging-infer", env=simdev_env, out=tmp_path)
    # AdamW is one kernel where the backend has it, and the row says so.
    found = {row["workload"]: row.get("optimizer") for row in rows}
    assert found == {"llm-train": "AdamW-fused", "llm-decode": None, "imaging-infer": None}
    assert code == 0
    for row in rows:
        assert_right(row)
        assert (row["device"], row["device_name"]) == ("simdev:0", "Simulated Device")
        # An accelerator that computes bf16 is given bf16.
        assert row["dtype"] == "bf16"
        assert 0 < row["check_error_frac"] < 0.03
        # What nobody measured stays blank.
        blank = ("device_vendor", "chip", "energy_j", "peak_flops_per_s", "mfu_frac")
        assert [row.get(name) for name in (*blank, "power_mean_w")] == [None] * 6
        assert row["achieved_flops_per_s"] > 0
        assert (row["step_clock"], row["steps"] >= 3) == ("event", True)
        # Marks are whole milliseconds here, and the steps are a few.
        assert row["step_mean_ms"] * row["steps"] <= row["window_s"] * 1e3 + 1
        assert row["host_gap_frac"] < 0.2
        peak, reserved, before = (row[name] for name in MEMORY)
        assert 0 < peak <= reserved
        assert before > 0
        assert 0.3 < row["mem_estimate_bytes"] / peak < 4


def test_devices_are_described_and_what_is_wrong_with_them_is_found(simdev_env):
    for quirks in ("", MISSING):
        shown = read_json("-m", "bench", "devices", "--json", env=simdev_env, quirks=quirks)
        first, second, cpu = shown["devices"]
        assert [one["label"] for one in (first, second, cpu)] == ["simdev:0", "simdev:1", "cpu"]
        assert (first["vendor"], first["memory_bytes"], first["chips"]) == (None, 16 * 2**30, [])
        states = [first["dtypes"][dtype] for dtype in ("fp64", "fp32", "bf16", "fp16")]
        # Missing dtypes, wrong products and a device that fails when used stop nothing.
        assert states == (["raises", "ok", "raises", "wrong"] if quirks else ["ok"] * 4)
        assert (second["dtypes"] is None) == bool(quirks)
        assert shown["problems"] == [f"simdev:1 does not work: {UNHEALTHY}"] * bool(quirks)


def test_no_line_of_the_harness_knows_this_device():
    files = [path for folder in ("bench", "workloads") for path in (ROOT / folder).rglob("*")]
    texts = {path: path.read_bytes() for path in files if path.suffix in (".py", ".yaml", ".md")}
    assert len(texts) > 100
    assert [path for path, text in texts.items() if b"simdev" in text.lower()] == []


def test_real_files_pass_through_a_loader_process_in_channels_last(simdev_env, tmp_path):
    """In fp16, which scales gradients."""
    data = tmp_path / "Task"
    assert main(["data", "phantom", str(data), "--cases", "4"]) == 0
    flags = ("--workers", "1", "--channels-last", "--dtype", "fp16", "--data", str(data))
    _, (row,), _ = run("imaging-train", *flags, env=simdev_env, out=tmp_path)
    assert_right(row)
    assert (row["dtype"], row["workers"], row["channels_last"]) == ("fp16", 1, True)
    assert row["optimizer"] == "SGD"
    assert row["check_error_frac"] < 0.03
    assert row["data"].startswith("content-")
    assert row["data_wait_frac"] >= 0


def test_steps_of_several_devices_are_simulated_on_any_accelerator(simdev_env, tmp_path):
    flags = ("--devices", "2", "--link", "10gbe", "--parallel", "ddp,fsdp")
    code, rows, stderr = run(NET, *flags, env=simdev_env, out=tmp_path)
    assert (code, len(rows)) == (0, 2)
    assert "simulated: a link is emulated on a CPU or an NVIDIA GPU" in stderr
    for row in rows:
        assert (row["status"], row["mode"]) == ("WARN", "simulated"), row
        assert row["comm_ops"] >= 1 and row["comm_total_ms"] > 0
        assert row["step_high_ms"] >= row["step_low_ms"] >= row["compute_step_ms"] > 0


# Vendors' quirks ----------------------------------------------------------------------------------


SUITE = f"""
import pytest

@pytest.mark.parametrize("phase", {sorted(PHASES)})
def test_phase(bench_workload, phase):
    step = bench_workload(phase, device="simdev:0", warmup_steps=1)
    # Also that tied weights are still tied: 1 % otherwise, from the embedding's gradient.
    assert step._engine.check.error_frac < 1e-5
"""


def test_without_float64_every_phase_computes_right_in_fp32(simdev_env, tmp_path):
    """All five in one process, whose outputs the fixture compares with the CPU's."""
    (tmp_path / "test_suite.py").write_text(SUITE)
    # Named here, since not every checkout is installed; an installed one must not name it again.
    plugin = ("-p", "bench.pytest_plugin", "-p", "no:cacheprovider")
    done = in_python("-m", "pytest", "-q", *plugin, env=simdev_env, quirks=MISSING, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-4000:]
    assert f"{len(PHASES)} passed" in done.stdout


def test_what_a_device_lacks_is_replaced_or_blank_and_the_row_says_so(simdev_env, tmp_path):
    """Memory too: the first trial runs out of it, and half the batch is another row."""
    flags = ("--batch", "16", "--oom-shrink")
    quirks = f"{MISSING},oom_above=12000000"
    code, rows, _ = run(NET, *flags, env=simdev_env, out=tmp_path, quirks=quirks)
    assert (code, {row["dtype"] for row in rows}) == (0, {"fp32"})
    failed, shrunk = rows
    assert (failed["status"], failed["reasons"]) == ("FAILED", "out_of_memory")
    assert "SIMDEV out of memory" in failed["detail"]
    assert (failed["batch"], shrunk["batch"]) == (16, 8)
    assert_right(shrunk)
    assert "oom_shrunk" in shrunk["reasons"]
    assert (shrunk["step_clock"], shrunk.get("host_gap_frac")) == ("host_sync", None)
    assert {row.get(name) for row in rows for name in MEMORY} == {None}


def test_the_size_fits_in_memory_that_only_the_backend_tells_of(simdev_env):
    chosen = ("run", "--device", "simdev", "--workload", "llm-decode", "--profile", "smoke")
    # Without statistics the total, which the device states, is all that is known.
    limits = {"oom_above=300000000": "small", "oom_above=60000000,no_memory_stats": "tiny"}
    for quirks, size in limits.items():
        done = in_python("-m", "bench", *chosen, "--dry-run", env=simdev_env, quirks=quirks)
        assert done.returncode == 0, done.stderr[-2000:]
        assert size in done.stdout
        assert "large" not in done.stdout.replace("largest", "")


@pytest.mark.parametrize(
    ("dtype", "quirk", "reasons", "detail"),
    [
        ("bf16", "no_bf16", "unsupported_dtype", "simdev:0 refuses bf16; it works in fp32"),
        ("fp16", "wrong_fp16", "unsupported_dtype", "simdev:0 computes wrong results in fp16; it "),
        ("fp16", "no_float64", "unsupported_op", "does not have; use --dtype bf16 or fp32"),
    ],
)
def test_a_dtype_that_a_device_refuses_or_gets_wrong_is_not_measured(
    simdev_env, tmp_path, dtype, quirk, reasons, detail
):
    code, (row,), _ = run(NET, "--dtype", dtype, env=simdev_env, out=tmp_path, quirks=quirk)
    assert (code, row["status"], row["reasons"]) == (4, "FAILED", reasons)
    assert row["dtype"] == dtype
    assert detail in row["detail"]


def test_the_window_holds_the_device_time_that_was_only_queued(simdev_env, tmp_path):
    """An operator returns at once and takes QUEUE_US on the device: a step is a multiple of it."""
    found = []
    for queue_us, clock in ((QUEUE_US, "event"), (2 * QUEUE_US, "host_sync")):
        quirks = f"queue_us={queue_us}" + (",no_events" if clock == "host_sync" else "")
        asked = {"env": simdev_env, "out": tmp_path / clock, "quirks": quirks, "at": "simdev:1"}
        _, (row,), _ = run(NET, "--dtype", "fp32", **asked)
        # The device that was asked for is the current one.
        assert (row["status"], row["device"], row["step_clock"]) == ("WARN", "simdev:1", clock)
        num_operators = row["step_p05_ms"] * 1e3 / queue_us
        assert row["window_s"] >= 0.95 * row["steps"] * num_operators * queue_us / 1e6
        found.append(num_operators)
    assert found[0] > 60
    assert found[1] == pytest.approx(found[0], rel=0.1)
