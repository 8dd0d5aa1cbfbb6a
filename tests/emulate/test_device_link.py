"""The link on a GPU, with streams that only keep a time: who waits for whom, and what is noted.

The kernels themselves run in tests/gpu; here each does to its stream's time what it does there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
import torch.distributed as dist

from bench.core.errors import MeasurementError, UsageError
from bench.emulate import group
from bench.emulate.group import _link_for, group_class, register_backends
from bench.emulate.link import device_link
from bench.emulate.link.serial_link import NUM_LINKS
from bench.emulate.replay import replay
from tests.emulate.fixed_model import FixedModel, emulated

MODELLED_S = 0.010
COMPUTE_S = 0.004


class Stream:
    """Time of what was queued last; in nanoseconds, as the kernels count."""

    def __init__(self, device=None, priority=0):
        self.ns = 1_000

    def compute(self, seconds=COMPUTE_S):
        self.ns += round(seconds * 1e9)

    def record_event(self, event=None):
        return SimpleNamespace(ns=self.ns)

    def wait_event(self, event):
        self.ns = max(self.ns, event.ns)

    def wait_stream(self, other):
        self.wait_event(other.record_event())

    def synchronize(self):
        pass


class Kernels:
    """Does to a stream's time what the kernels do."""

    def __init__(self, device, *, capacity):
        self.held = []
        self.stamps = {}
        self.free = [0] * NUM_LINKS

    def stamp(self, slot, *, stream):
        self.stamps[slot] = stream.ns

    def reserve(self, slot, *, level, duration_s, stream):
        start = max(stream.ns, self.free[level])
        self.free[level] = end = start + round(duration_s * 1e9)
        self.stamps |= {slot: stream.ns, slot + 1: start, slot + 2: end}

    def hold(self, slot, *, units, traffic_bytes, stream):
        self.held.append((units, traffic_bytes))
        stream.ns = max(stream.ns, self.stamps[slot + 2])

    def seconds(self, num_slots):
        stamps = dict(self.stamps)
        return lambda slot: (stamps[slot] - stamps[0]) * 1e-9


class Device:
    """What the link uses of torch, for a device that keeps times."""

    def __init__(self):
        self.current, self.chosen = Stream(), []
        device = self

        class Future:
            def __init__(self, devices):
                pass

            def set_result(self, value):
                # Torch takes the devices to wait for from the tensors of the value.
                self.result = value
                self.events = [device.current.record_event() for _ in value[:1]]

            def wait(self):
                for event in self.events:
                    device.current.wait_event(event)
                return self.result

            def done(self):
                return True

        module = SimpleNamespace(
            Stream=Stream, current_stream=lambda device: self.current, stream=self.inside
        )
        self.torch = SimpleNamespace(
            accelerator=SimpleNamespace(
                current_device_index=lambda: 0,
                set_device_index=self.chosen.append,
                synchronize=lambda device: None,
                current_stream=None,
            ),
            get_device_module=lambda device: module,
            device=torch.device,
            Stream=torch.Stream,
            zeros=lambda size, device: torch.zeros(size),
            futures=SimpleNamespace(Future=Future),
        )

    @contextmanager
    def inside(self, stream):
        before, self.current = self.current, stream
        yield
        self.current = before


@pytest.fixture
def device(monkeypatch) -> Device:
    made = Device()
    monkeypatch.setattr(device_link, "torch", made.torch)
    monkeypatch.setattr(device_link, "DelayKernels", Kernels)
    return made


@contextmanager
def on_device(modelled_s, *, device="cuda", is_timed=True):
    """Emulate as on a CPU, over the link of an accelerator."""
    with emulated(FixedModel(modelled_s, node_size=2)) as running:
        running.link.close()
        running.link = device_link.DeviceLink(
            torch.device(device), recorder=running.recorder, is_timed=is_timed
        )
        yield running


@pytest.fixture
def emulation(device) -> Iterator[object]:
    with on_device(MODELLED_S) as running:
        yield running


def all_reduce(**given):
    return dist.all_reduce(torch.ones(4), **given)


def spans(trace):
    return [(round(one.start_s, 9), round(one.end_s, 9)) for one in trace.collectives]


def marks(trace):
    return [(m.kind, m.collective, round(m.start_s, 9), round(m.end_s, 9)) for m in trace.marks]


def gather(device, *, async_op):
    device.current.compute()
    work = all_reduce(async_op=async_op)
    device.current.compute()
    if async_op:
        work.wait()


def gather_as_fsdp(device):
    """Communicate on a stream beside compute, which then waits for an event behind it.

    That is its one wait: other events, other streams and a second time leave none.
    """
    side = Stream()
    device.current.compute()
    side.wait_stream(device.current)
    before = side.record_event()
    with device.inside(side):
        all_reduce()
        event = side.record_event()
    device.current.wait_event(before)
    Stream().wait_event(event)
    device.current.compute()
    for _ in range(2):
        device.current.wait_event(event)


gather_beside, gather_in_line = partial(gather, async_op=True), partial(gather, async_op=False)
ISSUE = ("issue", 0, 0.004, 0.004)


@pytest.mark.parametrize(
    ("step", "wait", "compute_s", "step_s"),
    [
        (gather_beside, ("wait", 0, 0.008, 0.014), 0.008, 0.014),
        (gather_in_line, ("wait", 0, 0.004, 0.014), 0.008, 0.018),
        (gather_as_fsdp, ("wait", 0, 0.008, 0.014), 0.008, 0.014),
    ],
)
def test_compute_waits_where_it_needs_a_collective(
    step, wait, compute_s, step_s, emulation, device
):
    wait_event = Stream.wait_event
    emulation.begin_step()
    step(device)
    trace = emulation.end_step().trace
    assert Stream.wait_event is wait_event
    assert spans(trace) == [(0.004, 0.014)]
    assert marks(trace) == [ISSUE, wait]
    assert trace.duration_s == pytest.approx(step_s)
    again = replay(trace)
    assert (again.step_s, again.compute_s) == pytest.approx((step_s, compute_s))


def test_collectives_of_several_streams_queue_and_links_of_both_levels_do_not(emulation, device):
    side = Stream()
    emulation.begin_step()
    work = all_reduce(async_op=True)
    with device.inside(side):
        all_reduce()
    work.wait()
    assert spans(emulation.end_step().trace) == [(0.0, 0.01), (0.01, 0.02)]
    device.current.wait_stream(side)  # until the links are free
    inside, between = dist.new_group([0, 1]), dist.new_group([0, 2])
    emulation.begin_step()
    works = [all_reduce(group=group, async_op=True) for group in (inside, between)]
    del works
    assert spans(emulation.end_step().trace) == [(0.0, 0.01), (0.0, 0.01)]


def test_the_kernel_is_asked_for_traffic_and_a_barrier_without_tensors_is_waited_for(
    emulation, device
):
    all_reduce()
    emulation.link.set_contention(16)
    all_reduce()
    held = emulation.link._clock.held
    assert [units for units, _ in held] == [0, 16]
    assert held[1][1] == 16 * 3.5
    begin_ns = device.current.ns
    work = dist.barrier(async_op=True)
    assert device.current.ns == begin_ns
    work.get_future().wait()
    assert device.current.ns == begin_ns + MODELLED_S * 1e9
    dist.barrier(async_op=True).wait()
    assert device.current.ns == begin_ns + 2 * MODELLED_S * 1e9


def test_a_free_collective_launches_nothing(device):
    with on_device(0.0, device="cuda:1") as running:
        assert device.chosen == [1], "kernels are launched on the current one"
        all_reduce()
        before_ns = device.current.ns
        all_reduce(async_op=True).wait()
        assert device.current.ns == before_ns
        assert running.link._clock.held == []


def test_tensors_of_any_accelerator_are_kept_until_the_stream_is_through(device, monkeypatch):
    kept = []
    there = SimpleNamespace(device=torch.device("xpu:0"), is_cuda=False, record_stream=kept.append)
    monkeypatch.setattr(group, "_tensors", lambda args: [there, torch.ones(1)])
    with on_device(MODELLED_S, device="xpu") as running:
        dist.all_gather_into_tensor(torch.ones(16), torch.ones(4), async_op=True).wait()
        assert len(kept) == 1 and kept[0] in running.link._streams


def event_of(device):
    """Return an event of torch's, as an adapter makes it."""
    event = SimpleNamespace(elapsed_ms=lambda end: (end.ns - event.ns) / 1e6)
    event.record = lambda: setattr(event, "ns", device.current.ns)
    return event


@contextmanager
def recorded(monkeypatch, *, make_event):
    """Record a step on a device whose adapter makes such events."""
    adapter = SimpleNamespace(make_event=make_event, synchronize=lambda: None)
    monkeypatch.setattr(device_link, "adapter_for", lambda label: adapter)
    with on_device(0.0, device="xpu", is_timed=False) as running:
        running.begin_step()
        yield running


def test_a_recorded_step_is_that_of_the_timed_one_without_its_link(device, monkeypatch):
    with recorded(monkeypatch, make_event=lambda: event_of(device)) as running:
        gather_as_fsdp(device)
        gather_beside(device)
        trace = running.end_step().trace
    assert marks(trace) == [
        ("issue", 0, 0.004, 0.004),
        ("wait", 0, 0.008, 0.008),
        ("issue", 1, 0.012, 0.012),
        ("wait", 1, 0.016, 0.016),
    ]
    reported = replay(trace, model=FixedModel(MODELLED_S), is_free=True)
    assert (reported.compute_s, reported.step_s) == pytest.approx((0.016, 0.028))


def test_where_events_keep_no_time_the_host_does_after_a_wait(device, monkeypatch):
    now_s = iter(range(100))
    monkeypatch.setattr("bench.emulate.link.device_clock.perf_counter", lambda: float(next(now_s)))
    with recorded(monkeypatch, make_event=lambda: None) as running:
        all_reduce()
        trace = running.end_step().trace
    assert trace.duration_s == 4.0  # begin, issue, link, wait, end
    assert [mark.kind for mark in trace.marks] == ["issue", "wait"]


def test_a_clock_that_no_kernel_of_cuda_reads_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    for device, named in (("cuda", "ROCm"), ("xpu", "xpu")):
        with pytest.raises(UsageError, match=f"emulated on {named}: .* use --mode simulated"):
            _link_for(torch.device(device), recorder=None, is_timed=True)


def test_a_group_is_one_of_the_device_that_is_there(monkeypatch):
    register = Mock()
    monkeypatch.setattr(dist.Backend, "register_backend", register)
    register_backends.__wrapped__("xpu")
    assert [call.kwargs["devices"] for call in register.call_args_list] == [["cpu", "xpu"]] * 2
    emulation = SimpleNamespace(device=torch.device("xpu"), model=FixedModel())
    made = group_class()(emulation, rank=0, ranks=(0, 1))
    assert made._get_backend(torch.device("xpu")) == made._get_backend(torch.device("cpu"))


def test_a_step_with_more_moments_than_are_kept_is_refused(emulation, monkeypatch):
    monkeypatch.setattr(device_link, "_CAPACITY", 4)
    emulation.begin_step()
    for _ in range(3):
        all_reduce()
    with pytest.raises(MeasurementError, match="moments.*at most 4"):
        emulation.end_step()
