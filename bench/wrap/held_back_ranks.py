"""The program's own ranks, all of them real, held back to a modelled link.

They make their group as they do without us, by gloo or NCCL below; each collective is really run,
and is complete no earlier than modelled.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from bench.core.errors import MeasurementError, UsageError
from bench.core.nouns import Config
from bench.devices.torch.torch_adapter import adapter_for
from bench.emulate.group import THROTTLED
from bench.measure.communication.modelled_link import open_link
from bench.parallel.ranks import Ranks
from bench.wrap.own_values import replace_function
from bench.wrap.virtual_ranks import VirtualRanks, name_backend

_CARRIED = ("gloo", "nccl", "undefined")
"""Backends that can be below; undefined is torch's word for its choice by device."""


class HeldBackRanks(VirtualRanks):
    """The ranks of a wrapped program, none of them virtual."""

    backend = THROTTLED

    def __init__(self, config: Config, *, runs: Callable[[Callable[[], None]], None]) -> None:
        super().__init__(config, runs=runs)
        replace_function("init_process_group", self._hold_back)
        replace_function("_new_process_group_helper", self._make_group)

    def alone(self) -> MeasurementError:
        """Return what is wrong with a program that sends nothing."""
        return MeasurementError(
            "the program trains without a process group, so that there is nothing to hold back; "
            "it must call torch.distributed.init_process_group (or leave --mode throttled out)"
        )

    def _hold_back(
        self,
        original: Any,
        backend: str | None = None,
        init_method: str | None = None,
        timeout: Any = None,
        world_size: int = -1,
        rank: int = -1,
        store: Any = None,
        *args: Any,
        **options: Any,
    ) -> None:
        """Find the other ranks as torch does, and make the group: its own start comes by here."""
        if backend == THROTTLED or dist.is_initialized():  # torch raises at a second one
            given: Any = {"world_size": world_size, "rank": rank, "store": store}
            original(backend, init_method, timeout, *args, **given, **options)
            return
        if self.is_started:
            raise MeasurementError(
                "the program ends its process group and makes another, which no window can hold"
            )
        device = torch.device("cpu")
        if backend != "gloo":
            device = torch.accelerator.current_accelerator(check_available=True) or device
        _check_backend(backend or "undefined", device=device)
        if store is None:
            limit = {} if timeout is None else {"timeout": timeout}
            places = rendezvous(init_method or "env://", rank, world_size, **limit)
            store, rank, world_size = next(places)
        self._check_size(world_size)
        ranks = Ranks(
            rank=rank,
            num_ranks=world_size,
            local_rank=int(os.environ.get("LOCAL_RANK", rank)),
            num_local_ranks=int(os.environ.get("LOCAL_WORLD_SIZE", world_size)),
            store=store,
        )
        does: Any = {"step": lambda: None, "synchronize": adapter_for(str(device)).synchronize}
        self.link = open_link(self._layout, device=device, ranks=ranks, **does)
        self.is_started = True
        name_backend(dist.group.WORLD, backend or "undefined")

    def _check_size(self, size: int) -> None:
        """Take the number of ranks over at the first look; later it must be the same."""
        if self._layout.devices == 1:
            self._layout = replace(self._layout, data=size)
        if self._layout.devices != size:
            raise UsageError(
                f"the program makes a process group of {size} ranks, and made one of "
                f"{self._layout.devices} when it was looked at"
            )


def _check_backend(asked: str, *, device: torch.device) -> None:
    names = {part.rpartition(":")[2] for part in str(asked).lower().split(",")}
    if not names <= set(_CARRIED) or ("nccl" in names and device.type != "cuda"):
        raise UsageError(
            f"--mode throttled holds back gloo, and NCCL on CUDA; the program asks for {asked}"
        )
