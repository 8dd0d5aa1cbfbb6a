"""Starts a program twice, each on a core of its own, and ends as the worse of both does.

`python two_ranks.py NAME,NAME program.py ...`: two real ranks, each in a network namespace of that
name, with what torchrun would set. `python two_ranks.py - program.py ...`: both are rank 0 of
virtual ranks, of which the second is there for its load alone.
"""

import os
import subprocess
import sys

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
    return max(abs(rank.wait()) for rank in ranks)


if __name__ == "__main__":
    raise SystemExit(main())
