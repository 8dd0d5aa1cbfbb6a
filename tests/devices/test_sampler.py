"""The thread that watches: what it takes, how often, and what it survives."""

import threading
import time

import pytest

from bench.devices.host.cpu_noise import CpuSnapshot
from bench.devices.telemetry.common import Sample
from bench.devices.telemetry.sampler import Sampler
from tests.devices.recorded_drivers import ReplayTelemetry


def snapshot_at(pid: int) -> CpuSnapshot:
    counters = {"busy_s": 0.0, "steal_s": None, "total_s": 0.0}
    return CpuSnapshot(time_s=float(pid), **counters, processes={}, switches={}, faults={})


def test_a_failing_reading_is_left_out_and_stops_nothing():
    def fail(pid):
        raise ProcessLookupError(pid)

    readings = [Sample(time_s=1.0), OSError("gpu lost"), Sample(time_s=3.0)]
    sampler = Sampler(ReplayTelemetry(readings), pid=7, snapshot=fail)
    for _ in range(4):
        sampler.collect()
    assert [one.time_s for one in sampler.samples] == [1.0, 3.0]
    assert sampler.snapshots == []


def test_snapshots_and_memory_are_taken_less_often_than_power(monkeypatch):
    now_s = iter(number / 10 for number in range(11))
    monkeypatch.setattr(time, "monotonic", lambda: next(now_s))
    replay = ReplayTelemetry([Sample(time_s=float(number)) for number in range(11)])
    sampler = Sampler(replay, pid=7, snapshot=snapshot_at)
    for _ in range(11):
        sampler.collect()
    slow = [number for number, with_memory in enumerate(replay.asked) if with_memory]
    assert (slow, len(sampler.snapshots)) == ([0, 5, 10], 3)


def test_the_thread_brackets_the_time_between_start_and_stop():
    num_threads = threading.active_count()
    live = ReplayTelemetry([lambda: Sample(time_s=time.monotonic())] * 100)
    # A device without telemetry still gets snapshots of the processor.
    for telemetry, least in ((live, 2), (None, 0)):
        sampler = Sampler(telemetry, pid=7, snapshot=snapshot_at)
        sampler.start()
        time.sleep(0.25)
        stop_s = time.monotonic()
        sampler.stop()
        assert len(sampler.snapshots) >= 2
        assert len(sampler.samples) >= least
        assert all(one.time_s >= stop_s for one in sampler.samples[-1:])
        assert threading.active_count() == num_threads
    with pytest.raises(RuntimeError):
        sampler.start()
