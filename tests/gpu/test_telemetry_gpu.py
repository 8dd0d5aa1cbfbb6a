"""NVML on a real device: the readings are plausible, and the counter agrees with sampled power."""

import os
import time
from collections.abc import Iterator

import pytest

from bench.core.nouns import Device
from bench.devices.doctor.gpu_findings import gpu_findings
from bench.devices.telemetry.nvml import NvmlTelemetry, import_nvml, open_nvml
from bench.devices.telemetry.sampler import Sampler
from bench.devices.telemetry.window_sums import window_conditions, window_energy


def real_device() -> Device:
    nvml = import_nvml()
    if nvml is None:
        pytest.skip("no NVIDIA driver on this machine")
    if nvml.nvmlDeviceGetCount() == 0:
        pytest.skip("NVIDIA's driver lists no device")
    handle = nvml.nvmlDeviceGetHandleByIndex(0)
    return Device(
        type="cuda",
        index=0,
        name=nvml.nvmlDeviceGetName(handle),
        vendor="nvidia",
        stack="CUDA",
        memory_bytes=int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
        uuid=nvml.nvmlDeviceGetUUID(handle),
    )


@pytest.fixture
def telemetry() -> Iterator[NvmlTelemetry]:
    opened = open_nvml(real_device())
    assert opened is not None
    yield opened
    opened.close()


def test_readings_of_a_real_device_are_plausible_and_quick(telemetry: NvmlTelemetry) -> None:
    sample = telemetry.sample()
    assert sample.temperature_c is not None and 0 < sample.temperature_c < 120
    assert sample.sm_clock_hz is not None and 1e8 <= sample.sm_clock_hz < 1e10
    assert sample.used_bytes is not None and sample.used_bytes >= 0
    if sample.power_w is not None:
        assert 1 < sample.power_w < 3000
    base = telemetry.baseline()
    assert base.driver_version
    assert base.ecc_uncorrected is None or base.ecc_uncorrected >= 0
    start_s = time.perf_counter()
    for _ in range(10):
        telemetry.sample()
    assert (time.perf_counter() - start_s) / 10 < 0.05, "far less than the period"


def test_energy_of_an_idle_device_over_three_seconds_is_near_its_power(
    telemetry: NvmlTelemetry,
) -> None:
    if "power" not in telemetry.available:
        pytest.skip("this device gives no power (a MIG slice, or an old driver)")
    sampler = Sampler(telemetry, pid=os.getpid())
    sampler.start()
    time.sleep(0.3)
    start_s = time.monotonic()
    time.sleep(3.0)
    end_s = time.monotonic()
    time.sleep(0.3)
    sampler.stop()
    assert len(sampler.samples) > 30
    energy = window_energy(
        sampler.samples, start_s=start_s, end_s=end_s, idle_power_w=None, scope=telemetry.scope
    )
    assert energy.energy_j is not None
    assert energy.power_mean_w is not None and 1 < energy.power_mean_w < 3000
    assert energy.energy_source in ("counter", "integrated")
    conditions = window_conditions(sampler.samples, start_s=start_s, end_s=end_s)
    assert conditions.temp_max_c is not None


def test_doctor_reads_a_real_device_without_failing(telemetry: NvmlTelemetry) -> None:
    for finding in gpu_findings():
        assert finding.what and finding.fix
