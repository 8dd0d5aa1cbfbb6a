"""A small net for trials on several ranks: each leaves what it saw, and one may fail."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faulty import FAULTS
from small_net import Workload as SmallNet

from bench.workload import TRAIN


@dataclass(frozen=True, kw_only=True)
class Workload(SmallNet):
    """A linear layer; the rank `faulty` fails as `fault` says, in its third step."""

    phases = (TRAIN,)
    sizes = {"small": {"batch": 4}}

    folder: str = ""
    """Where each rank writes what it is, from its first step on."""
    faulty: int = 1

    def loss(self, net: Any, batch: Any) -> Any:
        rank = int(os.environ["RANK"])
        count = self._note(rank, net=net, batch=batch)
        if count >= 3 and rank == self.faulty:
            FAULTS.get(self.fault, FAULTS["none"])()
        # A net that is not spread is waited for here, as the others would be by a collective.
        from torch import distributed

        distributed.barrier()
        loss = net(batch).square().mean()
        is_wrong = self.fault == "nan" and rank == self.faulty
        return loss * float("nan") if is_wrong else loss

    def _note(self, rank: int, *, net: Any, batch: Any) -> int:
        path = Path(self.folder) / f"rank{rank}.json"
        seen = {
            "pid": os.getpid(),
            "cpu_ids": sorted(os.sched_getaffinity(0)),
            "batch": float(batch.double().sum()),
            "weight": float(next(net.parameters()).detach().double().sum()),
            "steps": 0,
        }
        seen |= json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**seen, "steps": seen["steps"] + 1}))
        return int(seen["steps"]) + 1
