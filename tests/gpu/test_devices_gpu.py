"""Detection, adapter, probe, roof, chip limits and NVML's readings on a real CUDA device."""

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import torch

from bench.devices.doctor.all_findings import gpu_findings
from bench.devices.telemetry.nvml import NvmlTelemetry, device_links, open_nvml
from bench.devices.torch import detect, probe, roof
from bench.devices.torch.torch_adapter import adapter_for, is_out_of_memory


def test_the_device_is_described() -> None:
    device = detect.find("cuda")
    assert device.label == "cuda:0"
    assert device.memory_bytes == torch.cuda.get_device_properties(0).total_memory
    assert device.compute_units
    assert detect.find(None).type == "cuda"
    if device.vendor == "nvidia":
        assert any(link.second == "host" for link in device_links([device])), "its slot"
    if device.memory_free_bytes is not None:
        torch.ones(1, device="cuda")
        free_bytes = detect.find("cuda").memory_free_bytes
        assert free_bytes == pytest.approx(torch.cuda.mem_get_info(0)[0], rel=0.02)


NO_CONTEXT = """
import torch
from bench.devices.torch import detect

before, again = (detect.find("cuda").memory_free_bytes for _ in range(2))
assert before and abs(before - again) < 50e6, (before, again)
torch.ones(1, device="cuda")
torch.cuda.synchronize()
after = detect.find("cuda").memory_free_bytes
assert before - after > 50e6, (before, after)
"""


def test_asking_nvidia_devices_makes_no_context() -> None:
    if detect.find("cuda").vendor != "nvidia":
        pytest.skip("free memory without a context is known on NVIDIA devices only")
    subprocess.run([sys.executable, "-c", NO_CONTEXT], check=True)


def test_events_measure_what_the_host_measures() -> None:
    adapter = adapter_for("cuda:0")
    left = torch.randn(4096, 4096, device="cuda")
    start, end = adapter.make_event(), adapter.make_event()
    assert start is not None and end is not None
    left @ left
    adapter.synchronize()
    begin_s = time.perf_counter()
    start.record()
    for _ in range(50):
        left @ left
    end.record()
    end.synchronize()
    wall_s = time.perf_counter() - begin_s
    assert end.query()
    assert start.elapsed_ms(end) / 1e3 == pytest.approx(wall_s, rel=0.05)


def test_peaks_follow_an_allocation_and_running_out_of_memory_is_recognised() -> None:
    adapter = adapter_for("cuda:0")
    adapter.empty_cache()
    adapter.reset_peak_memory()
    before = adapter.peak_allocated_bytes()
    block = torch.ones(2**26, dtype=torch.uint8, device="cuda")
    after = adapter.peak_allocated_bytes()
    assert before is not None and after is not None
    assert after - before >= block.numel()
    assert (adapter.reserved_bytes() or 0) >= block.numel()
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50, dtype=torch.uint8, device="cuda")
    assert is_out_of_memory(caught.value)


def test_dtypes_of_ampere_and_later_work_and_the_roof_is_plausible() -> None:
    if torch.version.hip or torch.cuda.get_device_capability(0) < (8, 0):
        pytest.skip("older than Ampere, or not CUDA")
    states = probe.probe_dtypes("cuda:0")
    assert {states[dtype] for dtype in ("fp64", "fp32", "tf32", "bf16", "fp16")} == {"ok"}
    made = roof.measure_roof("cuda:0", dtypes=["fp32", "tf32", "bf16"])
    rates = made.flops_per_s
    assert 1e12 < rates["fp32"] < rates["tf32"] < rates["bf16"] < 1e16
    assert made.bytes_per_s is not None and 1e11 < made.bytes_per_s < 2e13


LIMITED = """
import torch
from bench.emulate.limited_device import apply_chip_limit, count_units
from bench.hardware.chip_limit import parse_chip_limit

device = torch.device("cuda:0")
whole = count_units(device)
assert whole == torch.cuda.get_device_properties(device).multi_processor_count, whole
asked = max(8, whole // 2 // 8 * 8)
granted = apply_chip_limit(parse_chip_limit(f"sms={asked},memory=4GB"), device)
assert granted.sms is not None and 0 < granted.sms <= asked, granted
x = torch.randn(512, 512, device=device, requires_grad=True)
(x @ x).sum().backward()
torch.cuda.synchronize()
assert torch.isfinite(x.grad).all()
assert count_units(device) == granted.sms
try:
    torch.empty(5 * 10**9, dtype=torch.uint8, device=device)
except torch.OutOfMemoryError:
    print("capped")
"""


@pytest.mark.skipif(torch.version.cuda is None, reason="SMs are NVIDIA's")
def test_granted_units_are_counted_and_memory_is_capped() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED], capture_output=True, text=True, timeout=300, check=False
    )
    if "torch 2.11 or newer" in done.stderr or "grants no context" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    assert "capped" in done.stdout


@pytest.fixture
def telemetry() -> Iterator[NvmlTelemetry]:
    device = detect.find("cuda")
    if device.vendor != "nvidia":
        pytest.skip("NVML reads NVIDIA devices only")
    opened = open_nvml(device)
    assert opened is not None
    yield opened
    opened.close()


def test_readings_are_plausible_and_quick_and_doctor_takes_them(telemetry: NvmlTelemetry) -> None:
    sample = telemetry.sample()
    assert sample.temperature_c is not None and 0 < sample.temperature_c < 120
    assert sample.sm_clock_hz is not None and 1e8 <= sample.sm_clock_hz < 1e10
    assert sample.used_bytes is not None and sample.used_bytes >= 0
    assert sample.power_w is None or 1 < sample.power_w < 3000
    base = telemetry.baseline()
    assert base.driver_version
    assert base.ecc_uncorrected is None or base.ecc_uncorrected >= 0
    start_s = time.perf_counter()
    for _ in range(10):
        telemetry.sample()
    assert (time.perf_counter() - start_s) / 10 < 0.05, "far less than the period"
    for finding in gpu_findings():
        assert finding.what and finding.fix
