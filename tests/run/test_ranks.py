"""Trials on several real ranks of one machine: what they share, and how each failure is given."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from bench_process import WORKLOADS, bench_run, environment, processes_with, rows_in

from bench import discovery
from bench.core.nouns import Config, Layout
from bench.devices.host import cpu
from bench.devices.host.cpu_noise import take_snapshot
from bench.measure.messages import TrialRequest, TrialResult
from bench.measure.timing.limits import PROFILES
from bench.run.launching.child import Outcome
from bench.run.launching.launch import run_trial

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and pins cores")

RANKS_NET = str(WORKLOADS / "ranks_net.py")


def request_for(folder: Path, *, fault: str = "none", data: int = 2, tensor: int = 1) -> Any:
    found = discovery.load(RANKS_NET)
    config = Config(
        workload=found.name,
        source=RANKS_NET,
        phase="train",
        version=found.version,
        size="",
        params={"batch": 4, "folder": str(folder), "fault": fault, "faulty": 1},
        dtype="fp32",
        compile=False,
        channels_last=False,
        data="generated",
        device="cpu",
        threads=1,
        workers=0,
        seed=7,
        layout=Layout(strategy="tp" if tensor > 1 else "ddp", data=data, tensor=tensor),
    )
    return TrialRequest(
        config=config,
        limits=PROFILES["smoke"].limits,
        trial=0,
        cpu_ids=cpu.usable_cpu_ids(),
        threads=1,
        workers=0,
        idle_s=0.0,
    )


def outcome_of(request: TrialRequest, *, timeout_s: float = 60.0) -> Outcome:
    return run_trial(
        request, timeout_s=timeout_s, on_start=lambda _: None, on_message=lambda _: None
    )


def seen_by(folder: Path, *, num_ranks: int = 2) -> list[dict[str, Any]]:
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(num_ranks)]


def is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_replicas_start_alike_see_other_data_and_stop_together(tmp_path: Path) -> None:
    trials: list[int] = []
    own: set[int] = set()

    def look(_: object) -> None:
        own.update(pid for pid, _ in take_snapshot(trials[0]).processes)

    outcome = run_trial(
        request_for(tmp_path), timeout_s=60.0, on_start=trials.append, on_message=look
    )
    assert isinstance(outcome.result, TrialResult), outcome.detail
    first, second = seen_by(tmp_path)
    assert first["weight"] == second["weight"]
    assert first["batch"] != second["batch"]
    assert first["steps"] == second["steps"] >= 3, "a collective more would have hung"
    row = outcome.result.row
    assert row["items"] == 2 * 4 * row["steps"], "both replicas' items count"
    assert row["flops_per_item"] == 2 * 2.0 * 16 * 16
    assert row["rss_peak_bytes"] > 10**7
    assert row["import_s"] is None
    assert not is_alive(first["pid"]) and not is_alive(second["pid"])
    assert {first["pid"], second["pid"]} <= own, "the ranks' load is the trial's, not foreign"
    if len(cpu.usable_cpu_ids()) > 1:
        assert not set(first["cpu_ids"]) & set(second["cpu_ids"]), "each has its own cores"


def test_wrong_output_of_any_rank_makes_the_trial_invalid(tmp_path: Path) -> None:
    outcome = outcome_of(request_for(tmp_path, fault="nan"))
    assert isinstance(outcome.result, TrialResult), outcome.detail
    assert "nonfinite" in outcome.result.reasons
    assert "rank 1: loss went from nan" in outcome.result.detail


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ("memory", "out_of_memory", "rank 1: MemoryError: no room for the batch"),
        ("error", "error", "rank 1: KeyError: 'first line\\nsecond line'"),
        ("kill", "crashed", "rank 1 died: signal SIGKILL (killed from outside"),
    ],
)
def test_failure_of_a_rank_is_the_trials_and_names_it(
    fault: str, code: str, words: str, tmp_path: Path
) -> None:
    outcome = outcome_of(request_for(tmp_path, fault=fault))
    assert outcome.failure is not None and outcome.failure.code == code
    assert words in outcome.detail
    if fault == "kill":
        assert outcome.detail.endswith("; last line: the last words")
    assert not [one for one in seen_by(tmp_path) if is_alive(one["pid"])]


def test_rank_that_hangs_and_ignores_sigterm_is_ended_at_the_timeout(tmp_path: Path) -> None:
    request = request_for(tmp_path, fault="hang_stubbornly")
    outcome = outcome_of(request, timeout_s=15.0)
    assert outcome.failure is not None and outcome.failure.code == "timeout"
    assert len(seen_by(tmp_path)) == 2, "both were under way"
    # A killed process is gone when the kernel has freed what it held, some milliseconds later.
    deadline_s = time.monotonic() + 10
    while alive := [one for one in seen_by(tmp_path) if is_alive(one["pid"])]:
        assert time.monotonic() < deadline_s, alive
        time.sleep(0.05)


PARENT = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from test_ranks import outcome_of, request_for
outcome_of(request_for(Path(sys.argv[2]), fault="hang"))
"""


def test_killed_parent_leaves_no_rank_behind(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(Path(__file__).parent), str(tmp_path)],
        env={**environment(), "GAPBENCH_TEST_FOLDER": str(tmp_path), "TMPDIR": str(tmp_path)},
    )
    deadline_s = time.monotonic() + 60
    while not all((tmp_path / f"rank{rank}.json").exists() for rank in (0, 1)):
        assert time.monotonic() < deadline_s and process.poll() is None
        time.sleep(0.05)
    assert len(processes_with(str(tmp_path))) >= 4, "parent, agent and two ranks"
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    deadline_s = time.monotonic() + 10
    while processes_with(str(tmp_path)):
        assert time.monotonic() < deadline_s, "ranks outlived their parent"
        time.sleep(0.05)
    assert not list(tmp_path.glob("bench-ranks-*")), "their folder is cleaned up"


def test_run_of_two_ranks_writes_one_row_that_says_so(tmp_path: Path) -> None:
    arguments = ["-w", RANKS_NET, "--size", "small", "--device", "cpu", "--devices", "2"]
    arguments += ["--profile", "smoke", "--set", f"folder={tmp_path}", "--quiet"]
    done = bench_run(*arguments, out=tmp_path / "results", timeout_s=110)
    assert done.returncode == 0, done.stderr
    (row,) = rows_in(tmp_path / "results")
    assert (row["device_count"], row["mode"], row["parallel"]) == (2, "real", "ddp")
    assert row["items"] == 2 * 4 * int(row["steps"] or 0)
    first, second = seen_by(tmp_path)
    assert first["steps"] == second["steps"]


def test_fake_emulated_and_single_devices_need_no_ranks(tmp_path: Path) -> None:
    from dataclasses import replace

    config = request_for(tmp_path).config
    assert config.needs_ranks
    assert replace(config, layout=replace(config.layout, mode="throttled")).needs_ranks
    assert not replace(config, layout=replace(config.layout, mode="emulated")).needs_ranks
    assert not replace(config, layout=Layout()).needs_ranks
    assert not replace(config, device="fake").needs_ranks
