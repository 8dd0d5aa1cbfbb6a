"""The reader for a device: NVML, AMD SMI, or for the processor the kernel's power capping (RAPL).

RAPL's package domains are added up; sub-domains (cores, graphics, memory) are parts of them and
left out. The counters wrap every few minutes to hours, which is undone here. Since 2020 Linux lets
only root read them; what cannot be read is not available, never estimated.
Source: https://docs.kernel.org/power/powercap/powercap.html
"""

import time
from collections.abc import Mapping
from pathlib import Path

from bench.core.nouns import Device
from bench.devices.host.cgroup import ROOT, read_int, read_text
from bench.devices.telemetry.amd_smi import open_amd
from bench.devices.telemetry.common import Sample, Telemetry
from bench.devices.telemetry.nvml import open_nvml


def open_telemetry(device: Device) -> Telemetry | None:
    """Return the reader for this device, or None where nothing can be read."""
    if device.type == "cpu":
        return open_rapl()
    if device.type == "cuda" and device.vendor == "amd":
        return open_amd(device)
    if device.type == "cuda" and device.vendor in ("nvidia", None):
        return open_nvml(device)
    return None


class RaplTelemetry(Telemetry):
    """Energy of all processor packages. It has no power reading to check the counter against."""

    scope = "package"

    def __init__(self, ranges_uj: Mapping[Path, int]) -> None:
        self._ranges_uj = ranges_uj
        self._last_uj: dict[Path, int] = {}
        self._total_uj = 0

    def sample(self, *, with_memory: bool = True) -> Sample:
        """Read every package; the energy is None as soon as one of them cannot be read.

        At most one wrap between two reads can be undone: sampling at 10 Hz is far inside that.
        """
        time_s = time.monotonic()
        for file, range_uj in self._ranges_uj.items():
            now_uj = read_int(file)
            if now_uj is None:
                return Sample(time_s=time_s)
            self._total_uj += (now_uj - self._last_uj.get(file, now_uj)) % range_uj
            self._last_uj[file] = now_uj
        return Sample(time_s=time_s, energy_j=self._total_uj / 1e6)


def open_rapl(*, root: Path = ROOT) -> RaplTelemetry | None:
    """Return a reader of all packages; None where one cannot be read, for half a sum is wrong."""
    ranges_uj: dict[Path, int] = {}
    for directory in (root / "sys/class/powercap").glob("*-rapl:*"):
        # intel-rapl is also the name on AMD; intel-rapl-mmio shows the same package again.
        is_top = directory.name.count(":") == 1 and not directory.name.startswith("intel-rapl-mmio")
        if not is_top or not (read_text(directory / "name") or "").startswith("package"):
            continue
        file, range_uj = directory / "energy_uj", read_int(directory / "max_energy_range_uj")
        if read_int(file) is None or not range_uj:
            return None
        ranges_uj[file] = range_uj
    return RaplTelemetry(ranges_uj) if ranges_uj else None
