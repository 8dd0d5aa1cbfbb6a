"""A process group over a modelled link: one real rank and virtual ones, or real ranks held back.

Torch sees an ordinary backend, so DDP, FSDP, tensor parallelism and communication hooks run
unchanged. Every operation in `OPERATIONS` takes the time of the cost model; any other one
raises, because what an inherited method would do takes no time and nobody would notice.

Real ranks held back run each collective for real, complete no earlier than modelled from its issue
on: so numerics are those of real training, for losses and compression. A link faster than what is
really there stays as slow as that is, and the trace then shows collectives longer than modelled.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import FakeProcessGroup, HashStore, PrefixStore, Store

from bench.core.errors import UsageError
from bench.emulate.link.host_link import HostLink
from bench.emulate.operations import OPERATIONS, Operation, flat
from bench.emulate.replay import Issued, Recorder, StepNotes
from bench.hardware.costs.collectives import Cost, Group
from bench.hardware.costs.cost import CostModel

EMULATED, THROTTLED = "emulated", "throttled"
"""Names of the backends: other ranks are virtual, or real and held back."""
_LARGE_BYTES = 2**28
"""A message whose time is all bandwidth."""


@dataclass(kw_only=True)
class Carried:
    """What a link carried, in sums; counted whether or not steps are recorded."""

    num_ops: int = 0
    num_bytes: int = 0
    total_s: float = 0.0
    """Modelled, without waiting for one another."""
    low_s: float = 0.0
    high_s: float = 0.0
    methods: set[str] = field(default_factory=set)

    def add(self, cost: Cost, *, num_bytes: int) -> None:
        """Count one collective."""
        self.num_ops += 1
        self.num_bytes += num_bytes
        self.total_s += cost.seconds
        self.low_s += cost.low_s
        self.high_s += cost.high_s
        self.methods.add(cost.method)


class Emulation:
    """A running process group over a modelled link, until `close`.

    Without `is_timed` an accelerator's steps are only recorded, and the model must take no time.
    """

    def __init__(
        self, *, num_ranks: int, model: CostModel, device: torch.device, is_timed: bool = True
    ) -> None:
        self.num_ranks = num_ranks
        self.model = model
        self.device = device
        self.recorder = Recorder()
        self.carried: Carried | None = None
        """None: nobody counts, and no time goes into it."""
        self.link = _link_for(device, recorder=self.recorder, is_timed=is_timed)
        self._compiler_settings = ExitStack()

    def begin_step(self) -> None:
        """Record from here; on an accelerator the caller has synchronised before."""
        self.link.begin_step()
        self.recorder.begin(self.link.now())

    def end_step(self) -> StepNotes:
        """Stop recording and return the step's notes; waits for an accelerator."""
        now = self.link.now()
        return self.recorder.end(now, resolve=self.link.end_step())

    def tune_compiler(self) -> None:
        """Tell inductor the modelled bandwidths: it orders collectives by what they take."""
        from torch._inductor import config

        others = range(1, self.num_ranks)  # of rank 0: the last node may hold fewer than its own
        node_size = 1 + bisect_left(
            others, 2, key=lambda one: self.model.group_of((0, one)).num_nodes
        )
        ends = {
            "intra_node_bw": (range(node_size), 1),
            # One rank of each node; a node has the adapters of all its ranks.
            "inter_node_bw": (range(0, self.num_ranks, node_size), node_size),
        }
        for name, (ranks, num_beside) in ends.items():
            if not hasattr(config, name) or len(ranks) < 2:
                continue
            group = self.model.group_of(ranks)
            time_s = self.model.cost("all_gather", num_bytes=_LARGE_BYTES, group=group).seconds
            if time_s > 0:
                moved_bytes = num_beside * _LARGE_BYTES * (len(ranks) - 1) / len(ranks)
                setting = config.patch({name: max(1, round(moved_bytes / time_s / 1e9))})
                self._compiler_settings.enter_context(setting)

    def close(self) -> None:
        """Destroy the process group, end the threads, give the compiler its settings back."""
        self._compiler_settings.close()
        dist.destroy_process_group()
        self.link.close()


def _link_for(device: torch.device, *, recorder: Recorder, is_timed: bool) -> Any:
    if device.type == "cpu":
        return HostLink(recorder)
    if is_timed and not (device.type == "cuda" and torch.version.cuda):
        named = "ROCm" if device.type == "cuda" else device.type
        raise UsageError(
            f"a link cannot be emulated on {named}: it takes a CPU or an NVIDIA GPU, whose clock a "
            "kernel can read; use --mode simulated"
        )
    from bench.emulate.link.device_link import DeviceLink

    return DeviceLink(device, recorder=recorder, is_timed=is_timed)


class ModelledGroup(dist.ProcessGroup):
    """A group whose operations take modelled time; its operations are added by `group_class`."""

    def __init__(
        self,
        emulation: Emulation,
        *,
        rank: int,
        ranks: Sequence[int],
        real: dist.ProcessGroup | None = None,
    ) -> None:
        super().__init__(rank, len(ranks))  # type: ignore[call-arg]  # torch's stub lacks it
        self.emulation = emulation
        self._rank = rank
        self._ranks = ranks
        self._real = real
        self._group = emulation.model.group_of(ranks)
        self._last: dist.Work | None = None
        # Names, meshes and devices come from a backend inside; its operations raise.
        fake: Any = FakeProcessGroup  # of which torch's stub knows little
        options = fake.Options()
        options.error_on_collective = True
        inner = fake._create_internal(rank, len(ranks), options)
        custom = dist.ProcessGroup.BackendType.CUSTOM
        for device_type in {"cpu", emulation.device.type}:
            self._register_backend(torch.device(device_type), custom, inner)
        self._set_default_backend(custom)

    def getBackendName(self) -> str:  # noqa: N802  (the name that C++ asks for)
        """Return the name that torch prints."""
        return EMULATED if self._real is None else THROTTLED

    def carry(self, name: str, args: Sequence[Any]) -> dist.Work:
        """Run the operation called `name` over the modelled link."""
        operation = OPERATIONS[name]
        recorder, link = self.emulation.recorder, self.emulation.link
        group = self._group if operation.peer is None else self._group_with(operation.peer(args))
        num_bytes, modelled_s = operation.num_bytes(args, len(self._ranks)), 0.0
        if group.num_ranks > 1:
            cost = self.emulation.model.cost(operation.op, num_bytes=num_bytes, group=group)
            modelled_s = cost.seconds
            if self.emulation.carried is not None:
                self.emulation.carried.add(cost, num_bytes=num_bytes)
        issued = Issued(
            op=operation.op,
            num_bytes=num_bytes,
            group=group,
            modelled_s=modelled_s,
            mark_start=link.now() if recorder.is_on else 0.0,
            is_on_lane=link.is_on_lane,
            step=recorder.step,
        )
        if recorder.is_on:
            recorder.notes.issued.append(issued)
        is_free_to_move = self._real is None and not operation.fills(num_bytes)
        work: dist.Work = link.carry(
            issued,
            outputs=operation.outputs(args),
            touched=lambda: [] if is_free_to_move else _tensors(args),
            move=None if is_free_to_move else lambda: self._move(name, operation, args),
            # Methods without options are always waited for later.
            is_async=bool(getattr(args[-1], "asyncOp", True)) if args else True,
        )
        self._last = work
        return work

    def _move(self, name: str, operation: Operation, args: Sequence[Any]) -> dist.Work | None:
        if self._real is not None:
            work: dist.Work | None = getattr(self._real, name)(*args)
            return work
        # As a communication library does: beside autograd, which neither sees nor refuses it.
        with torch._C._AutoDispatchBelowAutograd():
            if operation.fill is not None:
                operation.fill(args, self._rank, len(self._ranks))
        return None

    def _group_with(self, peer: int) -> Group:
        if peer < 0:  # from whom is not known: the neighbour
            peer = (self._rank + 1) % len(self._ranks)
        return self.emulation.model.group_of([self._ranks[self._rank], self._ranks[peer]])

    def _start_coalescing(self, device: torch.device) -> None:
        self._last = None

    def _end_coalescing(self, device: torch.device) -> dist.Work | None:  # type: ignore[override]
        # The link is serial: what was issued last is complete last.
        work, self._last = self._last, None
        return work


def _tensors(args: Sequence[Any]) -> list[torch.Tensor]:
    """Tensors that are read or written: outputs and inputs come first."""
    kinds = (torch.Tensor, list, tuple)
    return [tensor for one in args[:2] if isinstance(one, kinds) for tensor in flat(one)]


def _method(name: str) -> Callable[..., dist.Work]:
    def method(self: ModelledGroup, *args: Any, **kwargs: Any) -> dist.Work:
        return self.carry(name, (*args, *kwargs.values()))

    method.__name__ = method.__qualname__ = name
    return method


@cache
def group_class() -> type[ModelledGroup]:
    """Return the class with all operations, none of which the compiler looks into."""
    methods = {
        # Dynamo would trace into the group and fail on what it finds there.
        name: torch.compiler.disable(_method(name))  # type: ignore[no-untyped-call]
        for name in OPERATIONS
    }
    return type("ModelledGroup", (ModelledGroup,), methods)


@cache
def register_backends(device_type: str) -> None:
    """Make torch know the backends for a type and the CPU; for the process's whole life."""
    for name in (EMULATED, THROTTLED):
        dist.Backend.register_backend(
            name,
            partial(_create_group, is_real=name == THROTTLED),
            extended_api=True,
            devices=sorted({"cpu", device_type}),  # a text here is taken apart into letters
        )


def _create_group(options: Any, emulation: Emulation | None, *, is_real: bool) -> dist.ProcessGroup:
    """Make a group for torch; only the default one is made with its emulation as option."""
    if emulation is None:
        world = dist.group.WORLD
        assert isinstance(world, ModelledGroup)
        emulation = world.emulation
    ranks = options.global_ranks_in_group or range(options.group_size)
    real = _real_group(options, device_type=emulation.device.type) if is_real else None
    return group_class()(emulation, rank=options.group_rank, ranks=ranks, real=real)


def _real_group(options: Any, *, device_type: str) -> dist.ProcessGroup:
    """Make the group that torch would have made: gloo, and NCCL on CUDA."""
    rank, size, store = options.group_rank, options.group_size, options.store
    real = dist.ProcessGroup(store, rank, size)
    kinds = dist.ProcessGroup.BackendType
    gloo = dist.ProcessGroupGloo(PrefixStore("cpu/", store), rank, size, timeout=options.timeout)
    real._register_backend(torch.device("cpu"), kinds.GLOO, gloo)
    real._set_default_backend(kinds.GLOO)
    if device_type == "cuda":
        settings = dist.ProcessGroupNCCL.Options()
        settings._timeout = options.timeout
        nccl = dist.ProcessGroupNCCL(PrefixStore("cuda/", store), rank, size, settings)
        real._register_backend(torch.device("cuda"), kinds.NCCL, nccl)
        real._set_default_backend(kinds.NCCL)
    return real


def start_emulation(
    *,
    num_ranks: int,
    model: CostModel,
    device: torch.device,
    is_timed: bool = True,
    store: Store | None = None,
    rank: int = 0,
) -> Emulation:
    """Make torch's default group in this process; it ends with `close`.

    Rank 0 is real and the others are virtual; with a `store` that ranks share all are real, and
    held back. Without `is_timed` steps are recorded, on a model that takes no time. Raises
    UsageError where a link cannot be emulated on `device`.
    """
    emulation = Emulation(num_ranks=num_ranks, model=model, device=device, is_timed=is_timed)
    register_backends(device.type)
    dist.init_process_group(
        EMULATED if store is None else THROTTLED,
        store=store or HashStore(),
        rank=rank,
        world_size=num_ranks,
        pg_options=emulation,
    )
    emulation.tune_compiler()
    return emulation
