"""The adapter asks in turn, believes no zero, and trusts no event and no dtype unchecked.

The pretend accelerator is torch's `meta` device: it accepts operations and computes nothing.
"""

import errno
import time
from contextlib import nullcontext
from unittest.mock import Mock

import pytest
import torch
from torch.nn import functional

from bench.core.errors import MeasurementError, UsageError
from bench.devices.telemetry.common import Sample
from bench.devices.torch import probe, torch_adapter
from bench.devices.torch.torch_adapter import _AcceleratorAdapter, adapter_for, is_out_of_memory
from tests.devices.recorded_drivers import ReplayTelemetry, add_backend, choose_accelerator, refuse


class Event:
    """An event that takes the host's time as the device's, unless its scale says otherwise."""

    scale = 1.0
    is_reached = True
    made: list["Event"] = []

    def __init__(self, enable_timing=False):
        assert enable_timing
        self.time_s = self.stream = None
        self.made.append(self)

    def record(self, stream=None):
        self.time_s, self.stream = time.perf_counter(), stream

    def query(self):
        return self.is_reached and self.time_s is not None

    def synchronize(self):
        pass

    def elapsed_time(self, end):
        if self.scale is None:
            raise NotImplementedError
        return (end.time_s - self.time_s) * 1e3 * self.scale


@pytest.fixture(autouse=True)
def _no_accelerator(monkeypatch):
    choose_accelerator(monkeypatch, None)


def pretend(monkeypatch, index=0, **functions):
    functions.setdefault("synchronize", lambda index: None)
    add_backend(monkeypatch, "meta", **functions)
    return _AcceleratorAdapter("meta", index)


def counters(adapter):
    return adapter.peak_allocated_bytes(), adapter.peak_reserved_bytes(), adapter.reserved_bytes()


def test_the_cpu_is_synchronous_and_counts_nothing():
    adapter = adapter_for("cpu")
    assert (adapter.label, adapter.is_asynchronous) == ("cpu", False)
    adapter.synchronize()
    adapter.reset_peak_memory()
    adapter.empty_cache()
    assert counters(adapter) == (None, None, None)
    assert (adapter.make_event(), adapter.compute_clock_hz()) == (None, None)
    with pytest.raises(UsageError, match="nowhere:3"):
        adapter_for("nowhere:3")


def test_an_event_that_agrees_with_the_host_is_used_and_checked_once(monkeypatch):
    """Events and waits are those of their own device."""
    waited: list[int] = []
    monkeypatch.setattr(Event, "made", [])
    functions = {"synchronize": waited.append, "current_stream": lambda index: f"stream of {index}"}
    adapter = pretend(monkeypatch, 1, Event=Event, **functions)
    assert (Event.made, waited) == ([], [])
    start, end = adapter.make_event(), adapter.make_event()
    start.record()
    time.sleep(0.002)
    end.record()
    end.synchronize()
    assert end.query()
    assert start.elapsed_ms(end) >= 2
    assert len(Event.made) == 4
    assert {event.stream for event in Event.made} == {"stream of 1"}
    assert set(waited) == {1}


@pytest.mark.parametrize(
    "event",
    [
        *({"scale": scale} for scale in (1e3, 0.0, -1.0, float("nan"), None)),
        {"is_reached": False},
        {"__init__": refuse},
        {"record": refuse},
    ],
)
def test_an_event_that_does_not_keep_time_is_not_used(monkeypatch, event):
    assert pretend(monkeypatch, Event=type("OtherEvent", (Event,), event)).make_event() is None
    assert _AcceleratorAdapter("mps", 0).make_event() is None
    assert pretend(monkeypatch).make_event() is None  # a backend without events


def test_a_backend_without_synchronize_waits_by_copying_and_errors_of_work_are_raised(monkeypatch):
    waits, errors = [], []

    def wait(*_):
        waits.append(1)
        if errors:
            raise errors[0]

    monkeypatch.setattr(_AcceleratorAdapter, "_wait_by_copy", wait)
    copying = pretend(monkeypatch, synchronize=refuse)
    copying.synchronize()
    copying.synchronize()
    assert len(waits) >= 2
    adapter = pretend(monkeypatch, synchronize=wait)
    adapter.synchronize()
    errors.append(RuntimeError("device-side assert triggered"))
    # A broken device is not taken for a poor backend.
    for broken in (adapter, pretend(monkeypatch, synchronize=refuse)):
        with pytest.raises(RuntimeError, match="device-side assert"):
            broken.synchronize()


def stats(index):
    peaks = {"allocated_bytes.all.peak": 30, "reserved_bytes.all.peak": 50}
    return {**peaks, "reserved_bytes.all.current": 40}


def zero(index=0):
    return 0


ZEROS = dict.fromkeys(("max_memory_allocated", "max_memory_reserved", "memory_reserved"), zero)
SEVEN = {"max_memory_allocated": lambda index: 7}


@pytest.mark.parametrize(
    ("speaks_for", "functions", "found"),
    [
        ("npu", {"memory_stats": stats, "reset_peak_memory_stats": zero}, (30, 50, 40)),
        # What is not counted, or could not be reset, stays blank.
        ("npu", {"memory_stats": stats, "reset_peak_memory_stats": refuse}, (None, None, 40)),
        ("npu", {"memory_stats": refuse}, (None, None, None)),
        ("npu", {**ZEROS, "reset_peak_memory_stats": zero}, (None, None, None)),
        ("npu", {**ZEROS, "reset_peak_memory_stats": zero, **SEVEN}, (7, None, None)),
        # torch.accelerator is asked first where it speaks for the device.
        ("meta", {"memory_stats": refuse, "reset_peak_memory_stats": refuse}, (30, 50, 40)),
    ],
)
def test_memory_comes_from_the_statistics_of_the_allocator(
    monkeypatch, speaks_for, functions, found
):
    choose_accelerator(monkeypatch, speaks_for)
    monkeypatch.setattr(torch.accelerator, "memory_stats", stats)
    monkeypatch.setattr(torch.accelerator, "reset_peak_memory_stats", zero)
    adapter = pretend(monkeypatch, **functions)
    adapter.reset_peak_memory()
    assert counters(adapter) == found


def test_the_clock_comes_from_telemetry_and_the_cache_is_emptied_by_the_module(monkeypatch):
    recording = ReplayTelemetry([Sample(time_s=0.0, sm_clock_hz=1.98e9)])
    monkeypatch.setattr(torch_adapter, "open_telemetry", lambda device: recording)
    choose_accelerator(monkeypatch, "meta")
    monkeypatch.setattr(torch.accelerator, "empty_cache", refuse)
    calls = []
    adapter = pretend(monkeypatch, empty_cache=lambda: calls.append("emptied"))
    assert adapter.compute_clock_hz() == 1.98e9
    adapter.empty_cache()
    assert calls == ["emptied"]


OUT_OF_MEMORY = (
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("MPS backend out of memory (MPS allocated: 18 GB)"),
    RuntimeError("HIP error: hipErrorOutOfMemory"),
    RuntimeError("UR error: UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
    RuntimeError("unable to mmap 512 bytes: Cannot allocate memory (12)"),
    RuntimeError("UR error: UR_RESULT_ERROR_OUT_OF_HOST_MEMORY"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 64 bytes"),
)
OTHERS = (
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    ValueError("the text says out of memory"),
    OSError(errno.ENOENT, "No such file"),
    KeyboardInterrupt(),
)


def test_running_out_of_memory_is_recognised_in_every_dialect():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    errors = (*OUT_OF_MEMORY, caught.value, *OTHERS)
    assert [error for error in errors if not is_out_of_memory(error)] == list(OTHERS)


def replace_conv(monkeypatch, dtype, change):
    """Let convolutions in this dtype go through `change`."""
    right = functional.conv2d

    def conv2d(image, kernel, **options):
        result = right(image, kernel, **options)
        return change(result) if result.dtype == dtype else result

    monkeypatch.setattr(functional, "conv2d", conv2d)


@pytest.mark.parametrize(
    ("dtype", "factor"),
    [("fp64", 1.1), ("fp32", 1.1), ("bf16", 1.1), ("bf16", float("nan")), ("bf16", float("inf"))],
)
def test_wrong_numbers_are_told_from_right_ones(monkeypatch, dtype, factor):
    calls = []

    def worse_than_reference(result):
        # In fp64 the first call is the reference itself.
        calls.append(result)
        return result if dtype == "fp64" and len(calls) == 1 else result * factor

    replace_conv(monkeypatch, probe.TORCH_DTYPES[dtype], worse_than_reference)
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
    states = probe.probe_dtypes("cpu")
    assert {states[dtype] for dtype in ("fp64", "fp32", "bf16")} == {"ok"}
    assert states["tf32"] == "raises"
    assert set(states) == set(probe.PROBED)
    for error in (NotImplementedError("no such dtype"), TypeError("Cannot convert to float64")):
        with monkeypatch.context() as patch:
            patch.setattr(probe, "PROBED", ("fp16", "bf16"))
            replace_conv(patch, torch.float16, Mock(side_effect=error))
            assert probe.probe_dtypes("cpu") == {"fp16": "raises", "bf16": "ok"}
    # A full device is not one without a dtype.
    full = Mock(side_effect=torch.OutOfMemoryError("out of memory"))
    with monkeypatch.context() as patch, pytest.raises(MeasurementError, match="no memory is free"):
        replace_conv(patch, torch.float32, full)
        probe.probe_dtypes("cpu")
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
