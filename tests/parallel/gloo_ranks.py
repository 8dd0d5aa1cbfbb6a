"""Runs named functions of `rank_cases` on real gloo ranks, once for all tests of a module."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch.multiprocessing


def results_of(names: Sequence[str], *, num_ranks: int = 2) -> dict[str, list[Any]]:
    """Return what each case returned on each rank; a rank that fails raises with its traceback."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_rank, (folder, list(names), num_ranks), nprocs=num_ranks)
        ranks = [
            json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(num_ranks)
        ]
    return {name: [rank[name] for rank in ranks] for name in names}


def _rank(rank: int, folder: str, names: list[str], num_ranks: int) -> None:
    import rank_cases
    import torch.distributed as dist

    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=num_ranks)
    results = {name: rank_cases.run(name, rank=rank) for name in names}
    (Path(folder) / f"{rank}.json").write_text(json.dumps(results))
    dist.barrier()
    dist.destroy_process_group()
