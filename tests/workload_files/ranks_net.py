"""A small net for trials on several ranks: each leaves what it saw, and one may fail."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bench.workload
from bench.workload import TRAIN, Phase

FEATURES = 8


@dataclass(frozen=True, kw_only=True)
class Workload(bench.workload.Workload):
    """A linear layer; the rank `faulty` fails as `fault` says, in its third step."""

    phases = (TRAIN,)
    sizes = {"small": {"batch": 4}}

    folder: str = ""
    """Where each rank writes what it is, from its first step on."""
    fault: str = "none"
    faulty: int = 1

    def build_net(self) -> Any:
        from torch import nn

        return nn.Linear(FEATURES, FEATURES)

    def dataset(self, phase: Phase, *, data: Path | None, seed: int) -> Any:
        import torch

        return torch.randn(64, FEATURES, generator=torch.Generator().manual_seed(seed))

    def optimizer(self, net: Any) -> Any:
        from torch.optim import SGD

        return SGD(net.parameters(), lr=1e-3)

    def loss(self, net: Any, batch: Any) -> Any:
        rank = int(os.environ["RANK"])
        count = self._note(rank, net=net, batch=batch)
        if count >= 3 and rank == self.faulty:
            self._fail()
        # A net that is not spread is waited for here, as the others would be by a collective.
        from torch import distributed

        distributed.barrier()
        loss = net(batch).square().mean()
        is_wrong = self.fault == "nan" and rank == self.faulty
        return loss * float("nan") if is_wrong else loss

    def _note(self, rank: int, *, net: Any, batch: Any) -> int:
        path = Path(self.folder) / f"rank{rank}.json"
        seen = json.loads(path.read_text()) if path.exists() else None
        if seen is None:
            weight = next(net.parameters())
            seen = {
                "pid": os.getpid(),
                "cpu_ids": sorted(os.sched_getaffinity(0)),
                "batch": float(batch.double().sum()),
                "weight": float(weight.detach().double().sum()),
                "steps": 0,
            }
        seen["steps"] += 1
        path.write_text(json.dumps(seen))
        return int(seen["steps"])

    def _fail(self) -> None:
        if self.fault == "memory":
            raise MemoryError("no room for the batch")
        if self.fault == "error":
            raise KeyError("first line\nsecond line")
        if self.fault == "kill":
            print("the last words", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "hang":
            time.sleep(1000)
        if self.fault == "hang_stubbornly":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
            time.sleep(1000)

    def items(self, phase: Phase, batch: Any) -> int:
        return self.batch if batch is None else len(batch)

    def num_parameters(self) -> int:
        return FEATURES * (FEATURES + 1)

    def flops_per_item(self, phase: Phase, batch: Any = None) -> float | None:
        return 6.0 * FEATURES * FEATURES

    def memory_bytes(self, phase: Phase, *, dtype: str) -> int:
        return 10**6
