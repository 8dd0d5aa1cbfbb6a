"""The reader for a device: NVML, AMD SMI, or for the processor the kernel's power capping (RAPL).

RAPL's package domains are added up; sub-domains (cores, graphics, memory) are parts of them and
left out. The counters wrap every few minutes to hours, which is undone here. Since 2020 Linux lets
only root read them; what cannot be read is not available, never estimated.
Source: https://docs.kernel.org/power/powercap/powercap.html
"""

import time
from dataclasses import dataclass
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


@dataclass
class _Domain:
    """One package's counter, unwrapped."""

    file: Path
    range_uj: int
    last_uj: int
    total_uj: int = 0

    def read_uj(self) -> int | None:
        """Microjoules since this reader was opened, or None when the counter cannot be read.

        At most one wrap between two reads can be undone: sampling at 10 Hz is far inside that.
        """
        now_uj = read_int(self.file)
        if now_uj is None:
            return None
        change_uj = now_uj - self.last_uj
        self.total_uj += change_uj if change_uj >= 0 else change_uj + self.range_uj
        self.last_uj = now_uj
        return self.total_uj


class RaplTelemetry(Telemetry):
    """Energy of all processor packages. It has no power reading to check the counter against."""

    scope = "package"

    def __init__(self, domains: list[_Domain]) -> None:
        self._domains = domains

    def sample(self, *, with_memory: bool = True) -> Sample:
        """Read every package; the energy is None as soon as one of them cannot be read."""
        time_s = time.monotonic()
        readings_uj = [domain.read_uj() for domain in self._domains]
        known_uj = [reading for reading in readings_uj if reading is not None]
        is_whole = len(known_uj) == len(readings_uj)
        return Sample(time_s=time_s, energy_j=sum(known_uj) / 1e6 if is_whole else None)


def open_rapl(*, root: Path = ROOT) -> RaplTelemetry | None:
    """Return a reader of all packages; None where one cannot be read, for half a sum is wrong."""
    domains: list[_Domain] = []
    for directory in sorted((root / "sys/class/powercap").glob("*-rapl:*")):
        # intel-rapl is also the name on AMD; intel-rapl-mmio shows the same package again.
        is_top = directory.name.count(":") == 1 and not directory.name.startswith("intel-rapl-mmio")
        if not is_top or not (read_text(directory / "name") or "").startswith("package"):
            continue
        now_uj = read_int(directory / "energy_uj")
        range_uj = read_int(directory / "max_energy_range_uj")
        if now_uj is None or range_uj is None:
            return None
        domains.append(_Domain(file=directory / "energy_uj", range_uj=range_uj, last_uj=now_uj))
    return RaplTelemetry(domains) if domains else None
