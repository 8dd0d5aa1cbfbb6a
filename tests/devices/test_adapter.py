"""The adapter asks in turn, believes no zero, and trusts no event it has not checked.

The pretend accelerator is torch's `meta` device: it accepts operations and computes nothing.
"""

import errno
import time

import pytest
import torch
from fake_torch import add_backend, choose_accelerator, refuse

from bench.core.errors import UsageError
from bench.devices.telemetry.common import Sample
from bench.devices.torch import torch_adapter
from bench.devices.torch.torch_adapter import _AcceleratorAdapter, adapter_for, is_out_of_memory
from tests.devices.replay_telemetry import ReplayTelemetry


class Event:
    """An event that takes the host's time as the device's."""

    scale = 1.0

    def __init__(self, enable_timing=False):
        assert enable_timing
        self.time_s = None

    def record(self, stream=None):
        self.time_s = time.perf_counter()

    def query(self):
        return self.time_s is not None

    def synchronize(self):
        pass

    def elapsed_time(self, end):
        return (end.time_s - self.time_s) * 1e3 * self.scale


def scaled(scale):
    return type("ScaledEvent", (Event,), {"scale": scale})


class RefusingEvent(Event):
    def elapsed_time(self, end):
        raise NotImplementedError


class NeverReachedEvent(Event):
    def query(self):
        return False


@pytest.fixture(autouse=True)
def _no_accelerator(monkeypatch):
    choose_accelerator(monkeypatch, None)


def pretend(monkeypatch, **functions):
    functions.setdefault("synchronize", lambda index: None)
    add_backend(monkeypatch, "meta", **functions)
    return _AcceleratorAdapter("meta", 0)


def test_the_cpu_is_synchronous_and_counts_nothing():
    adapter = adapter_for("cpu")
    assert adapter.label == "cpu"
    assert adapter.is_asynchronous is False
    adapter.synchronize()
    adapter.reset_peak_memory()
    adapter.empty_cache()
    counters = (
        adapter.make_event(),
        adapter.peak_allocated_bytes(),
        adapter.peak_reserved_bytes(),
        adapter.reserved_bytes(),
        adapter.compute_clock_hz(),
    )
    assert counters == (None,) * 5


def test_a_device_that_is_not_here_is_refused():
    with pytest.raises(UsageError, match="nowhere:3"):
        adapter_for("nowhere:3")


def test_an_event_that_agrees_with_the_host_is_used(monkeypatch):
    adapter = pretend(monkeypatch, Event=Event)
    start, end = adapter.make_event(), adapter.make_event()
    start.record()
    time.sleep(0.002)
    end.record()
    end.synchronize()
    assert end.query()
    assert start.elapsed_ms(end) >= 2


@pytest.mark.parametrize(
    "event",
    [*map(scaled, (1e3, 0.0, -1.0, float("nan"))), RefusingEvent, NeverReachedEvent, None],
)
def test_an_event_that_does_not_keep_time_is_not_used(monkeypatch, event):
    functions = {} if event is None else {"Event": event}
    assert pretend(monkeypatch, **functions).make_event() is None


def test_the_event_check_runs_once(monkeypatch):
    made = []

    class CountedEvent(Event):
        def __init__(self, enable_timing=False):
            super().__init__(enable_timing)
            made.append(self)

    adapter = pretend(monkeypatch, Event=CountedEvent)
    for _ in range(10):
        assert adapter.make_event() is not None
    assert len(made) == 12


def test_events_and_waits_are_those_of_their_own_device(monkeypatch):
    recorded, waited = [], []

    class StreamEvent(Event):
        def record(self, stream=None):
            super().record()
            recorded.append(stream)

    functions = {"synchronize": waited.append, "current_stream": lambda index: f"stream of {index}"}
    add_backend(monkeypatch, "meta", Event=StreamEvent, **functions)
    adapter = _AcceleratorAdapter("meta", 1)
    assert (recorded, waited) == ([], [])
    adapter.make_event().record()
    assert (set(recorded), set(waited)) == ({"stream of 1"}, {1})


def test_events_of_apple_s_gpu_are_not_used():
    assert _AcceleratorAdapter("mps", 0).make_event() is None


def test_a_backend_without_synchronize_waits_by_copying(monkeypatch):
    copies = []
    monkeypatch.setattr(
        _AcceleratorAdapter, "_wait_by_copy", lambda self: copies.append(self.label)
    )
    adapter = pretend(monkeypatch, synchronize=refuse)
    adapter.synchronize()
    adapter.synchronize()
    assert len(copies) >= 2


def test_a_broken_device_is_not_taken_for_a_poor_backend(monkeypatch):
    def broken(self):
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(_AcceleratorAdapter, "_wait_by_copy", broken)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        pretend(monkeypatch, synchronize=refuse).synchronize()


def test_errors_of_earlier_work_are_raised_by_synchronize(monkeypatch):
    errors = []

    def synchronize(index):
        if errors:
            raise errors[0]

    adapter = pretend(monkeypatch, synchronize=synchronize)
    adapter.synchronize()
    errors.append(RuntimeError("device-side assert triggered"))
    with pytest.raises(RuntimeError, match="device-side assert"):
        adapter.synchronize()


def counters(adapter):
    return adapter.peak_allocated_bytes(), adapter.peak_reserved_bytes(), adapter.reserved_bytes()


COUNTING = ("max_memory_allocated", "max_memory_reserved", "memory_reserved")
STATS = {
    "allocated_bytes.all.peak": 30,
    "reserved_bytes.all.peak": 50,
    "reserved_bytes.all.current": 40,
}


def test_memory_comes_from_the_statistics_of_the_allocator(monkeypatch):
    adapter = pretend(
        monkeypatch,
        memory_stats=lambda index: STATS,
        reset_peak_memory_stats=lambda index: None,
    )
    adapter.reset_peak_memory()
    assert counters(adapter) == (30, 50, 40)


def test_torch_accelerator_is_asked_first_where_it_speaks_for_the_device(monkeypatch):
    choose_accelerator(monkeypatch, "meta")
    monkeypatch.setattr(torch.accelerator, "memory_stats", lambda index: STATS)
    monkeypatch.setattr(torch.accelerator, "reset_peak_memory_stats", lambda index: None)
    adapter = pretend(monkeypatch, memory_stats=refuse, reset_peak_memory_stats=refuse)
    adapter.reset_peak_memory()
    assert counters(adapter) == (30, 50, 40)


def test_torch_accelerator_is_not_asked_about_another_type(monkeypatch):
    choose_accelerator(monkeypatch, "npu")
    monkeypatch.setattr(torch.accelerator, "memory_stats", lambda index: STATS)
    assert counters(pretend(monkeypatch)) == (None, None, None)


@pytest.mark.parametrize(
    ("functions", "found"),
    [
        ({"memory_stats": refuse}, (None, None, None)),
        # A zero that means "not counted".
        (
            {**dict.fromkeys(COUNTING, lambda index: 0), "reset_peak_memory_stats": int},
            (None, None, None),
        ),
        (
            {"max_memory_allocated": lambda index: 7, "reset_peak_memory_stats": int},
            (7, None, None),
        ),
        (
            {"memory_stats": lambda index: STATS, "reset_peak_memory_stats": refuse},
            (None, None, 40),
        ),
    ],
)
def test_what_is_not_counted_or_could_not_be_reset_stays_blank(monkeypatch, functions, found):
    adapter = pretend(monkeypatch, **functions)
    adapter.reset_peak_memory()
    assert counters(adapter) == found


def test_the_clock_comes_from_telemetry(monkeypatch):
    recording = ReplayTelemetry([Sample(time_s=0.0, sm_clock_hz=1.98e9)])
    monkeypatch.setattr(torch_adapter, "open_telemetry", lambda device: recording)
    assert pretend(monkeypatch).compute_clock_hz() == 1.98e9


def test_emptying_the_cache_falls_back_on_the_module(monkeypatch):
    calls = []
    choose_accelerator(monkeypatch, "meta")
    monkeypatch.setattr(torch.accelerator, "empty_cache", refuse)
    pretend(monkeypatch, empty_cache=lambda: calls.append("emptied")).empty_cache()
    assert calls == ["emptied"]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("NPU out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 18 GB)"),
        RuntimeError("HIP error: hipErrorOutOfMemory"),
        RuntimeError("UR error: UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
        RuntimeError("unable to mmap 512 bytes: Cannot allocate memory (12)"),
    ],
)
def test_running_out_of_memory_is_recognised_in_every_dialect(error):
    assert is_out_of_memory(error)
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError("the text says out of memory"),
        OSError(errno.ENOENT, "No such file"),
        KeyboardInterrupt(),
    ],
)
def test_other_errors_are_not_taken_for_it(error):
    assert not is_out_of_memory(error)
