"""The same command under torchrun: rank 0 plans, decides and writes; the others follow silently."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from bench_process import RANKS_NET, environment, only_file, processes_with, rows_in

from bench.core.errors import UsageError
from bench.run.launching.launch import World, as_ranks, world_of
from bench.run.planning.request import RunRequest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def torchrun(*arguments: str, out: Path, agents: int = 1) -> list[tuple[int, str, str]]:
    """Run `bench` in two ranks, under one agent or under one each; returns what each agent said."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", f"--nnodes={agents}"]
            + [f"--nproc-per-node={2 // agents}", f"--node-rank={node}"]
            + ["--master-addr=127.0.0.1", f"--master-port={port}", "-m", "bench", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=out,
            env={**environment(out), "GLOO_SOCKET_IFNAME": "lo", "PYTHONWARNINGS": "ignore"},
        )
        for node in range(agents)
    ]
    texts = [process.communicate(timeout=110) for process in started]
    return [(process.returncode, *text) for process, text in zip(started, texts, strict=True)]


def net_arguments(folder: Path, *settings: str) -> list[str]:
    arguments = ["run", "-w", RANKS_NET, "--device", "cpu", "--profile", "smoke"]
    arguments += ["--size", "small", "--parallel", "ddp", "--set", f"folder={folder}"]
    arguments += [part for setting in settings for part in ("--set", setting)]
    return [*arguments, "--out", str(folder / "results")]


@pytest.mark.timeout(120)
def test_two_agents_make_one_result_file_of_rank_0(tmp_path: Path) -> None:
    arguments = [*net_arguments(tmp_path), "--trials", "2", "--quiet"]
    first, second = torchrun(*arguments, out=tmp_path, agents=2)
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    rows = rows_in(tmp_path / "results")
    assert [(row["device_count"], row["mode"], row["parallel"]) for row in rows] == [
        (2, "real", "ddp")
    ] * 2
    assert [row["trial"] for row in rows] == [0, 1]
    assert {row["status"] for row in rows} == {"WARN"}
    assert first[1].split() == [str(only_file(tmp_path / "results"))]
    assert second[1] == "", "other ranks print nothing"
    assert processes_with(str(tmp_path)) == []


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("fault", "reason", "words"),
    [
        ("error", "error", "rank 1: KeyError: 'first line\\nsecond line'"),
        ("kill", "crashed", "rank 1: the trial's process died in stage begun: signal SIGKILL"),
    ],
)
def test_failure_of_another_rank_is_in_rank_0s_row(
    fault: str, reason: str, words: str, tmp_path: Path
) -> None:
    arguments = net_arguments(tmp_path, f"fault={fault}", "faulty=1")
    ((code, _, stderr),) = torchrun(*arguments, out=tmp_path)
    rows = rows_in(tmp_path / "results")
    assert {(row["status"], row["reasons"]) for row in rows} == {("FAILED", reason)}
    assert words in str(rows[0]["detail"]), stderr
    assert code == 1, "torchrun's own code: its ranks ended with bench's 4"
    assert "exitcode  : 4" in stderr
    assert processes_with(str(tmp_path)) == []


@pytest.mark.timeout(120)
def test_other_number_of_devices_is_one_line_and_ends_every_rank(tmp_path: Path) -> None:
    arguments = [*net_arguments(tmp_path), "--devices", "4"]
    ((_, stdout, stderr),) = torchrun(*arguments, out=tmp_path)
    assert stdout == ""
    lines = [line for line in stderr.splitlines() if line.startswith("bench: ")]
    assert lines == [
        "bench: --devices 4 does not go with torchrun, which started 2 ranks; "
        "leave --devices out, or start as many ranks"
    ]
    assert "exitcode  : 2" in stderr
    assert not (tmp_path / "results").exists()


def test_devices_are_those_that_torchrun_started_and_nothing_else_makes_ranks() -> None:
    kubernetes = {"RANK": "0", "WORLD_SIZE": "4", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
    assert world_of(kubernetes) is None, "set for each node, before torchrun is started there"
    agent = {"TORCHELASTIC_USE_AGENT_STORE": "True", "LOCAL_WORLD_SIZE": "2"}
    assert world_of({**kubernetes, **agent, "WORLD_SIZE": "1"}) is None
    world = world_of({**kubernetes, **agent})
    assert world == World(rank=0, num_ranks=4, num_local_ranks=2)
    alone = RunRequest(devices=(1, 2), links=("pcie4",))
    assert as_ranks(alone, world=None) == alone
    found = as_ranks(RunRequest(links=("pcie4",)), world=world)
    assert (found.devices, found.mode) == ((4,), "throttled")
    found = as_ranks(RunRequest(devices=(4,)), world=world)
    assert (found.devices, found.mode) == ((4,), None)
    with pytest.raises(UsageError, match="--devices 2,4 does not go with torchrun"):
        as_ranks(RunRequest(devices=(2, 4)), world=world)
    with pytest.raises(UsageError, match="--mode emulated takes one process"):
        as_ranks(RunRequest(mode="emulated", links=("pcie4",)), world=world)
