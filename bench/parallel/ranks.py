"""This process as one rank of several: its number, what rank 0 decided, what the others found.

A rank is started by torch's elastic agent, by ours on one machine or by the user's `torchrun` on
many, and takes its number from the environment. Decisions that all ranks must take alike (when to
stop, which trial is next) go through the agent's store, not through collectives: rank 0 then waits
for nobody, and nothing of it passes the link that is measured. Every trial has keys of its own.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from bench.core.errors import MeasurementError
from bench.core.nouns import Layout

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

PATIENCE = timedelta(days=1)
"""Of stores and collectives: what ends a trial that hangs is its --timeout, which its row shows."""
JOIN_LIMIT = timedelta(seconds=30)
"""Of finding the store: the agent has it before it starts a rank."""
_PREFIX = "gapbench"


@dataclass(kw_only=True)
class Ranks:
    """One rank's view. `store` is for this trial alone."""

    rank: int
    num_ranks: int
    local_rank: int
    """Number on its machine: index of its device, and of its share of the cores."""
    num_local_ranks: int
    store: Store
    _num_agreed: int = field(default=0, init=False)
    _num_gathered: int = field(default=0, init=False)

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which decides and reports."""
        return self.rank == 0

    def agree(self, steps: int) -> int:
        """Return rank 0's number in every rank; all call it equally often.

        Rank 0 does not wait; the others wait until it has come as far.
        """
        self._num_agreed += 1
        key = f"agreed/{self._num_agreed}"
        if self.is_first:
            self.store.set(key, str(steps))
            return steps
        return int(self.store.get(key))

    def gather(self, value: Any) -> list[Any]:
        """Return every rank's value (JSON) at rank 0, in order; nothing elsewhere."""
        self._num_gathered += 1
        key = f"gathered/{self._num_gathered}"
        if not self.is_first:
            self.store.set(f"{key}/{self.rank}", json.dumps(value))
            return []
        others = [self.store.get(f"{key}/{rank}") for rank in range(1, self.num_ranks)]
        return [value, *(json.loads(one) for one in others)]

    def share(self, cpu_ids: tuple[int, ...]) -> tuple[int, ...]:
        """Return this rank's part of its machine's cores; one shared where they are too few."""
        if not cpu_ids:
            return ()
        each = len(cpu_ids) // self.num_local_ranks
        if each == 0:
            return (cpu_ids[self.local_rank % len(cpu_ids)],)
        return cpu_ids[self.local_rank * each : (self.local_rank + 1) * each]


def data_rank(rank: int, *, layout: Layout) -> int:
    """Which data replica a rank belongs to: tensor-parallel ranks are neighbours, see one batch."""
    return rank // (layout.tensor * layout.pipeline)


def join(store: Store, *, environment: Mapping[str, str] | None = None) -> Ranks:
    """Read from the environment which rank this is; KeyError where no agent started it."""
    values = os.environ if environment is None else environment
    return Ranks(
        rank=int(values["RANK"]),
        num_ranks=int(values["WORLD_SIZE"]),
        local_rank=int(values["LOCAL_RANK"]),
        num_local_ranks=int(values["LOCAL_WORLD_SIZE"]),
        store=store,
    )


def connect(*, limit: timedelta = JOIN_LIMIT) -> Store:
    """Return a client of the agent's store; a client waits in one call at a time.

    `MeasurementError` names host and port where no store answers.
    """
    from torch._C._distributed_c10d import PrefixStore, TCPStore

    host, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    found: list[Store | Exception] = []

    def find() -> None:
        try:
            found.append(TCPStore(host, int(port), is_master=False, timeout=limit))
        except Exception as error:
            found.append(error)

    # In a thread: something that is no store keeps the constructor waiting beyond its limit.
    thread = threading.Thread(target=find, daemon=True)
    thread.start()
    thread.join(limit.total_seconds())
    store = found[0] if found else f"no word in {limit.total_seconds():g} s"
    if isinstance(store, str | Exception):
        reason = (str(store).splitlines() or [""])[0]
        raise MeasurementError(
            f"the store of the ranks at {host}:{port} (MASTER_ADDR, MASTER_PORT) does not "
            f"answer: {reason}"
        )
    store.set_timeout(PATIENCE)
    # The agent's store outlives the ranks that it starts anew.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"{_PREFIX}/{attempt}", store)


def within(store: Store, *, number: int) -> Store:
    """Return the part of the store that is for the trial of this number."""
    from torch._C._distributed_c10d import PrefixStore

    return PrefixStore(str(number), store)


def local_label(device: str, *, ranks: Ranks) -> str:
    """`cuda:0` as this rank has it: its own index; a CPU is for all ranks."""
    device_type = device.partition(":")[0]
    return device_type if device_type == "cpu" else f"{device_type}:{ranks.local_rank}"


def bind_device(ranks: Ranks, *, device: str) -> None:
    """Make this rank's device the current one; MeasurementError where the machine has too few."""
    import torch

    if device == "cpu":
        return
    count = torch.accelerator.device_count()
    if ranks.local_rank >= count:
        raise MeasurementError(
            f"rank {ranks.rank} needs {device}, but this machine has {count} of them; "
            "use fewer --devices, or --link to emulate the others"
        )
    torch.accelerator.set_device_index(ranks.local_rank)


def start_group(ranks: Ranks, *, device: str) -> None:
    """Make torch's default group of all ranks over what the device's backend names as its own.

    nccl, rccl (which torch also calls nccl), xccl, hccl, ...; gloo on a CPU. `device` is this
    rank's own label.
    """
    import torch
    from torch import distributed

    place = torch.device(device)
    backend = distributed.get_default_backend_for_device(place)
    if place.type != "cpu":
        backend = f"cpu:gloo,{place.type}:{backend}"
    distributed.init_process_group(
        backend,
        store=within(ranks.store, number=0),
        rank=ranks.rank,
        world_size=ranks.num_ranks,
        timeout=PATIENCE,
        device_id=place if place.type == "cuda" else None,
    )


def is_lost_peer(error: BaseException) -> bool:
    """Whether this only means that another rank is gone: the cause is in another rank."""
    from torch import distributed

    if isinstance(error, distributed.DistError):
        return True
    text = str(error)
    # gloo raises plain RuntimeErrors; the source file's path is in their text.
    return isinstance(error, RuntimeError) and ("/gloo/" in text or "gloo::" in text)
