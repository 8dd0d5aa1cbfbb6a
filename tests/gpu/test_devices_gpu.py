"""Detection, adapter, probe, roof and nvml_links on a real CUDA device."""

import subprocess
import sys
import time

import pytest
import torch

from bench.devices.telemetry.nvml_links import device_links
from bench.devices.torch import detect, probe, roof
from bench.devices.torch.torch_adapter import adapter_for, is_out_of_memory

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is available"),
]


def test_the_device_is_described():
    device = detect.find("cuda")
    assert device.label == "cuda:0"
    assert device.memory_bytes == torch.cuda.get_device_properties(0).total_memory
    assert device.compute_units
    assert detect.find(None).type == "cuda"


def test_asking_nvidia_devices_makes_no_context():
    code = (
        "import torch; from bench.devices.torch import detect; "
        "device = detect.find('cuda'); assert device.vendor == 'nvidia', device; "
        "assert device.memory_free_bytes; "
        "import pynvml; before = device.memory_free_bytes; "
        "again = detect.find('cuda').memory_free_bytes; "
        "assert abs(before - again) < 50e6, (before, again); "
        "torch.ones(1, device='cuda'); torch.cuda.synchronize(); "
        "after = detect.find('cuda').memory_free_bytes; "
        "assert before - after > 50e6, (before, after)"
    )
    if detect.find("cuda").vendor != "nvidia":
        pytest.skip("free memory without a context is known on NVIDIA devices only")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_free_memory_agrees_with_torch():
    device = detect.find("cuda")
    if device.memory_free_bytes is None:
        pytest.skip("this driver does not tell free memory")
    torch.ones(1, device="cuda")
    free_bytes = detect.find("cuda").memory_free_bytes
    assert free_bytes == pytest.approx(torch.cuda.mem_get_info(0)[0], rel=0.02)


def test_events_measure_what_the_host_measures():
    adapter = adapter_for("cuda:0")
    left = torch.randn(4096, 4096, device="cuda")
    start, end = adapter.make_event(), adapter.make_event()
    assert start is not None
    assert end is not None
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


def test_peaks_follow_an_allocation():
    adapter = adapter_for("cuda:0")
    adapter.empty_cache()
    adapter.reset_peak_memory()
    before = adapter.peak_allocated_bytes()
    block = torch.ones(2**26, dtype=torch.uint8, device="cuda")
    after = adapter.peak_allocated_bytes()
    assert before is not None
    assert after is not None
    assert after - before >= block.numel()
    assert (adapter.reserved_bytes() or 0) >= block.numel()


def test_running_out_of_memory_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50, dtype=torch.uint8, device="cuda")
    assert is_out_of_memory(caught.value)


def skip_before_ampere() -> None:
    if torch.version.hip or torch.cuda.get_device_capability(0) < (8, 0):
        pytest.skip("older than Ampere, or not CUDA")


def test_dtypes_of_ampere_and_later_work():
    skip_before_ampere()
    states = probe.probe_dtypes("cuda:0")
    assert {states[dtype] for dtype in ("fp64", "fp32", "tf32", "bf16", "fp16")} == {"ok"}


def test_the_roof_is_higher_in_sixteen_bits_and_plausible():
    skip_before_ampere()
    made = roof.measure_roof("cuda:0", dtypes=["fp32", "tf32", "bf16"])
    rates = made.flops_per_s
    assert 1e12 < rates["fp32"] < rates["tf32"] < rates["bf16"] < 1e16
    assert made.bytes_per_s is not None
    assert 1e11 < made.bytes_per_s < 2e13


def test_the_slot_of_an_nvidia_device_is_told():
    if detect.find("cuda").vendor != "nvidia":
        pytest.skip("nvml_links is read from NVML")
    assert any(link.second == "host" for link in device_links([detect.find("cuda")]))
