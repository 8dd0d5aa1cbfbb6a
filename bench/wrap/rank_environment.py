"""The variables that torchrun would give a rank; torch is not needed for them."""

from __future__ import annotations

from bench.core.nouns import Layout
from bench.hardware.links.topology import parse_topology


def rank_environment(layout: Layout) -> dict[str, str]:
    """Return the variables that torchrun gives the first rank of the layout.

    https://docs.pytorch.org/docs/stable/elastic/run.html#environment-variables
    """
    node_size = parse_topology(layout.link).node_size if layout.link else None
    local = min(node_size or layout.devices, layout.devices)
    return {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "GROUP_RANK": "0",
        "ROLE_RANK": "0",
        "WORLD_SIZE": str(layout.devices),
        "LOCAL_WORLD_SIZE": str(local),
        "GROUP_WORLD_SIZE": str(layout.devices // local),
        "ROLE_WORLD_SIZE": str(layout.devices),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29500",
        "TORCHELASTIC_RUN_ID": "bench",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "TORCHELASTIC_MAX_RESTARTS": "0",
    }
