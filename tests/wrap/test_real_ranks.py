"""Real ranks of a program, by torchrun and spawned by itself: rank 0 is measured, all end well."""

import re

import pytest

TORCHRUN = ["torchrun", "--nproc-per-node", "2", "ddp_ranks.py"]
SPAWNED = ["python", "ddp_ranks.py", "2"]


def leave_well(output: str) -> bool:
    """Whether both ranks came to a barrier at their end, in the look and in the trial."""
    is_through = all(output.count(f"rank {rank} leaves well") == 2 for rank in range(2))
    return is_through and "SIGTERM" not in output and "is through" not in output


@pytest.mark.slow
@pytest.mark.parametrize("command", [TORCHRUN, SPAWNED], ids=["torchrun", "spawned"])
def test_rank_0_of_real_ranks_is_measured_and_all_leave_well(wrap, command):
    done = wrap(command=command)
    assert done.code == 0 and leave_well(done.output), done.output
    (row,) = done.rows
    assert (row["mode"], row["device_count"], row["parallel"]) == ("real", 2, "ddp")
    assert row.get("link") is None and row["layout"] == "dp2" and row["threads"] == 1
    assert row["items"] == row["steps"] * 8 * 2
    assert row["rss_peak_bytes"] > 0 and row["flops_per_item"] == 2 * 5 * 256**2


@pytest.mark.slow
def test_real_ranks_are_held_back_to_a_modelled_link(wrap):
    done = wrap("--mode", "throttled", "--link", "bw=10MB/s,latency=1ms", command=TORCHRUN)
    assert done.code == 0 and leave_well(done.output), done.output
    (row,) = done.rows
    assert (row["mode"], row["device_count"], row["parallel"]) == ("throttled", 2, "ddp")
    assert row["link"] == "bw=10MB/s,latency=1ms"
    sent_bytes = 4 * row["num_parameters"]
    assert (row["comm_ops"], row["comm_bytes"]) == (1, sent_bytes)
    assert row["comm_total_ms"] == pytest.approx(2 + sent_bytes / 10e6 * 1e3)
    assert row["step_median_ms"] > row["comm_total_ms"] and row["items"] == row["steps"] * 8 * 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ([*SPAWNED[:2], "1"], "--mode throttled holds real ranks back, and the program has 1"),
        ([*SPAWNED, "mpi"], "holds back gloo, and NCCL on CUDA; .* asks for mpi"),
    ],
)
def test_what_cannot_be_held_back_is_refused(wrap, command, reason):
    done = wrap("--mode", "throttled", "--link", "10gbe", command=command)
    assert done.code != 0 and re.search(reason, done.error), done.output
