"""`bench run` on the simulated device: every phase, and what each vendor's quirk makes of it.

It goes through the command line, in as few processes as show it: each takes seconds to import
torch and MONAI. Nothing in the harness knows the name `simdev`: what works here works on a backend
that nobody has seen yet.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bench.cli import main
from bench.measure.engine.precision import place_net

pytest_plugins = ["tests.simdev.fixture"]

ROOT = Path(__file__).parents[2]
PHASES = {"imaging-train", "imaging-infer", "llm-train", "llm-prefill", "llm-decode"}
MEMORY = ("mem_alloc_peak_bytes", "mem_reserved_peak_bytes", "mem_init_peak_bytes")
QUEUE_US = 1000

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What one `bench run --json` left."""

    code: int
    stderr: str
    rows: list[Row]

    def row(self, workload: str) -> Row:
        (row,) = (row for row in self.rows if row["workload"] == workload)
        return row


def environment(env: dict[str, str], *, quirks: str) -> dict[str, str]:
    paths = f"{env['PYTHONPATH']}:{ROOT}"
    return {**env, "PYTHONPATH": paths, "SIMDEV_QUIRKS": quirks, "OMP_NUM_THREADS": "1"}


def bench(*arguments: str, env: dict[str, str], quirks: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        env=environment(env, quirks=quirks),
        capture_output=True,
        text=True,
        check=False,
    )


def run(
    workload: str, *flags: str, env: dict[str, str], out: Path, quirks: str = "", label: str = ""
) -> Ran:
    fixed = ("--size", "tiny", "--profile", "smoke", "--threads", "1", "--out", str(out), "--json")
    chosen = ("--device", label or "simdev", "--workload", workload)
    # A loader's processes are tested once; they too import everything.
    loader = () if "--workers" in flags else ("--workers", "0")
    done = bench("run", *chosen, *fixed, *loader, *flags, env=env, quirks=quirks)
    assert "Traceback" not in done.stderr, done.stderr[-4000:]
    rows = json.loads(done.stdout)["rows"] if done.stdout else []
    return Ran(code=done.returncode, stderr=done.stderr, rows=rows)


def assert_right(row: Row) -> None:
    """The row is usable, nothing but short, and its output was compared with the CPU's."""
    assert row["status"] == "WARN", row
    assert set(row["reasons"].split(";")) <= {"smoke", "input_bound", "host_bound", "oom_shrunk"}, (
        row
    )
    assert row["check_value"] is not None
    assert row["throughput_per_s"] > 0


# A good device ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def everything(simdev_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return run("all", env=simdev_env, out=tmp_path_factory.mktemp("all"))


def test_all_five_phases_run_on_a_backend_that_nobody_told_us_of(everything: Ran) -> None:
    assert everything.code == 0
    assert {row["workload"] for row in everything.rows} == PHASES
    for row in everything.rows:
        assert_right(row)
        assert (row["device"], row["device_name"]) == ("simdev:0", "Simulated Device")
        # An accelerator that computes bf16 is given bf16.
        assert row["dtype"] == "bf16"
        assert 0 < row["check_error_frac"] < 0.03
        # What nobody measured stays blank.
        blank = ("device_vendor", "chip", "energy_j", "peak_flops_per_s", "mfu_frac")
        assert [row.get(name) for name in (*blank, "power_mean_w")] == [None] * 6
        assert row["achieved_flops_per_s"] > 0
    # AdamW is one kernel where the backend has it, and the row says so.
    found = {row["workload"]: row.get("optimizer") for row in everything.rows}
    trained = {"llm-train": "AdamW-fused", "imaging-train": "SGD"}
    assert found == {name: trained.get(name) for name in PHASES}


def test_steps_are_timed_by_events_and_memory_is_counted(everything: Ran) -> None:
    for row in everything.rows:
        assert row["step_clock"] == "event"
        assert row["steps"] >= 3
        # Marks are whole milliseconds here, and the steps are a few.
        assert row["step_mean_ms"] * row["steps"] <= row["window_s"] * 1e3 + 1
        assert row["host_gap_frac"] < 0.2
        peak, reserved, before = (row[name] for name in MEMORY)
        assert 0 < peak <= reserved
        assert before > 0
        assert 0.3 < row["mem_estimate_bytes"] / peak < 4


CURRENT = """
from dataclasses import dataclass
from tests.workload_files import small_net

@dataclass(frozen=True, kw_only=True)
class Workload(small_net.Workload):
    \"\"\"A layer whose loss is on whatever device is current.\"\"\"

    def loss(self, net, batch):
        import torch

        if batch.device.type == "cpu":
            return net(batch).square().mean()
        return net(batch).square().mean() + torch.zeros((), device=batch.device.type)
"""


def test_the_device_that_was_asked_for_is_the_current_one(
    simdev_env: dict[str, str], tmp_path: Path
) -> None:
    """Triton and vendors' libraries launch on the current device, whatever the tensors' is."""
    (tmp_path / "current.py").write_text(CURRENT)
    done = bench(
        *("run", "--workload", str(tmp_path / "current.py"), "--profile", "smoke", "--json"),
        *("--device", "simdev:1", "--workers", "0", "--out", str(tmp_path)),
        env=simdev_env,
        quirks="",
    )
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-4000:]
    rows = json.loads(done.stdout)["rows"]
    assert {(row["status"], row["device"]) for row in rows} == {("WARN", "simdev:1")}, rows


def test_no_line_of_the_harness_knows_this_device() -> None:
    files = [path for folder in ("bench", "workloads") for path in (ROOT / folder).rglob("*")]
    texts = {path: path.read_bytes() for path in files if path.suffix in (".py", ".yaml", ".md")}
    assert len(texts) > 100
    assert [path for path, text in texts.items() if b"simdev" in text.lower()] == []


def test_real_files_pass_through_a_loader_process_in_channels_last(
    simdev_env: dict[str, str], tmp_path: Path
) -> None:
    """In fp16, which scales gradients."""
    data = tmp_path / "Task"
    assert main(["data", "phantom", str(data), "--cases", "4"]) == 0
    flags = ("--workers", "1", "--channels-last", "--dtype", "fp16", "--data", str(data))
    row = run("imaging-train", *flags, env=simdev_env, out=tmp_path).row("imaging-train")
    assert_right(row)
    assert (row["dtype"], row["workers"], row["channels_last"]) == ("fp16", 1, True)
    assert row["check_error_frac"] < 0.03
    assert row["data"].startswith("files-")
    assert row["data_wait_frac"] >= 0


def test_steps_of_several_devices_are_simulated_on_any_accelerator(
    simdev_env: dict[str, str], tmp_path: Path
) -> None:
    flags = ("--devices", "2", "--parallel", "ddp,fsdp", "--link", "10gbe", "--mode", "simulated")
    ran = run("llm-train", *flags, env=simdev_env, out=tmp_path)
    assert (ran.code, len(ran.rows)) == (0, 2)
    for row in ran.rows:
        assert (row["status"], row["mode"]) == ("WARN", "simulated"), row
        assert row["comm_ops"] >= 1 and row["comm_total_ms"] > 0
        assert row["step_high_ms"] >= row["step_low_ms"] >= row["compute_step_ms"] > 1
    ran = run("llm-train", *flags[:-1], "emulated", env=simdev_env, out=tmp_path)
    assert ran.code == 4
    assert "cannot be emulated on simdev" in ran.rows[0]["detail"]
    assert "use --mode simulated" in ran.rows[0]["detail"]


# Vendors' quirks ----------------------------------------------------------------------------------


MISSING = "no_float64,no_bf16,no_events,no_memory_stats,no_pin_memory,wrong_fp16,fail_device_1"
"""All that can be missing: the second device, 64 bits, bf16, events, counters."""
SUITE = f"""
import pytest

@pytest.mark.parametrize("phase", {sorted(PHASES)})
def test_phase(bench_workload, phase):
    step = bench_workload(phase, device="simdev:0", warmup_steps=1)
    # Also that tied weights are still tied: 1 % otherwise, from the embedding's gradient.
    assert step._engine.check.error_frac < 1e-5
"""


def test_without_float64_every_phase_computes_right_in_fp32(
    simdev_env: dict[str, str], tmp_path: Path
) -> None:
    """All five in one process, whose outputs the fixture compares with the CPU's."""
    (tmp_path / "test_suite.py").write_text(SUITE)
    # Named here, since not every checkout is installed; an installed one must not name it again.
    plugin = ("-p", "bench.pytest_plugin", "-p", "no:cacheprovider")
    env = environment(simdev_env, quirks=MISSING) | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugin],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert f"{len(PHASES)} passed" in done.stdout


@pytest.fixture(scope="module")
def least(simdev_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A run where all that can be missing is missing, memory too."""
    flags = ("--batch", "16", "--oom-shrink")
    quirks = f"{MISSING},oom_above=12000000"
    return run(
        "llm-train", *flags, env=simdev_env, out=tmp_path_factory.mktemp("least"), quirks=quirks
    )


def test_memory_that_runs_out_is_a_row_and_half_the_batch_another(least: Ran) -> None:
    assert least.code == 0
    failed, shrunk = least.rows
    assert (failed["status"], failed["reasons"]) == ("FAILED", "out_of_memory")
    assert "SIMDEV out of memory" in failed["detail"]
    assert (failed["batch"], shrunk["batch"]) == (16, 8)
    assert (shrunk["status"], shrunk["reasons"]) == ("WARN", "oom_shrunk;smoke")
    assert_right(shrunk)


def test_what_a_device_lacks_is_replaced_or_blank_and_the_row_says_so(least: Ran) -> None:
    assert {row["dtype"] for row in least.rows} == {"fp32"}
    assert least.rows[-1]["step_clock"] == "host_sync"
    assert least.rows[-1].get("host_gap_frac") is None
    assert {row.get(name) for row in least.rows for name in MEMORY} == {None}


def test_the_size_fits_in_memory_that_only_the_backend_tells_of(
    simdev_env: dict[str, str],
) -> None:
    chosen = ("run", "--device", "simdev", "--workload", "llm-decode", "--profile", "smoke")
    # Without statistics the total, which the device states, is all that is known.
    limits = {"oom_above=300000000": "small", "oom_above=60000000,no_memory_stats": "tiny"}
    for quirks, size in limits.items():
        done = bench(*chosen, "--dry-run", env=simdev_env, quirks=quirks)
        assert done.returncode == 0, done.stderr[-2000:]
        assert size in done.stdout
        assert "large" not in done.stdout.replace("largest", "")


def test_a_dtype_that_a_device_refuses_or_gets_wrong_is_not_measured(
    simdev_env: dict[str, str], tmp_path: Path
) -> None:
    ran = run(
        "llm-decode",
        "--dtype",
        "bf16,fp16",
        env=simdev_env,
        out=tmp_path,
        quirks="no_bf16,wrong_fp16",
    )
    assert ran.code == 4
    found = {row["dtype"]: (row["status"], row["reasons"], row["detail"]) for row in ran.rows}
    assert found == {
        "bf16": ("FAILED", "unsupported_dtype", "simdev:0 refuses bf16; it works in fp32"),
        "fp16": (
            "FAILED",
            "unsupported_dtype",
            "simdev:0 computes wrong results in fp16; it works in fp32",
        ),
    }


def test_fp16_training_without_float64_says_that_it_cannot_scale_gradients(
    simdev_env: dict[str, str], tmp_path: Path
) -> None:
    bad = run("llm-train", "--dtype", "fp16", env=simdev_env, out=tmp_path, quirks="no_float64")
    assert bad.code == 4
    row = bad.row("llm-train")
    assert (row["status"], row["reasons"]) == ("FAILED", "unsupported_op")
    assert "torch scales fp16 gradients with float64, which simdev:0 does not have" in row["detail"]
    assert "use --dtype bf16 or fp32" in row["detail"]


def test_a_device_that_fails_when_used_is_named_before_anything_runs(
    simdev_env: dict[str, str], tmp_path: Path
) -> None:
    ran = run("llm-decode", env=simdev_env, out=tmp_path, quirks="fail_device_1", label="simdev:1")
    assert (ran.code, ran.rows) == (4, [])
    assert ran.stderr.splitlines()[-1] == (
        "bench: simdev:1 does not work: simdev error 507: device 1 is not healthy"
    )


def test_the_window_holds_the_device_time_that_was_only_queued(
    simdev_env: dict[str, str], tmp_path: Path
) -> None:
    """An operator returns at once and takes QUEUE_US on the device: a step is a multiple of it."""
    flags = ("llm-prefill", "--dtype", "fp32")
    events = run(*flags, env=simdev_env, out=tmp_path / "1", quirks=f"queue_us={QUEUE_US}")
    quirks = f"queue_us={2 * QUEUE_US},no_events"
    waiting = run(*flags, env=simdev_env, out=tmp_path / "2", quirks=quirks)
    by_event, by_host = events.row("llm-prefill"), waiting.row("llm-prefill")
    assert (by_event["step_clock"], by_host["step_clock"]) == ("event", "host_sync")
    num_operators = by_event["step_p05_ms"] * 1e3 / QUEUE_US
    assert num_operators > 40  # two layers of Llama
    assert by_host["step_p05_ms"] * 1e3 / (2 * QUEUE_US) == pytest.approx(num_operators, rel=0.1)
    for row, queue_us in ((by_event, QUEUE_US), (by_host, 2 * QUEUE_US)):
        device_s = row["steps"] * num_operators * queue_us / 1e6
        assert row["window_s"] >= 0.95 * device_s


# Placing a net ------------------------------------------------------------------------------------


class Tied(nn.Module):
    """A tied language model's two uses of one matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight


def test_tied_weights_are_tied_on_any_backend() -> None:
    was_overwriting = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # as between unlike backends
    try:
        moved = Tied().to("cpu")
        placed = place_net(Tied(), device=torch.device("cpu"))
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(was_overwriting)
    assert moved.head.weight is not moved.embedding.weight
    assert placed.head.weight is placed.embedding.weight
    assert len(list(placed.parameters())) == 1
