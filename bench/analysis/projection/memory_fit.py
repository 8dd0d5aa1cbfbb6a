"""What batch of a measured configuration fits into another chip's memory.

The measured or estimated peak is split into what does not grow with the batch (weights, gradients,
moments) and what does. Fragmentation and the driver's share are one allowance.
"""

from __future__ import annotations

from bench.analysis.projection.measured import Start
from bench.core.nouns import Chip
from bench.core.units import format_bytes

USABLE_FRACTION = 0.93
"""Firmware, error correction and context take up to 7 %, as in `bench.hardware.chips`."""
TRAINED_BYTES = 16
"""fp32 weight, gradient and two moments of one parameter."""
_DTYPE_BYTES = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2}


def fit(measured: Start, chip: Chip) -> tuple[int, str]:
    """Return the largest batch up to the measured one that fits, and what was given up for it.

    Batch 0 where none fits; no words where everything does.
    """
    if chip.memory_bytes is None:
        return measured.batch, "its memory size is not known: whether it fits, too"
    if measured.memory_bytes is None:
        return measured.batch, "the memory it needs was not measured"
    devices = chip.facts.get("torch_devices")
    parts = devices if isinstance(devices, int) and devices > 1 else 1
    usable = chip.memory_bytes / parts * USABLE_FRACTION
    need = measured.memory_bytes
    if need <= usable:
        return measured.batch, ""
    per_parameter = TRAINED_BYTES if measured.is_training else _DTYPE_BYTES[measured.dtype]
    fixed = min(need, per_parameter * float(measured.num_parameters or 0))
    each = (need - fixed) / measured.batch
    batch = int((usable - fixed) / each) if each > 0.0 else 0
    reported = f"{format_bytes(need)} at batch {measured.batch}, {format_bytes(usable)} usable"
    if batch < 1:
        return 0, f"not even batch 1 fits: {reported}"
    return min(batch, measured.batch), f"batch {batch} fits: {reported}"
