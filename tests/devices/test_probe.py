"""A dtype works only where its numbers are right."""

from contextlib import nullcontext

import pytest
import torch
from torch.nn import functional

from bench.core.errors import MeasurementError, UsageError
from bench.devices.torch import probe


def replace_conv(monkeypatch, dtype, change):
    """Let convolutions in this dtype go through `change`."""
    right = functional.conv2d

    def conv2d(image, kernel, **options):
        result = right(image, kernel, **options)
        return change(result) if result.dtype == dtype else result

    monkeypatch.setattr(functional, "conv2d", conv2d)


def test_the_cpu_computes_fp64_fp32_and_bf16_right_and_has_no_tf32():
    states = probe.probe_dtypes("cpu")
    assert {states[dtype] for dtype in ("fp64", "fp32", "bf16")} == {"ok"}
    assert states["tf32"] == "raises"
    assert set(states) == set(probe.PROBED)


@pytest.mark.parametrize(
    ("dtype", "torch_dtype", "factor"),
    [
        ("fp64", torch.float64, 1.1),
        ("fp32", torch.float32, 1.1),
        ("bf16", torch.bfloat16, 1.1),
        ("bf16", torch.bfloat16, float("nan")),
        ("bf16", torch.bfloat16, float("inf")),
    ],
)
def test_wrong_numbers_are_told_from_right_ones(monkeypatch, dtype, torch_dtype, factor):
    calls = []

    def worse_than_reference(result):
        # In fp64 the first call is the reference itself.
        calls.append(result)
        return result if dtype == "fp64" and len(calls) == 1 else result * factor

    replace_conv(monkeypatch, torch_dtype, worse_than_reference)
    assert probe._check_float("cpu", dtype=dtype) == "wrong"


def test_fp32_that_is_secretly_tf32_is_wrong(monkeypatch):
    def drop_bits(result):
        return (result.view(torch.int32) & ~0x1FFF).view(torch.float32)

    def forward_only(inputs, *, label, dtype, is_autocast=False):
        image, kernel = (inputs[name].to(dtype) for name in ("image", "kernel"))
        return {"convolution": functional.conv2d(image, kernel).double()}

    replace_conv(monkeypatch, torch.float32, drop_bits)
    monkeypatch.setattr(probe, "_forward_and_backward", forward_only)
    assert probe._check_float("cpu", dtype="fp32") == "wrong"


def test_a_dtype_that_raises_or_is_ignored_does_not_stop_the_others(monkeypatch):
    for error in (NotImplementedError("no such dtype"), TypeError("Cannot convert to float64")):

        def refuse(_, error=error):
            raise error

        with monkeypatch.context() as patch:
            replace_conv(patch, torch.float16, refuse)
            states = probe.probe_dtypes("cpu")
        assert (states["fp16"], states["bf16"]) == ("raises", "ok")
    # Autocast that does nothing is not support, and neither is a TF32 switch that changes nothing.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    monkeypatch.setattr(probe, "has_tf32_switch", lambda label: True)
    states = probe.probe_dtypes("cpu")
    assert (states["bf16"], states["tf32"], states["fp32"]) == ("raises", "raises", "ok")


@pytest.mark.parametrize(
    ("hip", "capability", "expected"),
    [(None, (8, 0), True), (None, (9, 0), True), (None, (7, 5), False), ("6.4", (9, 4), False)],
)
def test_tf32_needs_ampere(monkeypatch, hip, capability, expected):
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda label: capability)
    assert probe.has_tf32_switch("cuda:0") is expected


def test_float32_precision_comes_back_after_an_error():
    switches = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    before = [switch.fp32_precision for switch in switches]
    with pytest.raises(KeyError), probe.float32_precision("tf32"):
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
        raise KeyError
    assert [switch.fp32_precision for switch in switches] == before


def test_a_full_device_is_not_taken_for_a_missing_dtype(monkeypatch):
    def run_out(_):
        raise torch.OutOfMemoryError("out of memory")

    replace_conv(monkeypatch, torch.float32, run_out)
    with pytest.raises(MeasurementError, match="no memory is free on cpu"):
        probe.probe_dtypes("cpu")


@pytest.mark.parametrize("error", [RuntimeError, TypeError, ValueError])
def test_a_broken_device_is_not_taken_for_one_without_dtypes(monkeypatch, error):
    class Broken(torch.Tensor):
        def to(self, *_, **__):
            raise error("simdev error 507: device 1 is not healthy\nstack of C++ frames")

    monkeypatch.setattr(torch, "ones", lambda *_, **__: torch.zeros(1).as_subclass(Broken))
    with pytest.raises(MeasurementError, match=r"^cpu does not work: .* not healthy$"):
        probe.probe_dtypes("cpu")
    with pytest.raises(UsageError, match="nowhere"):
        probe.probe_dtypes("nowhere:0")
