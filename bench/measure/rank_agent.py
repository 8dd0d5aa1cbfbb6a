"""Starts the ranks of one machine through torch's elastic agent, and tells which one failed first.

`python -m bench.measure.rank_agent FD FOLDER COUNT`: the folder has the request, gets the ranks'
logs and failures; FD goes to the parent, which hears rank 0 on the same pipe. No rank is started
anew: another attempt is another row.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.measure.ending import how_it_ended, last_line, leave
from bench.measure.messages import Messages

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

LOOPBACK = "127.0.0.1"


def launch(folder: Path, *, num_ranks: int) -> dict[int, ProcessFailure]:
    """Run the ranks to their end; returns those that failed, by number."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

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
        command("-m", "bench.measure.rank_trial", str(folder))
    except ChildFailedError as error:
        return dict(error.failures)
    return {}


def first_failure(
    failures: dict[int, ProcessFailure], *, folder: Path, num_ranks: int
) -> dict[str, str]:
    """Name the failure that began it: what a rank raised, else how one died, else a lost peer."""
    told = []
    for rank in range(num_ranks):
        note = folder / f"{rank}.failure"
        if note.exists():
            told.append({"rank": rank, **json.loads(note.read_text())})
    told.sort(key=lambda one: (one["is_lost_peer"], one["time_s"]))
    if told and not told[0]["is_lost_peer"]:
        return _told(told[0])
    ranks_told = {one["rank"] for one in told}
    # SIGTERM is what the agent ends the others with.
    died = [
        (rank, failure)
        for rank, failure in sorted(failures.items())
        if rank not in ranks_told and failure.exitcode != -signal.SIGTERM
    ]
    if died:
        return _died(*died[0], folder=folder)
    if told:
        return _told(told[0])
    return {"code": "crashed", "detail": "the ranks were ended from outside"}


def _told(failure: dict[str, Any]) -> dict[str, str]:
    return {"code": failure["code"], "detail": f"rank {failure['rank']}: {failure['detail']}"}


def _died(rank: int, failure: ProcessFailure, *, folder: Path) -> dict[str, str]:
    how = how_it_ended(failure.exitcode, last_words=last_words(folder, rank=rank))
    return {"code": "crashed", "detail": f"rank {rank} died: {how}"}


def last_words(folder: Path, *, rank: int) -> str:
    """Return the last line that a rank wrote, on stderr if it wrote there."""
    for name in ("stderr.log", "stdout.log"):
        # The agent makes a folder of its own for the run, and one for each rank in it.
        texts = [log.read_bytes() for log in folder.glob(f"**/{rank}/{name}")]
        words = last_line(b"".join(texts))
        if words:
            return words
    return ""


def _clean_up_with_parent(folder: Path) -> None:
    # The ranks, in sessions of their own, read the same standard input and end themselves.
    while os.read(0, 1024):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


def main() -> int:
    """Launch what the arguments say; a failure is told to the parent."""
    messages = Messages(int(sys.argv[1]))
    folder, num_ranks = Path(sys.argv[2]), int(sys.argv[3])
    threading.Thread(target=_clean_up_with_parent, args=(folder,), daemon=True).start()
    failures = launch(folder, num_ranks=num_ranks)
    if failures:
        messages.send("failure", **first_failure(failures, folder=folder, num_ranks=num_ranks))
    return 0


if __name__ == "__main__":
    leave(main())
