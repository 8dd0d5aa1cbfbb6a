"""Fewer SMs and less memory on a real GPU: what is granted is counted, bandwidth stays."""

from __future__ import annotations

import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available() or torch.version.cuda is None:
    pytest.skip("no CUDA device here", allow_module_level=True)

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


def test_granted_units_are_counted_and_memory_is_capped() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED], capture_output=True, text=True, timeout=300, check=False
    )
    if "torch 2.11 or newer" in done.stderr or "grants no context" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    assert "capped" in done.stdout
