"""The variables that torchrun would give a rank; torch is not needed for them."""

from __future__ import annotations


def rank_environment(num_ranks: int) -> dict[str, str]:
    """Return the variables that torchrun gives the first of so many ranks on one machine.

    https://docs.pytorch.org/docs/stable/elastic/run.html#environment-variables
    """
    size = str(num_ranks)
    return {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "GROUP_RANK": "0",
        "ROLE_RANK": "0",
        "WORLD_SIZE": size,
        "LOCAL_WORLD_SIZE": size,
        "GROUP_WORLD_SIZE": "1",
        "ROLE_WORLD_SIZE": size,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29500",
        "TORCHELASTIC_RUN_ID": "bench",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "TORCHELASTIC_MAX_RESTARTS": "0",
    }
