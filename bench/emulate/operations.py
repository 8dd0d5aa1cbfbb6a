"""The operations of a process group: what each sends, and what is left in its outputs.

Torch has two spellings for many: those of its C++ callers and of its Python callers changed between
2.10 and 2.14, so both are here. Ranks other than this one are virtual and hold what it holds: a
gather repeats the local input, a reduction leaves it as it is, a scatter takes this rank's chunk.
Sums of a few numbers are those of equal ranks: programs decide by them when to stop. That is finite
and costs one operation whatever the number of ranks; it is not what training needs, so nothing is
said about losses of emulated ranks.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributed import ReduceOp

from bench.hardware.costs.collectives import Op

Args = Sequence[Any]
FEW_BYTES = 256
"""Up to here a message holds flags, counts and metrics, and no gradients."""


def flat(value: Any) -> list[Tensor]:
    """Return the tensors of a tensor, a list or a list of lists."""
    if isinstance(value, Tensor):
        return [value]
    if value and isinstance(value[0], Tensor):
        return list(value)
    return [tensor for one in value for tensor in flat(one)]


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One method of a process group."""

    op: Op
    full: int | None = 0
    """The argument that is the full tensor, or a rank's part of it; None: nothing is sent."""
    is_part: bool = False
    fill: Callable[[Args, int, int], None] | None = None
    """Leave something in the outputs: arguments, this rank, size of the group; None: what is there
    is the result."""
    most_filled_bytes: float = math.inf
    """Larger outputs are left as they are."""
    peer: Callable[[Args], int] | None = None
    """The other rank of the group, where there is only one."""

    def num_bytes(self, args: Args, size: int) -> int:
        """Bytes of the full tensor, from the arguments and the group's size."""
        if self.full is None:
            return 0
        tensors = flat(args[self.full])
        # In the middle of a step each Python call finds the caches cold: 10 us, saved here.
        own = tensors[0].nbytes if len(tensors) == 1 else sum(one.nbytes for one in tensors)
        return own * (size if self.is_part else 1)

    def fills(self, num_bytes: int) -> bool:
        """Whether something is done to the outputs of a message of so many bytes."""
        return self.fill is not None and num_bytes <= self.most_filled_bytes

    def outputs(self, args: Args) -> list[Tensor]:
        """Return the tensors that hold the result."""
        return [] if self.full is None else flat(args[0])


def _gather_lists(args: Args, rank: int, size: int) -> None:
    """Outputs hold `size` tensors for each input, in any nesting; those of not-roots are empty."""
    outputs, inputs = flat(args[0]), flat(args[1])
    if not outputs:
        return
    if len(inputs) == 1:
        _copy(outputs, inputs * len(outputs))
    else:  # all-gather of several: a list by rank of lists by input
        _copy(outputs, inputs * (len(outputs) // len(inputs)))


def _gather_flat(args: Args, rank: int, size: int) -> None:
    for output, source in zip(flat(args[0]), flat(args[1]), strict=True):
        # Where the input is this rank's part of the output, it is read before it is overwritten.
        own = source.reshape(1, -1)
        is_part = source.untyped_storage().data_ptr() == output.untyped_storage().data_ptr()
        output.view(size, -1).copy_(own.clone() if is_part else own)


def _gather_to_root(args: Args, rank: int, size: int) -> None:
    if args[0].numel():  # ranks that are not the root hand in an empty output
        _gather_flat(args, rank, size)


def _scatter_lists(args: Args, rank: int, size: int) -> None:
    outputs, inputs = flat(args[0]), flat(args[1])
    if not inputs:  # the root is another rank
        torch._foreach_zero_(outputs)
    else:
        each = len(inputs) // len(outputs)
        _copy(outputs, [inputs[i * each + rank % each] for i in range(len(outputs))])


def _scatter_flat(args: Args, rank: int, size: int) -> None:
    for output, source in zip(flat(args[0]), flat(args[1]), strict=True):
        output.view(-1).copy_(source.view(size, -1)[rank])


def _exchange(args: Args, rank: int, size: int) -> None:
    for output, source in zip(flat(args[0]), flat(args[1]), strict=True):
        taken, given = output.view(-1), source.reshape(-1)
        num = min(taken.numel(), given.numel())
        taken[:num].copy_(given[:num])
        taken[num:].zero_()


def _add_up(args: Args, rank: int, size: int) -> None:
    tensors = flat(args[0])
    if args[1].reduceOp == ReduceOp.SUM and size > 1 and tensors[0].dtype != torch.bool:
        torch._foreach_mul_(tensors, size)


def _zero(args: Args, rank: int, size: int) -> None:
    torch._foreach_zero_(flat(args[0]))


def _copy(outputs: list[Tensor], inputs: list[Tensor]) -> None:
    if len({tensor.shape for tensor in (*outputs, *inputs)}) <= 1:
        torch._foreach_copy_(outputs, inputs)
        return
    for output, source in zip(outputs, inputs, strict=True):
        output.view(-1).copy_(source.reshape(-1))


_ALL_REDUCE = Operation(op="all_reduce", fill=_add_up, most_filled_bytes=FEW_BYTES)
_GATHER_FLAT = Operation(op="all_gather", fill=_gather_flat)
_SCATTER_FLAT = Operation(op="reduce_scatter", full=1, fill=_scatter_flat)
_GATHER_LISTS = Operation(op="all_gather", full=1, is_part=True, fill=_gather_lists)
_GATHER_TO_ROOT = Operation(op="gather", full=1, is_part=True, fill=_gather_to_root)
_EXCHANGE = Operation(op="all_to_all", full=1, fill=_exchange)
_BARRIER = Operation(op="barrier", full=None)

OPERATIONS: dict[str, Operation] = {
    "allreduce": _ALL_REDUCE,
    "allreduce_coalesced": _ALL_REDUCE,
    "broadcast": Operation(op="broadcast"),
    "reduce": Operation(op="reduce", fill=_add_up, most_filled_bytes=FEW_BYTES),
    "allgather": _GATHER_LISTS,
    "allgather_coalesced": _GATHER_LISTS,
    "all_gather_single": _GATHER_FLAT,
    "_allgather_base": _GATHER_FLAT,
    "all_gather_single_coalesced": _GATHER_FLAT,
    "allgather_into_tensor_coalesced": _GATHER_FLAT,
    "gather": Operation(op="gather", full=1, is_part=True, fill=_gather_lists),
    "gather_single": _GATHER_TO_ROOT,
    "gather_into_tensor": _GATHER_TO_ROOT,
    "scatter": Operation(op="scatter", is_part=True, fill=_scatter_lists),
    "reduce_scatter": Operation(op="reduce_scatter", full=1, fill=_scatter_lists),
    "reduce_scatter_single": _SCATTER_FLAT,
    "_reduce_scatter_base": _SCATTER_FLAT,
    "reduce_scatter_single_coalesced": _SCATTER_FLAT,
    "reduce_scatter_tensor_coalesced": _SCATTER_FLAT,
    "all_to_all_single": _EXCHANGE,
    "alltoall_base": _EXCHANGE,
    "alltoall": _EXCHANGE,
    "send": Operation(op="send", peer=lambda args: args[1]),
    "recv": Operation(op="send", fill=_zero, peer=lambda args: args[1]),
    "recv_anysource": Operation(op="send", fill=_zero, peer=lambda args: -1),
    "barrier": _BARRIER,
    "monitored_barrier": _BARRIER,
}
"""By the name of the method of a process group, in every spelling from torch 2.10 to 2.15."""
