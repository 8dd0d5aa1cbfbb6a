"""What the parent must know of a device before it plans, found out by a process of its own.

The parent never imports torch: `python -m bench.measure.inspection REQUEST` detects the device,
probes its dtypes, measures or loads its roof, and prints one JSON document.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.core.errors import BenchError, MeasurementError, UsageError
from bench.core.nouns import Capability, Device, Dtype

if TYPE_CHECKING:
    from bench.devices.roof import Roof

FAKE = Device(
    type="fake",
    index=0,
    name="fake device (simulated time)",
    vendor=None,
    stack="none",
    memory_bytes=None,
)

MAX_FOREIGN_FRAC = 0.05
"""A roof measured while others used the processor would flatter every utilisation."""


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """A device as a plan and its rows need it."""

    device: Device
    capabilities: Mapping[str, Capability]
    roof_flops_per_s: Mapping[str, float] = field(default_factory=dict)
    roof_sustained_flops_per_s: Mapping[str, float] = field(default_factory=dict)
    roof_bytes_per_s: float | None = None
    roof_source: Mapping[str, str] = field(default_factory=dict)
    """Method, shapes and time of the roof by dtype."""
    torch_facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_accelerator(self) -> bool:
        """Whether it is anything but the CPU or the fake."""
        return self.device.type not in ("cpu", "fake")

    @property
    def default_dtype(self) -> Dtype:
        """bf16 on an accelerator that computes it right, fp32 elsewhere."""
        return "bf16" if self.is_accelerator and self.capabilities.get("bf16") == "ok" else "fp32"


def same_modules() -> dict[str, str]:
    """Environment in which a child process finds the modules that this process finds.

    `python -m` would look into the user's folder first, and a folder called workloads or a file
    called random.py there would stand in for ours.
    """
    folders = [os.path.abspath(folder) for folder in sys.path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(folders), "PYTHONSAFEPATH": "1"}


def inspect_device(
    label: str | None, *, dtypes: tuple[str, ...], with_roof: bool, threads: int | None = None
) -> Inspection:
    """Inspect in a child process; raises `BenchError` with the child's line when it cannot."""
    if label == "fake":
        return Inspection(device=FAKE, capabilities={})
    request = json.dumps(
        {"label": label, "dtypes": dtypes, "with_roof": with_roof, "threads": threads}
    )
    done = subprocess.run(
        [sys.executable, "-m", "bench.measure.inspection", request],
        capture_output=True,
        text=True,
        check=False,
        env=same_modules(),
        timeout=600,
    )
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise MeasurementError(f"device {label or 'detection'} could not be inspected: {last}")
    answer = json.loads(lines[-1])
    if "usage_error" in answer:
        raise UsageError(answer["usage_error"])
    if "measurement_error" in answer:
        raise MeasurementError(answer["measurement_error"])
    device = answer.pop("device")
    device["telemetry"] = tuple(device["telemetry"])
    return Inspection(device=Device(**device), **answer)


def _inspect(
    label: str | None, *, dtypes: tuple[str, ...], with_roof: bool, threads: int | None
) -> dict[str, Any]:
    import torch

    from bench.devices.detect import find, memory_info
    from bench.devices.probe import probe_dtypes
    from bench.devices.roof import load_roof, roof_for
    from bench.measure.torch_facts import torch_facts

    if threads is not None:
        torch.set_num_threads(threads)
    device = find(label)
    capabilities = probe_dtypes(device.label)
    if device.type != "cpu" and device.memory_free_bytes is None:
        # The probe has made the context that asking may make, and few drivers answer without one.
        info = memory_info(device.type, device.index)
        device = dataclasses.replace(device, memory_free_bytes=info[0] if info else None)
    facts = torch_facts(device)
    if with_roof:
        wanted = tuple(dtype for dtype in dtypes if capabilities.get(dtype) == "ok")
        known: Roof | None = roof_for(device, dtypes=wanted)
    else:
        known = load_roof(device, torch_version=facts["torch"])
    answer: dict[str, Any] = {
        "device": dataclasses.asdict(device),
        "capabilities": capabilities,
        "torch_facts": facts,
    }
    if known is not None and (known.foreign_cpu_frac or 0.0) <= MAX_FOREIGN_FRAC:
        answer |= {
            "roof_flops_per_s": dict(known.flops_per_s),
            "roof_sustained_flops_per_s": dict(known.sustained_flops_per_s),
            "roof_bytes_per_s": known.bytes_per_s,
            "roof_source": {dtype: known.source(dtype) for dtype in capabilities},
        }
    return answer


def main() -> int:
    """Print the inspection that the argument asks for."""
    request = json.loads(sys.argv[1])
    try:
        answer = _inspect(
            request["label"],
            dtypes=tuple(request["dtypes"]),
            with_roof=request["with_roof"],
            threads=request["threads"],
        )
    except MeasurementError as error:
        answer = {"measurement_error": str(error)}
    except BenchError as error:
        answer = {"usage_error": str(error)}
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Skips the interpreter's teardown, in which some backends crash after all is said.
    os._exit(code)
