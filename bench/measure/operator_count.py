"""Counts what operators a step runs, from their shapes: calls, FLOPs, bytes, by class and dtype.

A dispatch mode sees every operator below autograd, so backward and optimizer are in it. FLOPs are
torch's own formulas, but for attention; bytes are every operand read and every result written once,
which is what eager execution moves at least outside the caches. Views and allocations move nothing.
It counts the same on fake tensors, where nothing is computed, as on a device.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim import optimizer as optimizers
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from bench.hardware.operators import MATRIX, Operators
from bench.measure.engine.precision import tensors

_DTYPES = {
    torch.float64: "fp64",
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
}
_ALLOCATES = ("empty", "new_empty")
_MOVES_NOTHING = tuple(
    ["detach", "_local_scalar_dense", "set_", "resize_", "lift_fresh", "_unsafe_view", "sym_"]
)
_ONLY_SENDS = ("c10d", "_c10d_functional", "_dtensor", "fsdp", "prim", "profiler")
"""Namespaces of torch beside aten whose operators compute nothing."""
_HOLDS_PRODUCTS = ("lstm", "gru", "rnn", "fft", "multi_head", "transformer", "linalg", "cdist")
"""In names of aten operators that multiply matrices inside, whose FLOPs torch does not know."""
_HOLDS_NONE = ("linalg_vector_norm", "linalg_cross", "linalg_check_errors")
# Whole words or beginnings of aten names; the first class that fits is taken.
_NAMES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("attention", ("scaled_dot_product", "flash_attention", "efficient_attention", "flex_att")),
    ("conv", ("convolution", "conv1d", "conv2d", "conv3d", "conv_transpose", "slow_conv",
              "thnn_conv", "miopen_conv", "mkldnn_conv")),
    ("gemm", ("addmm", "baddbmm", "addbmm", "addmv", "matmul", "linear", "einsum", "scaled_mm",
              "int_mm", "bmm", "mm", "mv", "dot")),
    ("copy", ("copy", "_to_copy", "clone", "cat", "contiguous", "index", "gather", "scatter",
              "embedding", "pad", "stack", "fill", "zero", "ones", "arange", "repeat", "roll",
              "flip", "constant_pad", "select_backward", "slice_backward", "to", "memcpy",
              "memset", "masked_fill", "where", "tril", "triu", "one_hot", "full")),
    ("norm", ("norm", "softmax", "sum", "mean", "var", "std", "max", "min", "amax", "amin",
              "logsumexp", "cross_entropy", "nll_loss", "argmax", "argmin", "any", "all", "prod",
              "cumsum", "topk", "sort", "pool")),
)  # fmt: skip


def class_of(name: str) -> str:
    """Return the operator class of an aten name such as `aten::native_layer_norm_backward`."""
    word = name.rpartition("::")[2].partition(".")[0].removeprefix("_foreach").lower()
    plain = word.strip("_")
    for kind, starts in _NAMES:
        for start in starts:
            stripped = start.strip("_")
            if plain == stripped or (len(stripped) > 3 and stripped in plain):
                return kind
    return "vector"


class OperatorCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operators run inside it; `operators` has the sums."""

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._uncounted: dict[str, None] = {}
        self._unwritten: dict[int, str] = {}
        """Memory that was allocated, by whom, and that no operator has written."""
        self._sums: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0] * 4)
        self._is_optimizer = False
        self._optimizer_least = 0.0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if not isinstance(func, torch._ops.OpOverload):  # such as flex_attention
            self._uncounted[str(func)] = None
            return func(*args, **kwargs)
        space, _, name = str(func._schema.name).rpartition("::")
        if space != "aten":
            if space not in _ONLY_SENDS:
                self._uncounted[f"{space}::{name}"] = None
            result = func(*args, **kwargs)
            self._note_written((args, kwargs, result))
            return result
        if func._overloadpacket not in flop_registry:
            # Inference mode hands composite operators over whole.
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        if name.startswith(_ALLOCATES):
            self._unwritten |= dict.fromkeys(_storages(result), _caller())
        elif not (func.is_view or name.startswith(_MOVES_NOTHING)):
            self._count(func, name, args, kwargs, result)
        return result

    def _count(
        self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        written = _written(func, args, kwargs)
        inputs = list(tensors((args, kwargs)))
        # Fused and foreach updates write their operands and return nothing.
        outputs = list(tensors(result)) or written
        if not inputs and not outputs:
            return
        self._note_written((result, written))
        for storage in self._unwritten.keys() & _storages(inputs):
            self._uncounted[f"a kernel beside torch in {self._unwritten[storage]}"] = None
        kind = "optimizer" if self._is_optimizer else class_of(name)
        moved = _all_bytes([inputs, outputs])
        flops = _matrix_flops(func, args, kwargs, result) if kind in MATRIX else None
        if flops is None and (kind in MATRIX or _may_hold_products(name)):
            self._uncounted[f"aten::{name}"] = None
        if flops is None:
            kind = "vector" if kind in MATRIX else kind
            flops = float(max(map(torch.Tensor.numel, (*inputs, *outputs))))
        if kind == "optimizer":
            flops = float(sum(map(torch.Tensor.numel, inputs)))
        least = float(moved) if kind in (*MATRIX, "norm") else 0.0
        widest = max(inputs or outputs, key=stored_bytes)
        key = kind, _DTYPES.get(widest.dtype, "int")
        figures = (1.0, flops, float(moved), least)
        self._sums[key] = [a + b for a, b in zip(self._sums[key], figures, strict=True)]

    def _note_written(self, nested: Any) -> None:
        for storage in _storages(nested):
            self._unwritten.pop(storage, None)

    @property
    def uncounted(self) -> list[str]:
        """What ran that may multiply matrices and has no formula here."""
        return list(self._uncounted)

    @contextmanager
    def counting_optimizer(self) -> Iterator[None]:
        """Tell the optimizer's operators from the net's, whatever optimizer it is."""

        with (
            optimizers.register_optimizer_step_pre_hook(self.begin_update),
            optimizers.register_optimizer_step_post_hook(self.end_update),
        ):
            yield

    def begin_update(
        self, _: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """Count as the optimizer's from here; a hook before its step."""
        self._is_optimizer = True
        given = {name: self._outside(value) for name, value in kwargs.items()}
        return tuple(map(self._outside, args)), given

    def end_update(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        """Count as the net's again; a hook after an optimizer's step."""
        self._is_optimizer = False
        self._optimizer_least += _update_bytes(optimizer)

    def _outside(self, given: Any) -> Any:
        """Return a closure in which nothing is the optimizer's: it runs the net."""
        if not callable(given):
            return given

        def closure(*args: Any, **kwargs: Any) -> Any:
            self._is_optimizer = False
            result = given(*args, **kwargs)
            self._is_optimizer = True
            return result

        return closure

    @property
    def operators(self) -> list[Operators]:
        """Sums so far, largest traffic first."""
        found = []
        for (kind, dtype), (calls, flops, moved, least) in self._sums.items():
            if kind == "optimizer":
                least = min(moved, self._optimizer_least)
            what: Any = {"kind": kind, "dtype": dtype, "calls": int(calls), "flops": flops}
            found.append(Operators(**what, bytes=moved, least_bytes=least))
        return sorted(found, key=lambda one: -one.bytes)


def _may_hold_products(name: str) -> bool:
    return not name.strip("_").startswith(_HOLDS_NONE) and any(
        word in name for word in _HOLDS_PRODUCTS
    )


def _matrix_flops(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
) -> float | None:
    # torch's formulas know only some attention kernels, and until 2.12 refuse grouped heads.
    if "scaled_dot_product" in str(func._schema.name):
        return _attention_flops(str(func._schema.name), args)
    formula = flop_registry.get(func._overloadpacket)
    return None if formula is None else float(formula(*args, **kwargs, out_val=result))


def _attention_flops(name: str, args: tuple[Any, ...]) -> float:
    """FLOPs of a fused kernel: two products forward, five backward.

    Key and value may have fewer heads than the query: the products are the query's. Backward
    computes one of the forward ones again.
    """
    is_backward = "backward" in name
    query, key, value = args[1:4] if is_backward else args[:3]
    width = int(query.shape[-1]), int(value.shape[-1])
    columns = 3 * width[0] + 2 * width[1] if is_backward else sum(width)
    return 2.0 * int(query.numel() // width[0]) * int(key.shape[-2]) * columns


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    schema = func._schema.arguments
    given = kwargs | {one.name: value for one, value in zip(schema, args, strict=False)}
    written = [one.name for one in schema if one.alias_info and one.alias_info.is_write]
    return list(tensors([given.get(name) for name in written]))


def _storages(nested: Any) -> set[int]:
    return {
        one.untyped_storage()._cdata
        for one in tensors(nested)
        if one.layout == torch.strided and one.numel()
    }


def _caller() -> str:
    """Name the innermost function that is neither torch's nor this module's."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module != __name__ and module.partition(".")[0] != "torch":
            break
        frame = frame.f_back
    return frame.f_code.co_qualname


def stored_bytes(tensor: torch.Tensor) -> int:
    """Bytes of the tensor's elements, those of an expanded dimension once."""
    if not tensor.numel():
        return 0
    stored = zip(tensor.shape, tensor.stride(), strict=True)
    return math.prod(int(size) for size, stride in stored if stride) * tensor.element_size()


def _update_bytes(optimizer: torch.optim.Optimizer) -> float:
    """Bytes of one fused update: gradients read, parameters and moments read and written."""
    moved = 0
    for parameter in tensors([group["params"] for group in optimizer.param_groups]):
        if parameter.grad is not None:
            state = _all_bytes(dict(optimizer.state.get(parameter, {})))
            moved += 2 * (stored_bytes(parameter) + state) + stored_bytes(parameter.grad)
    return float(moved)


def _all_bytes(nested: Any) -> int:
    return sum(map(stored_bytes, tensors(nested)))


def count_step(step: Callable[[], object]) -> list[Operators]:
    """Run one step and count its operators."""
    counter = OperatorCounter()
    with counter.counting_optimizer(), counter:
        step()
    return counter.operators
