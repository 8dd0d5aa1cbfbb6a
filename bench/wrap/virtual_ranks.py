"""The program as rank 0 of several, the others virtual: what torch.distributed gives it.

Whatever backend it names, its groups are the modelled one (`bench.emulate.group`), and they answer
with that name. `own_values` has what it receives, `launchers` who starts it.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from dataclasses import replace
from time import monotonic
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d as c10d

from bench.core.errors import MeasurementError, UsageError
from bench.core.nouns import Config
from bench.devices.torch.torch_adapter import adapter_for
from bench.emulate.group import EMULATED
from bench.measure.communication.modelled_link import ModelledLink, open_link
from bench.wrap.launchers import Launchers
from bench.wrap.own_values import (
    receive_own_values,
    refuse_missing_keys,
    refuse_what_hangs,
    replace_function,
)
from bench.wrap.rank_environment import rank_environment
from bench.wrap.virtual_devices import show_devices

MOST_ALONE_STEPS = 10
MOST_ALONE_S = 5.0
"""A program makes its group within so many steps, or so long, or never."""


class VirtualRanks:
    """The other ranks of a wrapped program; without --devices there are none.

    `runs` is given what a process does that the program starts as a rank.
    """

    backend = EMULATED
    """What every group of the program is made of."""

    def __init__(self, config: Config, *, runs: Callable[[Callable[[], None]], None]) -> None:
        self._layout, self._device = config.layout, config.device
        self.link: ModelledLink | None = None
        """The link that is modelled, once the program has made its group."""
        self.notes: dict[str, None] = {}
        """What the program would have from other ranks, and has not."""
        self.is_started = False
        self._num_alone = 0
        self._alone_since_s = 0.0
        self._is_rank = config.script is not None and config.script.is_rank
        self.is_awaited = bool(config.layout.link)
        if not self._is_rank:
            return
        environment = rank_environment(config.layout)
        os.environ.update(environment)
        os.environ.pop("TORCH_DIST_INIT_BARRIER", None)  # which waits for all ranks in a store
        Launchers(self.num_ranks, runs=runs)
        show_devices(int(environment["LOCAL_WORLD_SIZE"]))
        receive_own_values(lambda note: self.notes.update({note: None}))
        refuse_what_hangs()
        self._init = replace_function("init_process_group", self._start)
        replace_function("_new_process_group_helper", self._make_group)
        replace_function("split_group", _split)

    @property
    def num_ranks(self) -> int:
        """Ranks of the program, virtual or real."""
        return self._layout.devices if self._is_rank else self.num_real

    @property
    def num_real(self) -> int:
        """Ranks that are processes."""
        return dist.get_world_size() if dist.is_initialized() and not self._is_rank else 1

    def are_ready(self) -> bool:
        """Whether steps count: a rank's do when it has its group, which some make late."""
        if not self.is_awaited or self.is_started:
            return True
        self._alone_since_s = self._alone_since_s or monotonic()
        self._num_alone += 1
        alone_s = monotonic() - self._alone_since_s
        if self._num_alone > MOST_ALONE_STEPS and alone_s > MOST_ALONE_S:
            raise self.alone()
        return False

    def alone(self) -> MeasurementError:
        """Return what is wrong with a program that trains beside the ranks it should be one of."""
        return MeasurementError(
            f"the program trains without a process group: it is no rank of {self.num_ranks}; it "
            "must call torch.distributed.init_process_group, or its launcher must (or leave "
            "--devices and --link out)"
        )

    def _start(self, original: Any, *args: Any, **options: Any) -> None:
        """Start the modelled group, whatever was asked for: its own start comes by here as well."""
        if (args and args[0] == EMULATED) or dist.is_initialized():  # torch raises at a second one
            original(*args, **options)
            return
        if self.is_started:
            raise MeasurementError(
                "the program ends its process group and makes another: what that one sends would "
                "be in no trace; measure the parts one by one"
            )
        names = ("backend", "init_method", "timeout", "world_size", "rank", "store")
        asked = dict(zip(names, args, strict=False)) | options
        self._check(asked.get("world_size"), asked.get("rank"))
        device = self._device_for(asked.get("backend"))
        does: Any = {"step": lambda: None, "synchronize": adapter_for(str(device)).synchronize}
        layout = self._layout
        if not layout.link:  # a world of one: nobody is waited for
            layout = replace(layout, link="infinite", mode="simulated")
        current = None if device.type == "cpu" else torch.accelerator.current_device_index()
        link = open_link(layout, device=device, ranks=None, **does)
        if current is not None:  # which device is the current one stays the program's choice
            torch.accelerator.set_device_index(current)
        if self.is_awaited:
            self.link = link
        self.is_started = True
        name_backend(dist.group.WORLD, asked.get("backend") or "undefined")
        refuse_missing_keys()

    def _device_for(self, backend: str | None) -> torch.device:
        """Where the program computes: as it was planned, or as far as it shows before a step."""
        if self._device:
            return torch.device(self._device)
        device = torch.device("cpu")
        if backend == "gloo":  # whose tensors are on the CPU, whatever is beside it
            return device
        return torch.accelerator.current_accelerator(check_available=True) or device

    def _check(self, size: int | None, rank: int | None) -> None:
        """Refuse what contradicts --devices; a rank that the program started by itself ends."""
        size = int(os.environ.get("WORLD_SIZE", "-1")) if size in (None, -1) else size
        rank = int(os.environ.get("RANK", "0")) if rank in (None, -1) else rank
        if size != self.num_ranks:
            raise UsageError(
                f"the program makes a process group of {size} ranks, but --devices says "
                f"{self.num_ranks}; give both the same number"
            )
        if rank == 0:
            return
        if multiprocessing.parent_process() is not None:
            raise SystemExit(0)
        raise UsageError(
            f"the program makes its process group as rank {rank}: only rank 0 is real, the others "
            "are virtual; take the rank from RANK, as torchrun sets it"
        )

    def _make_group(self, original: Any, *args: Any, **more: Any) -> Any:
        size, rank, ranks, backend, *others = args
        if backend == self.backend:
            return original(*args, **more)
        more.pop("backend_options", None)  # of the backend that it asked for
        made = original(size, rank, ranks, self.backend, *others, **more)
        if isinstance(made[0], dist.ProcessGroup):
            name_backend(made[0], backend)
        return made


def name_backend(group: Any, name: str) -> None:
    """Have torch answer `get_backend` with what was asked for: programs decide by it.

    Where torch has no NCCL, a program that names it runs on a CPU, as with gloo.
    """
    if name == "nccl" and not dist.is_nccl_available():
        name = "gloo"
    world: Any = c10d._world
    world.pg_map[group] = (dist.Backend(name), world.pg_map[group][1])


def _split(
    _: Any,
    parent_pg: Any = None,
    split_ranks: Any = None,
    timeout: Any = None,
    pg_options: Any = None,
    group_desc: Any = None,
    **more: Any,
) -> Any:
    """Make the part of a group that this rank is in; torch splits only what NCCL made."""
    parent = parent_pg or dist.group.WORLD
    members, own = dist.get_process_group_ranks(parent), dist.get_rank(parent)
    part = next((part for part in split_ranks or [] if own in part), None)
    if part is None:
        return None
    ranks = [members[one] for one in sorted(part)]
    return dist.new_group(ranks, timeout=timeout, group_desc=group_desc)
