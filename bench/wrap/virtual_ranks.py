"""The program as rank 0 of several, the others virtual: what torch.distributed gives it.

Whatever backend it names, its groups are the modelled one (`bench.emulate.group`). What other ranks
would have sent is this rank's own: right for the time that it takes, wrong for a metric that is
averaged or gathered over ranks.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d as c10d

from bench.core.errors import MeasurementError
from bench.core.nouns import Config
from bench.devices.torch.torch_adapter import adapter_for
from bench.emulate.group import EMULATED
from bench.measure.communication.modelled_link import ModelledLink, open_link
from bench.wrap.rank_environment import rank_environment


class VirtualRanks:
    """The other ranks of a wrapped program; without a modelled link there are none."""

    def __init__(self, config: Config, *, device: str) -> None:
        self.layout = config.layout
        self.link: ModelledLink | None = None
        self.num_ranks = self.layout.devices
        if not self.layout.link:
            self.num_ranks = int(os.environ.get("WORLD_SIZE", "1"))
            return
        os.environ.update(rank_environment(self.num_ranks))
        module: Any = c10d
        self._init = dist.init_process_group
        self._new_group = module._new_process_group_helper
        module._new_process_group_helper = self._make_group
        dist.init_process_group = module.init_process_group = self._start

    def check_started(self) -> None:
        """Raise `MeasurementError` where a program trains beside the ranks that it should be of."""
        if self.layout.link and self.link is None:
            raise MeasurementError(
                f"the program trains without a process group: it is no rank of {self.num_ranks}; "
                "it must call torch.distributed.init_process_group, or its launcher must"
            )

    def _start(self, backend: str | None = None, *_: Any, **options: Any) -> None:
        """Start the modelled group, whatever was asked for: its own start comes by here as well."""
        if backend == EMULATED:
            self._init(backend, **options)
            return
        device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
        adapter = adapter_for(str(device))
        does: Any = {"step": self.check_started, "synchronize": adapter.synchronize}
        self.link = open_link(self.layout, device=device, ranks=None, **does)

    def _make_group(
        self, size: int, rank: int, ranks: Any, _backend: Any, *args: Any, **more: Any
    ) -> Any:
        return self._new_group(size, rank, ranks, EMULATED, *args, **more)
