"""What a program receives from ranks that are virtual: its own values.

- A gather, or a reduction, is over equal copies of what this rank has. Reductions of a few numbers
  are summed up so; in large ones, gradients, the sum is left out, as the pass over memory that it
  takes is no work of the program. So gradients are smaller by the number of ranks.
- A broadcast from another rank leaves the tensor as it is; objects (`broadcast_object_list`,
  `scatter_object_list`, `recv_object_list`) stay those in the list. Their own size is sent.
- A tensor received from another rank, or scattered by it, is zero.
- A distributed checkpoint holds this rank's shards alone, and all that ranks have alike.

That spoils metrics (losses, accuracies, norms of gradients, what is gathered to be printed), and
not times: the same bytes go at the same moments. A program whose course depends on what differs
between ranks takes the course that it would take if all were like this one: an early stop comes
when this rank stops, uneven inputs (`Join`) end with its own, and a net that ranks build unlike one
another is measured as rank 0 builds it.

Refused, since it would hang or train on nothing: waiting for a key of a store that another rank
would set, stages of a pipeline, remote calls.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import timedelta
from types import ModuleType
from typing import Any

import torch.distributed as dist
from torch._C._distributed_c10d import Store, TCPStore

from bench.core.errors import MeasurementError
from bench.wrap.on_import import after_import

KEY_WAIT_S = 5.0
"""For a key that another thread of this rank may set."""
Note = Callable[[str], None]
_OBJECTS = "objects from other ranks are this rank's own"


def replace_function(name: str, by: Callable[..., Any]) -> Callable[..., Any]:
    """Put `by`, which gets the original first, in place of a function of torch.distributed."""
    from torch.distributed import device_mesh, distributed_c10d

    original: Callable[..., Any] = getattr(distributed_c10d, name)
    replaced = functools.wraps(original)(functools.partial(by, original))
    for module in (distributed_c10d, dist, device_mesh):
        if hasattr(module, name):
            setattr(module, name, replaced)
    return original


def receive_own_values(note: Note) -> None:
    """Have object collectives of torch.distributed take this rank's own for what others send."""
    replace_function("broadcast_object_list", functools.partial(_broadcast_objects, note))
    replace_function("scatter_object_list", functools.partial(_scatter_objects, note))
    replace_function("recv_object_list", functools.partial(_receive_objects, note))
    replace_function("broadcast", functools.partial(_note_broadcast, note))
    after_import("torch.distributed.algorithms.join", functools.partial(_note_join, note))
    after_import("torch.distributed.checkpoint.default_planner", _accept_shards)


def _is_own(src: int | None, group_src: int | None, *, group: Any) -> bool:
    given = (src or 0) if group_src is None else dist.get_global_rank(group, group_src)
    return given == dist.get_rank() or dist.get_rank(group) < 0


def _broadcast_objects(
    note: Note,
    original: Any,
    object_list: Any,
    src: int | None = None,
    group: Any = None,
    device: Any = None,
    group_src: int | None = None,
) -> None:
    group = group or dist.group.WORLD
    if not _is_own(src, group_src, group=group):
        note(_OBJECTS)
        src, group_src = None, dist.get_rank(group)
    original(object_list, src, group, device, group_src)


def _scatter_objects(
    note: Note,
    original: Any,
    scatter_object_output_list: Any,
    scatter_object_input_list: Any = None,
    src: int | None = None,
    group: Any = None,
    group_src: int | None = None,
) -> None:
    group, inputs = group or dist.group.WORLD, scatter_object_input_list
    if not _is_own(src, group_src, group=group):
        note(_OBJECTS)
        inputs = scatter_object_output_list[:1] * dist.get_world_size(group)
        src, group_src = None, dist.get_rank(group)
    original(scatter_object_output_list, inputs, src, group, group_src)


def _receive_objects(
    note: Note,
    original: Any,
    object_list: Any,
    src: int | None = None,
    group: Any = None,
    device: Any = None,
    group_src: int | None = None,
    **more: Any,
) -> int:
    group = group or dist.group.WORLD
    note(_OBJECTS)
    if src is None and group_src is None:
        group_src = (dist.get_rank(group) + 1) % dist.get_world_size(group)
    more = {"group": group, "device": device, "group_dst": group_src, **more}
    dist.send_object_list(object_list, src, **more)
    return dist.get_global_rank(group, group_src) if src is None else src  # type: ignore[arg-type]


def _note_broadcast(
    note: Note,
    original: Any,
    tensor: Any,
    src: int | None = None,
    group: Any = None,
    async_op: bool = False,
    group_src: int | None = None,
) -> Any:
    if not _is_own(src, group_src, group=group or dist.group.WORLD):
        note("tensors broadcast by other ranks are this rank's own")
    return original(tensor, src, group, async_op, group_src)


def _note_join(note: Note, module: ModuleType) -> None:
    kind: Any = module
    start = kind.Join.__init__

    @functools.wraps(start)
    def noted(*args: Any, **options: Any) -> None:
        note("inputs of all ranks (Join) end with this rank's")
        start(*args, **options)

    kind.Join.__init__ = noted


def _accept_shards(module: Any) -> None:
    validate, share_out = module._validate_global_plan, module.dedup_save_plans

    @functools.wraps(validate)
    def accepted(*args: Any) -> Any:
        # Errors, or whether there are none: up to torch 2.12.
        return True if isinstance(validate(*args), bool) else []

    module._validate_global_plan = accepted
    # What all ranks have alike is this one's to write: the others write nothing.
    module.dedup_save_plans = lambda plans, *_: share_out(plans, True)


# What would hang ----------------------------------------------------------------------------------


def refuse_what_hangs() -> None:
    """Raise `MeasurementError` where a program needs a second rank, before it waits for one."""
    after_import("torch.distributed.pipelining.stage", _refuse_stages)
    after_import("torch.distributed.rpc", _refuse_calls)
    _dont_wait_for_workers()


def _refuse_stages(module: Any) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise MeasurementError(
            "the program runs a pipeline (torch.distributed.pipelining): its first rank does not "
            "show when the stages after it are done; bench run --parallel pp simulates pipelines"
        )

    module._PipelineStageBase.__init__ = refuse


def _refuse_calls(module: Any) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise MeasurementError(
            "the program calls other ranks (torch.distributed.rpc.init_rpc): they are virtual and "
            "answer nothing; measure it with real ranks, without --link"
        )

    module.init_rpc = refuse


def _dont_wait_for_workers() -> None:
    kind: Any = TCPStore
    start = kind.__init__

    @functools.wraps(start)
    def alone(self: Any, *args: Any, **options: Any) -> None:
        position = 5  # after the name, port, number of workers, whether it is the master, time-out
        if len(args) > position:
            args = (*args[:position], False, *args[position + 1 :])
        else:
            options["wait_for_workers"] = False
        start(self, *args, **options)

    kind.__init__ = alone


def refuse_missing_keys() -> None:
    """Have stores raise for a key that this rank has not set, rather than wait for it."""
    kind: Any = Store
    wait = kind.wait

    def check(store: Any, keys: list[str]) -> None:
        if store.check(keys):
            return
        try:
            wait(store, keys, timedelta(seconds=KEY_WAIT_S))
        except dist.DistError:
            raise MeasurementError(
                f"the program waits for {', '.join(keys)} in a store, which another rank would "
                "set: the others are virtual; measure it with real ranks, without --link"
            ) from None

    def checked(name: str) -> Any:
        original = getattr(kind, name)

        @functools.wraps(original)
        def wrapped(store: Any, keys: Any, *args: Any) -> Any:
            check(store, [keys] if isinstance(keys, str) else keys)
            return original(store, keys, *args)

        return wrapped

    for name in ("get", "multi_get", "wait"):
        setattr(kind, name, checked(name))
