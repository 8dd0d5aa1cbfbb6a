"""Starts the ranks of one machine through torch's elastic agent, and says which one failed first.

`python -m bench.measure.ranks.rank_agent FD FOLDER COUNT`: the folder has the request, gets the
ranks' logs and failures; FD goes to the parent, which hears rank 0 on the same pipe. No rank is
started anew: another attempt is another row.
"""

from __future__ import annotations

import signal
import sys
import uuid
from pathlib import Path

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from bench.measure.asking import end_with_parent, leave
from bench.measure.causes import how_it_ended
from bench.measure.messages import Failure, Messages, RankFailure, decode

LOOPBACK = "127.0.0.1"


def launch(folder: Path, *, num_ranks: int) -> dict[int, ProcessFailure]:
    """Run the ranks to their end; returns those that failed, by number."""
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num_ranks,
        run_id=uuid.uuid4().hex,
        role="rank",
        rdzv_backend="c10d",
        rdzv_endpoint=f"{LOOPBACK}:0",
        local_addr=LOOPBACK,
        max_restarts=0,
        monitor_interval=0.05,
        logs_specs=DefaultLogsSpecs(log_dir=str(folder), redirects=Std.ALL),
    )
    command = elastic_launch(config, sys.executable)
    try:
        command("-m", "bench.measure.ranks.rank_trial", str(folder))
    except ChildFailedError as error:
        return dict(error.failures)
    return {}


def first_failure(failures: dict[int, ProcessFailure], *, folder: Path) -> Failure:
    """Name the failure that began it: what a rank raised, else how one died, else a lost peer."""
    notes = (note.read_bytes() for note in folder.glob("*.failure"))
    raised: list[RankFailure] = [decode(note, RankFailure) for note in notes]
    raised.sort(key=lambda one: (one.is_lost_peer, one.time_s))
    if raised and not raised[0].is_lost_peer:
        return raised[0].failure
    reported = {one.rank for one in raised}
    for rank, failure in sorted(failures.items()):
        # SIGTERM is what the agent ends the others with.
        if rank not in reported and failure.exitcode != -signal.SIGTERM:
            how = how_it_ended(failure.exitcode, log=log_of(folder, rank=rank))
            return Failure(code="crashed", detail=f"rank {rank} died: {how}")
    if raised:
        return raised[0].failure
    return Failure(code="crashed", detail="the ranks were ended from outside")


def log_of(folder: Path, *, rank: int) -> bytes:
    """Return what a rank wrote, on stderr if it wrote there."""
    for name in ("stderr.log", "stdout.log"):
        # The agent makes a folder of its own for the run, and one for each rank in it.
        log = b"".join(one.read_bytes() for one in folder.glob(f"**/{rank}/{name}"))
        if log.strip():
            return log
    return b""


def main() -> int:
    """Launch what the arguments say; a failure is reported to the parent."""
    messages = Messages(int(sys.argv[1]))
    folder, num_ranks = Path(sys.argv[2]), int(sys.argv[3])
    # The ranks, in sessions of their own, read the same standard input and end themselves.
    end_with_parent(folder)
    if failures := launch(folder, num_ranks=num_ranks):
        for rank in sorted(failures):
            print(f"rank {rank}:\n{log_of(folder, rank=rank).decode(errors='replace')}")
        messages.send(first_failure(failures, folder=folder))
    return 0


if __name__ == "__main__":
    leave(main())
