"""Which dtypes work on a device, found by computing with them.

A dtype that a backend lists may raise or give wrong numbers, so a small product, a convolution and
their gradients are run as the harness runs them (16-bit: directly, as nets infer, and under
autocast, as they train) and compared with float64 on the CPU. fp8 and int8 are reported for
information only. Left out: speed, and any operator besides these two.
"""

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from bench.core.errors import MeasurementError
from bench.core.nouns import Capability
from bench.devices.torch.backends import REFUSALS
from bench.devices.torch.torch_adapter import adapter_for, is_out_of_memory

TORCH_DTYPES: dict[str, torch.dtype] = {
    "fp64": torch.float64,
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
PROBED = (*TORCH_DTYPES, "fp8", "int8")

# Largest error over largest value. Sums of at most 1024 products in random order stay within about
# sqrt(1024) units of rounding: 2**-52, 2**-24, 2**-11 (TF32, fp16) and 2**-8 (bf16). The limits are
# wider than that by a small factor and far below what a wrong kernel gives (about 1).
_TOLERANCE = {"fp64": 1e-12, "fp32": 3e-5, "tf32": 1e-2, "bf16": 5e-2, "fp16": 1e-2, "fp8": 5e-2}
# IEEE products of this size differ from float64 by about 1e-6, TF32 ones by about 3e-4.
_TF32_LEAST_ERROR = 2e-5

Tensors = dict[str, torch.Tensor]


def probe_dtypes(label: str) -> dict[str, Capability]:
    """State of each dtype: ok, raises (also: not supported), or wrong.

    A device that cannot even hold a number raises `MeasurementError`: that is no matter of dtypes.
    """
    adapter = adapter_for(label)
    try:
        torch.ones(1, dtype=torch.float32).to(label).cpu()
    except REFUSALS as error:
        raise _cannot_probe(label, error) from error
    return {dtype: _probe(label, dtype=dtype, synchronize=adapter.synchronize) for dtype in PROBED}


def _probe(label: str, *, dtype: str, synchronize: Callable[[], None]) -> Capability:
    checks: dict[str, Callable[[str], Capability]] = {"fp8": _check_fp8, "int8": _check_int8}
    check = checks.get(dtype) or functools.partial(_check_float, dtype=dtype)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # autocast warns where it then does nothing
            state = check(label)
        synchronize()
    except REFUSALS as error:
        if is_out_of_memory(error):
            raise _cannot_probe(label, error) from error
        return "raises"
    return state


def _cannot_probe(label: str, error: BaseException) -> MeasurementError:
    if is_out_of_memory(error):
        return MeasurementError(
            f"no memory is free on {label} to try its dtypes: see what else uses the device"
        )
    first_line = str(error).partition("\n")[0]
    return MeasurementError(f"{label} does not work: {first_line}")


def has_tf32_switch(label: str) -> bool:
    """Whether float32 products can be made in TF32: CUDA devices that claim Ampere or later."""
    if not label.startswith("cuda") or torch.version.hip:
        return False
    major, _ = torch.cuda.get_device_capability(label)
    return int(major) >= 8


@contextmanager
def float32_precision(dtype: str) -> Iterator[None]:
    """Compute float32 in TF32 for tf32 and in IEEE for all else; the old setting comes back."""
    backends: Any = torch.backends
    switches = (backends.cuda.matmul, backends.cudnn.conv)
    before = [switch.fp32_precision for switch in switches]
    for switch in switches:
        switch.fp32_precision = "tf32" if dtype == "tf32" else "ieee"
    try:
        yield
    finally:
        for switch, precision in zip(switches, before, strict=True):
            switch.fp32_precision = precision


def _check_float(label: str, *, dtype: str) -> Capability:
    if dtype == "tf32" and not has_tf32_switch(label):
        return "raises"
    inputs = _inputs()
    expected = _forward_and_backward(inputs, label="cpu", dtype=torch.float64)
    target = TORCH_DTYPES[dtype]
    with float32_precision(dtype):
        got = [_forward_and_backward(inputs, label=label, dtype=target)]
        if dtype in ("bf16", "fp16"):
            got.append(_forward_and_backward(inputs, label=label, dtype=target, is_autocast=True))
        if dtype == "tf32" and not _is_tf32_used(label):
            return "raises"
    errors = [_error(result[name], expected[name]) for result in got for name in expected]
    return "ok" if all(error <= _TOLERANCE[dtype] for error in errors) else "wrong"


def _inputs() -> Tensors:
    generator = torch.Generator().manual_seed(20260101)
    image = {"image": (2, 8, 12, 12), "kernel": (16, 8, 3, 3)}
    shapes = {"left": (64, 128), "right": (128, 96), **image}
    return {
        # Values that every 16-bit type holds exactly: what differs is the arithmetic.
        name: torch.randn(shape, generator=generator).bfloat16().to(torch.float64)
        for name, shape in shapes.items()
    }


def _forward_and_backward(
    inputs: Tensors, *, label: str, dtype: torch.dtype, is_autocast: bool = False
) -> Tensors:
    """Product, convolution and gradients of the mean of their squares, on the CPU in float64."""
    held = torch.float32 if is_autocast else dtype
    leaves = {
        name: value.detach().clone().to(label, held).requires_grad_(True)
        for name, value in inputs.items()
    }
    device_type = label.partition(":")[0]
    context: Any = torch.autocast(device_type, dtype=dtype) if is_autocast else nullcontext()
    with context:
        product = leaves["left"] @ leaves["right"]
        convolution = torch.nn.functional.conv2d(leaves["image"], leaves["kernel"], padding=1)
    if product.dtype != dtype or convolution.dtype != dtype:
        raise TypeError(f"asked for {dtype}, got {product.dtype} and {convolution.dtype}")
    summed = torch.promote_types(dtype, torch.float32)
    loss = product.to(summed).square().mean() + convolution.to(summed).square().mean()
    loss.backward()  # type: ignore[no-untyped-call]
    results = {"product": product, "convolution": convolution}
    for name, leaf in leaves.items():
        if leaf.grad is None:
            raise RuntimeError(f"no gradient reached {name}")
        results[f"gradient of {name}"] = leaf.grad
    return {name: value.detach().cpu().to(torch.float64) for name, value in results.items()}


def _error(got: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference over largest value; infinite where a result is not finite."""
    if not bool(torch.isfinite(got).all()):
        return float("inf")
    return float((got - expected).abs().max() / expected.abs().max())


def _is_tf32_used(label: str) -> bool:
    """Whether products really lose precision: an imitation may accept the switch and ignore it."""
    generator = torch.Generator().manual_seed(7)
    left, right = (torch.randn(1024, 1024, generator=generator) for _ in range(2))
    got = (left.to(label) @ right.to(label)).cpu().to(torch.float64)
    return _error(got, left.double() @ right.double()) >= _TF32_LEAST_ERROR


def _check_fp8(label: str) -> Capability:
    left, right = _inputs()["left"].float(), _inputs()["right"].float()
    left8, right8 = (value.to(torch.float8_e4m3fn) for value in (left, right))
    one = torch.ones((), device=label)
    columns = right8.to(label).t().contiguous().t()  # the kernels want the right side by columns
    got = torch._scaled_mm(
        left8.to(label), columns, scale_a=one, scale_b=one, out_dtype=torch.bfloat16
    )
    error = _error(got.cpu().double(), left8.double() @ right8.double())
    return "ok" if error <= _TOLERANCE["fp8"] else "wrong"


def _check_int8(label: str) -> Capability:
    generator = torch.Generator().manual_seed(8)
    left, right = (
        torch.randint(-128, 128, shape, generator=generator, dtype=torch.int8)
        for shape in ((64, 128), (128, 96))
    )
    got = torch._int_mm(left.to(label), right.to(label)).cpu()
    return "ok" if torch.equal(got.long(), left.long() @ right.long()) else "wrong"
