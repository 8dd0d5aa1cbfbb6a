"""A user's program as rank 0 of several: what torch gives it, who starts it, what is refused."""

import pytest

from tests.wrap.conftest import Wrap

NODES = "10gbe*4/10gbe"
SLOW = "bw=1GB/s,latency=1ms"
"""Every message of these programs takes longer than the timer here keeps."""


def test_a_program_finds_all_that_a_rank_asks_torch_for(wrap: Wrap) -> None:
    ran = wrap("--devices", "8", "--link", NODES, command=["python", "asks_group.py"])
    assert ran.code == 0, ran.output
    assert "all was answered" in ran.output
    assert "objects from other ranks are this rank's own" in ran.output
    assert "tensors broadcast by other ranks are this rank's own" in ran.output
    assert "inputs of all ranks (Join) end with this rank's" in ran.output
    (row,) = ran.rows
    assert (row["parallel"], row["device_count"], row["overlap"]) == ("ddp", 8, "yes")


@pytest.mark.slow
def test_torchrun_starts_one_rank(wrap: Wrap) -> None:
    torchrun = ["torchrun", "--nnodes", "2", "--nproc-per-node", "4", "--master-addr", "10.0.0.1"]
    command = [*torchrun, "spread.py", "ddp"]
    ran = wrap("--devices", "8", "--link", NODES, command=command)
    assert ran.code == 0, ran.output
    (row,) = ran.rows
    assert row["device_count"] == 8


def test_another_number_of_ranks_is_refused(wrap: Wrap) -> None:
    command = ["torchrun", "--nproc-per-node", "4", "spread.py", "ddp"]
    ran = wrap("--devices", "8", "--link", "10gbe", command=command)
    assert ran.error.endswith(
        "torchrun starts 4 ranks, but --devices says 8; give both the same number"
    )


def test_a_program_without_a_group_is_no_rank(wrap: Wrap) -> None:
    ran = wrap("--devices", "8", "--link", "10gbe", command=["python", "spread.py", "alone"])
    assert "the program trains without a process group: it is no rank of 8" in ran.error


@pytest.mark.slow
def test_one_device_of_a_sweep_has_no_link(wrap: Wrap) -> None:
    flags = ["--devices", "1,8", "--link", "10gbe,100gbe", "--mode", "simulated"]
    ran = wrap(*flags, command=["python", "spread.py", "late"])
    assert ran.code == 0, ran.output
    rows = [(row["device_count"], row["link"], row["mode"], row["batch"]) for row in ran.rows]
    assert sorted(rows, key=str) == [
        (1, None, "real", 16),
        (8, "100gbe", "simulated", 16),
        (8, "10gbe", "simulated", 16),
    ]
    assert {row["flops_method"] for row in ran.rows} == {"counted"}


@pytest.mark.slow
@pytest.mark.parametrize("start", ["spawn", "fork", "processes"])
def test_processes_that_a_program_starts_are_one_rank(wrap: Wrap, start: str) -> None:
    ran = wrap("--devices", "8", "--link", "10gbe", command=["python", "spread.py", "ddp", start])
    assert ran.code == 0, ran.output
    (row,) = ran.rows
    assert row["throughput_per_s"] is not None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "flags", "parallel", "overlap"),
    [
        ("fsdp1", [], "fsdp", "none: torch runs FSDP on a CPU without streams"),
        ("fsdp2", [], "fsdp", "none: torch runs FSDP on a CPU without streams"),
        ("tp", ["--tp", "2"], "tp", "data-parallel part only: tensor-parallel results are needed"),
        ("hand", [], "ddp", None),
    ],
)
def test_a_strategy_is_known_by_what_is_used(
    wrap: Wrap, how: str, flags: list[str], parallel: str, overlap: str | None
) -> None:
    asked = ["--devices", "4", "--link", SLOW, "--mode", "emulated", *flags]
    ran = wrap(*asked, command=["python", "spread.py", how])
    assert ran.code == 0, ran.output
    (row,) = ran.rows
    assert (row["parallel"], row["batch"]) == (parallel, 16)
    assert str(row["overlap"]).startswith(str(overlap))
    assert float(str(row["comm_exposed_ms"])) > 1
