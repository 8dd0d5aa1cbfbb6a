"""Trials on several real ranks of one machine: what they share, and how each failure is given."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bench_process import (
    RANKS_NET,
    WORKLOADS,
    bench_run,
    command,
    environment,
    fake_run,
    job_left_over,
    only_file,
    processes_with,
    rows_in,
    wait_until,
)
from torch.distributed import DistNetworkError

from bench.core.errors import MeasurementError, UsageError
from bench.core.nouns import Device
from bench.devices.host import cpu
from bench.measure.inspection import Inspection, KnownRoof
from bench.measure.messages import Failure, RankFailure, Samples, TrialResult, encode
from bench.measure.ranks.rank_agent import first_failure
from bench.parallel.ranks import connect, is_lost_peer
from bench.run import runner, session
from bench.run.launching import child
from bench.run.launching.child import Outcome
from bench.run.launching.launch import threads_and_workers
from bench.run.launching.torchrun import World, as_ranks, world_of
from bench.run.planning import plan
from bench.run.planning.request import RunRequest
from bench.run.progress import Progress
from bench.workload import INFER, TRAIN

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and pins cores")


def net(folder: Path, fault: str = "none") -> list[str]:
    words = ["-w", RANKS_NET, "--size", "small", "--device", "cpu", "--profile", "smoke", "--quiet"]
    return [*words, "--set", f"folder={folder}", "--set", f"fault={fault}"]


def flags(folder: Path, fault: str = "none") -> list[str]:
    """One smoke trial of two ranks; the budget leaves no time for a second attempt."""
    words = ["--devices", "2", "--threads", "1", "--seed", "7", "--budget", "1s"]
    return [*net(folder, fault), *words]


def row_of(folder: Path, *more: str, fault: str = "none", code: int = 4) -> Any:
    found, _, stderr = bench_run(*flags(folder, fault), *more, out=folder / "results")
    assert found == code, stderr
    (row,) = rows_in(folder / "results")
    return row


def seen_by(folder: Path) -> list[dict[str, Any]]:
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


def is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_replicas_start_alike_see_other_data_and_stop_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    observed = []
    run_watched = runner.run_watched

    def watch(request: Any, **settings: Any) -> Any:
        observed.append(settings["observation"])
        return run_watched(request, **settings)

    monkeypatch.setattr(runner, "run_watched", watch)
    row = row_of(tmp_path, code=0)
    first, second = seen_by(tmp_path)
    assert first["weight"] == second["weight"]
    assert first["batch"] != second["batch"]
    assert first["steps"] == second["steps"] >= 3, "a collective more would have hung"
    assert (row["device_count"], row["mode"], row["parallel"]) == (2, "real", "ddp")
    assert row["items"] == 2 * 4 * row["steps"], "both replicas' items count"
    assert row["flops_per_item"] == 2 * 2.0 * 16 * 16
    assert row["rss_peak_bytes"] > 10**7
    assert row["import_s"] is None
    assert not is_alive(first["pid"]) and not is_alive(second["pid"])
    own = {pid for shot in observed[0].sampler.snapshots for pid, _ in shot.processes}
    assert {first["pid"], second["pid"]} <= own, "the ranks' load is the trial's, not foreign"
    if len(cpu.usable_cpu_ids()) > 1:
        assert not set(first["cpu_ids"]) & set(second["cpu_ids"]), "each has its own cores"


@pytest.mark.parametrize(
    ("fault", "reason", "words"),
    [
        ("nan", "nonfinite;smoke", "rank 1: loss went from nan"),
        ("memory", "out_of_memory", "rank 1: MemoryError: no room for the batch"),
        ("kill", "crashed", "rank 1 died: signal SIGKILL (killed from outside"),
    ],
)
def test_failure_of_a_rank_is_the_trials_and_names_it(
    fault: str, reason: str, words: str, tmp_path: Path
) -> None:
    row = row_of(tmp_path, fault=fault)
    assert row["reasons"].removesuffix(";input_bound") == reason  # a machine that is busy
    assert words in row["detail"]
    assert row["detail"].endswith("; last line: the last words") == (fault == "kill")
    kept = [one.read_text() for one in (tmp_path / "results").glob("*.failures.txt")]
    written = {"memory": "MemoryError: no room for", "kill": "rank 1:\nthe last words"}
    assert all(written[fault] in text for text in kept)
    assert len(kept) == (fault != "nan"), "measured, though invalid"
    assert not [one for one in seen_by(tmp_path) if is_alive(one["pid"])]


def test_rank_that_hangs_and_ignores_sigterm_is_ended_at_the_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def now_s() -> float:
        """An hour later as soon as the rank hangs."""
        seen = tmp_path / "rank1.json"
        hangs = seen.exists() and '"steps": 3' in seen.read_text()
        return time.monotonic() + (3600 if hangs else 0)

    monkeypatch.setattr(child, "MAX_WAIT_S", 0.2)
    monkeypatch.setattr(child, "time", SimpleNamespace(monotonic=now_s, sleep=time.sleep))
    row = row_of(tmp_path, fault="hang_stubbornly")
    assert (row["reasons"], row["detail"][:24]) == ("timeout", "not finished after 900 s")
    # A killed process is gone when the kernel has freed what it held, some milliseconds later.
    wait_until(lambda: not any(is_alive(one["pid"]) for one in seen_by(tmp_path)), timeout_s=2)


def test_killed_parent_leaves_no_rank_behind(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(*flags(tmp_path, "hang"), out=tmp_path / "results"),
        env={**environment(tmp_path), "TMPDIR": str(tmp_path)},
    )
    both = [tmp_path / f"rank{rank}.json" for rank in (0, 1)]
    wait_until(lambda: all(path.exists() for path in both), timeout_s=60)
    assert len(processes_with(str(tmp_path))) >= 4, "parent, agent and two ranks"
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    wait_until(lambda: not processes_with(str(tmp_path)), timeout_s=10)
    assert not list(tmp_path.glob("bench-ranks-*")), "their folder is cleaned up"


def test_what_one_raised_or_how_one_died_is_told_before_who_lost_a_peer(tmp_path: Path) -> None:
    def note(rank: int, detail: str, *, time_s: float, is_lost_peer: bool) -> None:
        failure = Failure(code="error", detail=f"rank {rank}: {detail}")
        raised = RankFailure(rank=rank, failure=failure, is_lost_peer=is_lost_peer, time_s=time_s)
        (tmp_path / f"{rank}.failure").write_bytes(encode(raised))

    def detail_of(exits: dict[int, int]) -> str:
        # As torch's agent shows of processes that ended badly.
        died: Any = {rank: SimpleNamespace(exitcode=code) for rank, code in exits.items()}
        return first_failure(died, folder=tmp_path).detail

    assert detail_of({0: -signal.SIGTERM}) == "the ranks were ended from outside"
    note(2, "connection closed", time_s=1.0, is_lost_peer=True)
    assert detail_of({0: -signal.SIGTERM, 2: 1}) == "rank 2: connection closed"
    log = tmp_path / "run_x" / "attempt_0" / "1"
    log.mkdir(parents=True)
    (log / "stdout.log").write_text("the last words\n\n")
    exits = {0: -signal.SIGTERM, 1: -signal.SIGSEGV, 2: 1}
    assert detail_of(exits) == "rank 1 died: signal SIGSEGV; last line: the last words"
    note(0, "later", time_s=3.0, is_lost_peer=False)
    note(1, "earlier", time_s=2.0, is_lost_peer=False)
    assert detail_of({0: 1, 1: 1, 2: 1}) == "rank 1: earlier"

    gone = "[third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed"
    assert is_lost_peer(RuntimeError(gone))
    assert is_lost_peer(DistNetworkError("connection reset"))
    assert not is_lost_peer(RuntimeError("shape mismatch"))
    assert not is_lost_peer(ValueError("gloo::"))


def torchrun(
    folder: Path, *more: str, fault: str = "none", agents: int = 1
) -> list[tuple[int, str, str]]:
    """Run `bench` in two ranks, under one agent or under one each; returns what each agent said."""
    words = ["-m", "bench", "run", *net(folder, fault), "--parallel", "ddp", *more]
    words += ["--out", str(folder / "results")]
    port = free_port()
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", f"--nnodes={agents}"]
            + [f"--nproc-per-node={2 // agents}", f"--node-rank={node}"]
            + ["--master-addr=127.0.0.1", f"--master-port={port}", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={**environment(folder), "GLOO_SOCKET_IFNAME": "lo", "PYTHONWARNINGS": "ignore"},
        )
        for node in range(agents)
    ]
    texts = [process.communicate(timeout=110) for process in started]
    return [(process.returncode, *text) for process, text in zip(started, texts, strict=True)]


@pytest.mark.timeout(120)
def test_two_agents_make_one_result_file_of_rank_0(tmp_path: Path) -> None:
    first, second = torchrun(tmp_path, agents=2)
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    (row,) = rows_in(tmp_path / "results")
    assert (row["device_count"], row["mode"], row["parallel"]) == (2, "real", "ddp")
    assert (row["trial"], row["status"]) == (0, "WARN")
    assert first[1].split() == [str(only_file(tmp_path / "results"))]
    assert second[1] == "", "other ranks print nothing"
    assert processes_with(str(tmp_path)) == []


def test_another_rank_that_ended_well_is_not_ended_again_by_its_agent() -> None:
    """The agent's SIGTERM may come when the rank has begun to leave, as by `atexit` here."""
    code = """
import atexit, os, signal
from bench.core.interrupts import as_interrupts
from bench.measure.messages import RunEnd
from bench.run.launching import launch
from bench.run.launching.child import Outcome
atexit.register(os.kill, os.getpid(), signal.SIGTERM)
launch.run_child = lambda *_, **__: Outcome(result=RunEnd())
with as_interrupts():
    code = launch.follow()
raise SystemExit(code)
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment(), check=False)
    assert done.returncode == 0


@pytest.mark.timeout(120)
def test_failures_of_another_rank_are_in_rank_0s_rows(tmp_path: Path) -> None:
    ((code, _, stderr),) = torchrun(tmp_path, "--set", "faulty=1", fault="error,kill")
    rows = rows_in(tmp_path / "results")
    found = {str(row["reasons"]): str(row["detail"]) for row in rows}
    assert {row["status"] for row in rows} == {"FAILED"}
    assert found["error"] == "rank 1: KeyError: 'first line\\nsecond line'", stderr
    died = "rank 1: the trial's process died in stage begun: signal SIGKILL"
    assert found["crashed"].startswith(died), stderr
    assert code == 1, "torchrun's own code: rank 0 ended with bench's 4"
    assert stderr.count("exitcode  : ") == 1, "the other rank ended well"
    assert "exitcode  : 4" in stderr
    last = rows[-1]
    why = str(last["detail"])[:60]
    ours = f"no usable row of ranks_net-train: FAILED ({last['reasons']}) {why}"
    said = [line for line in stderr.splitlines() if line[:6] == "bench:"]
    assert said[-1].startswith(f"bench: {ours}")
    *_, cause, _rule = stderr.strip().splitlines()
    assert cause.startswith(f"  traceback : {ours}"), "torchrun shows it as the cause"
    assert processes_with(str(tmp_path)) == []


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_job_that_has_ended_is_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    for name, value in job_left_over(port).items():
        monkeypatch.setenv(name, value)
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        code, stdout, stderr = bench_run(*net(tmp_path), out=tmp_path / "results")
        assert (code, stdout) == (2, "")
        (line,) = stderr.splitlines()
        assert f"does not answer at 127.0.0.1:{port} (Connection refused)" in line
        assert "unset TORCHELASTIC_USE_AGENT_STORE" in line
    assert not (tmp_path / "results").exists()


def test_a_trial_alone_gets_no_variable_of_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, seen = tmp_path / "mine.py", tmp_path / "seen"
    mine.write_text(
        f"import json, os, pathlib, sys; sys.path.append({str(WORKLOADS)!r})\n"
        "from timed import Workload\n"
        f"pathlib.Path({str(seen)!r}).write_text(json.dumps(dict(os.environ)))\n"
    )
    left = job_left_over(free_port())
    del left["TORCHELASTIC_USE_AGENT_STORE"]  # else it would be a rank, and refused
    for name, value in {**left, "MASTER_OF_ARTS": "kept"}.items():
        monkeypatch.setenv(name, value)
    code, _, stderr = fake_run("-w", f"{mine}:infer", "--trials", "1", "--quiet", out=tmp_path)
    assert (code, stderr) == (0, "")
    found = json.loads(seen.read_text())  # the trial's own process is the last to write it
    assert sorted(left.keys() & found.keys()) == []
    assert found["MASTER_OF_ARTS"] == "kept"


def test_a_store_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        for name, value in job_left_over(port).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(MeasurementError, match=f"at 127.0.0.1:{port} .* no word in 0.5 s"):
            connect(limit=timedelta(seconds=0.5))


def test_devices_are_those_that_torchrun_started_and_nothing_else_makes_ranks() -> None:
    kubernetes = {"RANK": "0", "WORLD_SIZE": "4", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
    assert world_of(kubernetes) is None, "set for each node, before torchrun is started there"
    given = {**job_left_over(1), **kubernetes}
    with pytest.raises(UsageError, match="LOCAL_RANK=, .* unset TORCHELASTIC"):
        world_of({**given, "LOCAL_RANK": ""})
    assert world_of({**given, "WORLD_SIZE": "1"}) is None
    world = world_of(given)
    assert world == World(rank=0, num_ranks=4, num_local_ranks=2)
    for request, mode in (
        (RunRequest(links=("pcie4",)), "throttled"),
        (RunRequest(devices=(4,)), None),
    ):
        found = as_ranks(request, world=world)
        assert (found.devices, found.mode) == ((4,), mode)
    for refused, words in (
        (RunRequest(devices=(2, 4)), "--devices 2,4 does not go with torchrun"),
        (RunRequest(mode="emulated", links=("pcie4",)), "--mode emulated takes one process"),
    ):
        with pytest.raises(UsageError, match=words):
            as_ranks(refused, world=world)


SLOW: Any = {"links": ("bw=1MB/s,latency=5ms",)}
OVER: Any = {**SLOW, "mode": "simulated"}
CPU = Device(type="cpu", index=0, name="CPU", vendor=None, stack="CPU", memory_bytes=2**34)


@pytest.mark.parametrize(
    ("flags", "local_ranks", "threads"),
    [
        ({}, 0, 8),
        ({"devices": (2,)}, 0, 4),
        ({"devices": (2,)}, 2, 4),  # under torchrun
        ({"devices": (2,)}, 1, 8),  # of two machines
        ({"devices": (2,), **OVER}, 0, 4),
        ({"devices": (2,), **SLOW, "mode": "emulated"}, 0, 4),
        ({"devices": (2,), **SLOW, "mode": "throttled"}, 0, 4),
        ({"devices": (2,), "parallel": ("pp",), **OVER}, 0, 4),
        ({"devices": (1, 2), **OVER}, 0, 4),
        ({"devices": (1, 2, 64), **OVER}, 0, 1),
        ({"devices": (1, 2), **OVER, "threads": 3}, 0, 3),
    ],
)
def test_ranks_real_or_not_have_equal_threads_and_the_roof_of_these(
    flags: Any, local_ranks: int, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(_label: str | None, *, threads: tuple[int, ...], **_: Any) -> Inspection:
        """On eight cores, each thread of which multiplies 50 GFLOP/s at best."""
        roofs = {n: KnownRoof(flops_per_s={"fp32": n * 50e9}) for n in (*threads, 5)}
        return Inspection(device=CPU, capabilities={"fp32": "ok"}, roofs=roofs)

    def run_watched(request: Any, **_: Any) -> Outcome:
        """Each thread of each rank does 30 of them."""
        num_threads = request.threads * request.config.layout.devices
        row = {"flops_per_item": 1e9, "throughput_per_s": 30.0 * num_threads}
        none: Any = {"warmup_step_s": [], "step_s": [], "step_clock": "host", "data_wait_s": None}
        times: Any = {"window_start_s": 0.0, "window_end_s": 1.0, "samples": Samples(**none)}
        return Outcome(result=TrialResult(row=row, reasons=[], detail="", **times))

    monkeypatch.setattr(session, "inspect_device", look)
    monkeypatch.setattr(runner, "run_watched", run_watched)
    for place in (cpu, plan):
        monkeypatch.setattr(place, "usable_cores", lambda: 8)
    job = {**job_left_over(1), "LOCAL_WORLD_SIZE": str(local_ranks)}
    for name, value in job.items() if local_ranks else ():
        monkeypatch.setenv(name, value)
    common: Any = {"workloads": ("llm-train",), "sizes": ("tiny",), "profile": "smoke"}
    request = RunRequest(**common, **flags)
    planned, inspection = session.prepare(request, note=print)
    run = session.begin(planned, inspection, folder=tmp_path, note=print)
    rows = run.run(Progress()).rows
    assert [row["device_count"] for row in rows] and len(rows) == len(planned.planned)
    for row in rows:
        assert (row["threads"], row["cpu_cores_usable"], row["workers"]) == (threads, threads, 0)
        assert row["roof_flops_per_s"] == threads * 50e9
        assert row["roof_frac"] == pytest.approx(30 / 50)
    said = f"a rank of all rows has {threads} of the 8 cores, its share among "
    is_divided = threads < 8 and "threads" not in flags
    assert any(said in line for line in planned.notes) == is_divided


def test_a_loader_has_a_core_of_its_rank() -> None:
    for asked, phase, cores, is_accelerator, expected in (
        (RunRequest(), TRAIN, 4, False, (4, 0)),
        (RunRequest(data="folder"), TRAIN, 4, False, (3, 1)),
        (RunRequest(data="folder"), TRAIN, 1, False, (1, 0)),
        (RunRequest(data="folder"), INFER, 4, False, (4, 0)),
        (RunRequest(data="folder", threads=5), TRAIN, 4, False, (5, 1)),
        (RunRequest(), TRAIN, 16, True, (12, 4)),
        (RunRequest(data="resident"), TRAIN, 16, True, (16, 0)),
    ):
        found = threads_and_workers(asked, phase, cores=cores, is_accelerator=is_accelerator)
        assert found == expected, (asked, phase, cores)
