"""Starts a program twice, each on a core of its own, and ends as the worse of both does.

`python two_ranks.py NAME,NAME program.py ...`: two real ranks, each in a network namespace of that
name, with what torchrun would set. `python two_ranks.py - program.py ...`: both are rank 0 of
virtual ranks, of which the second is there for its load alone.
"""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

GLOO_THREADS = ("gloo_tcp_loop", "pt_gloo_runloop")
"""What sends and receives, and the two that run collectives."""
ADDRESSES, INTERFACE = ("10.231.77.1", "10.231.77.2"), "gb0"


def rank_variables(rank: int) -> dict[str, str]:
    """What torchrun gives a rank, one on each of two machines."""
    return {
        "RANK": str(rank),
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": ADDRESSES[0],
        "MASTER_PORT": "29500",
        "GLOO_SOCKET_IFNAME": INTERFACE,
    }


def put_first(pid: int) -> int:
    """Let the threads of gloo in this process go before its others; return how many there are.

    Else a thread with bytes to pass on waits for the end of another's turn: an all-reduce then took
    0.1 or 3 ms, by chance. All get one priority: they wait for each other without sleeping.
    """
    number = 0
    with contextlib.suppress(OSError):  # the rank, or a thread of it, has ended
        for thread in Path(f"/proc/{pid}/task").iterdir():
            if (thread / "comm").read_text().strip() in GLOO_THREADS:
                os.sched_setscheduler(int(thread.name), os.SCHED_RR, os.sched_param(1))
                number += 1
    return number


def main() -> int:
    names, *program = sys.argv[1:]
    ranks = []
    for rank in range(2):
        command = ["taskset", "-c", str(rank), sys.executable, *program]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        if names != "-":
            command = ["ip", "netns", "exec", names.split(",")[rank], *command]
            environment |= rank_variables(rank)
        ranks.append(subprocess.Popen(command, env=environment))
    while any(rank.poll() is None for rank in ranks):
        for rank in ranks:
            put_first(rank.pid)
        time.sleep(0.2)
    return max(abs(rank.returncode) for rank in ranks)


if __name__ == "__main__":
    raise SystemExit(main())
