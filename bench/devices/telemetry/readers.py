"""The reader for a device: NVML, AMD SMI, or for the processor the kernel's power capping (RAPL).

RAPL's package domains are added up; sub-domains (cores, graphics, memory) are parts of them. The
counters wrap every few minutes to hours, which is undone here. Since 2020 Linux lets only root read
them; what cannot be read is not available, never estimated.
Source: https://docs.kernel.org/power/powercap/powercap.html

AMD SMI's binding is optional: a missing one is no error, nor is one that does not fit its driver.
It writes 'N/A', 0 or all ones for what a device does not give, and renames its fields now and then;
all end as None here. Left out: throttle reasons, which some devices give as percentages. Source:
https://rocm.docs.amd.com/projects/amdsmi/en/latest/reference/amdsmi-py-api.html
"""

import math
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from operator import attrgetter
from pathlib import Path
from typing import Any

from bench.core.nouns import Device
from bench.devices.host.cgroup import ROOT, read_int, read_text
from bench.devices.telemetry.bounds import bounded
from bench.devices.telemetry.common import Baseline, Sample, Telemetry, scaled
from bench.devices.telemetry.nvml import open_nvml

_MIB_BYTES = 2**20
_EMPTY = (2**16 - 1, 2**32 - 1, 2**64 - 1)
"""All ones, in the width of the C field: a reading that this device does not have
(https://rocm.docs.amd.com/projects/amdsmi/en/docs-7.1.1/doxygen/docBin/html/structamdsmi__power__info__t.html)."""
_UNFIT = (AttributeError, KeyError, TypeError, ValueError)
"""What the binding raises where its library is of another release."""
_TWO_DIES = ("MI250",)
"""Parts whose dies are a device each to torch, while power and energy are those of the module."""


def import_amdsmi() -> Any | None:
    """Return the binding, started, or None where it or the driver is missing."""
    try:
        import amdsmi

        amdsmi.amdsmi_init()
    except Exception:  # without ROCm, or with another one, it raises whatever ctypes does
        return None
    return amdsmi


def _number(value: Any) -> float | None:
    """Return a reading as a number, 'N/A' as None; all ones are infinite, which nothing can be."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return None if not is_number else math.inf if value in _EMPTY else float(value)


def _field(answer: Any, *names: str) -> float | None:
    """Return the first field with a figure, else what one of them has in its place."""
    found = [_number(answer.get(name)) for name in names] if isinstance(answer, dict) else []
    given = [value for value in found if value is not None]
    return next((value for value in given if 0 < value < math.inf), next(iter(given), None))


class AmdTelemetry(Telemetry):
    """One AMD device. Its energy counter has been seen frozen, so it is always checked."""

    def __init__(self, smi: Any, *, handle: Any, name: str = "") -> None:
        self.scope = "module" if any(part in name for part in _TWO_DIES) else "gpu"
        self._smi = smi
        self._handle = handle

    def _ask(self, function: str, *members: str) -> Any | None:
        """One call; its arguments are members of the binding's enumerations."""
        try:
            arguments = [attrgetter(member)(self._smi) for member in members]
            return getattr(self._smi, function)(self._handle, *arguments)
        except (self._smi.AmdSmiException, *_UNFIT):
            return None

    def _temperature_c(self) -> float | None:
        kinds = ("AmdSmiTemperatureType.HOTSPOT", "AmdSmiTemperatureType.EDGE")
        now = "AmdSmiTemperatureMetric.CURRENT"
        found = {kind: self._ask("amdsmi_get_temp_metric", kind, now) for kind in kinds}
        return _field(found, *kinds)

    def _clock_hz(self, *names: str) -> float | None:
        return scaled(_field(self._ask("amdsmi_get_clock_info", "AmdSmiClkType.GFX"), *names), 1e6)

    def sample(self, *, with_memory: bool = True) -> Sample:
        """Read the device now."""
        time_s = time.monotonic()
        energy = self._ask("amdsmi_get_energy_count")
        count = _field(energy, "energy_accumulator", "power")
        resolution_uj = _field(energy, "counter_resolution")
        power = self._ask("amdsmi_get_power_info")
        power_w = _field(power, "current_socket_power", "socket_power", "average_socket_power")
        usage = self._ask("amdsmi_get_gpu_vram_usage") if with_memory else None
        activity = self._ask("amdsmi_get_gpu_activity") if with_memory else None
        return bounded(
            Sample,
            time_s=time_s,
            power_w=power_w,
            energy_j=None if resolution_uj is None else scaled(count, resolution_uj / 1e6),
            temperature_c=self._temperature_c(),
            sm_clock_hz=self._clock_hz("clk", "cur_clk"),
            used_bytes=scaled(_field(usage, "vram_used"), _MIB_BYTES),
            utilization_frac=scaled(_field(activity, "gfx_activity"), 0.01),
        )

    def baseline(self) -> Baseline:
        """Read limits and errors."""
        rest = self.sample()
        caps = self._ask("amdsmi_get_power_cap_info")
        errors = _field(self._ask("amdsmi_get_gpu_total_ecc_count"), "uncorrectable_count")
        driver = self._ask("amdsmi_get_gpu_driver_info")
        return bounded(
            Baseline,
            used_bytes=rest.used_bytes,
            utilization_frac=rest.utilization_frac,
            power_limit_w=scaled(_field(caps, "power_cap"), 1e-6),
            power_limit_default_w=scaled(_field(caps, "default_power_cap"), 1e-6),
            driver_version=driver.get("driver_version") if isinstance(driver, dict) else None,
            ecc_uncorrected=errors,
            sm_clock_max_hz=self._clock_hz("max_clk"),
        )

    def close(self) -> None:
        """Shut the library down."""
        with suppress(self._smi.AmdSmiException):
            self._smi.amdsmi_shut_down()


def open_amd(device: Device) -> AmdTelemetry | None:
    """Return a reader for the device at this PCI address; by order only where there is but one."""
    smi = import_amdsmi()
    if smi is None:
        return None
    try:
        handles = smi.amdsmi_get_processor_handles()
        known = [(str(smi.amdsmi_get_gpu_device_bdf(handle)).lower(), handle) for handle in handles]
    except (smi.AmdSmiException, *_UNFIT):
        return None
    wanted = (device.pci_bus_id or "").lower()
    found = [handle for address, handle in known if not wanted or wanted.endswith(address)]
    is_sure = len(found) == 1 or (found and wanted)
    return AmdTelemetry(smi, handle=found[0], name=device.name) if is_sure else None


def open_telemetry(device: Device) -> Telemetry | None:
    """Return the reader for this device, or None where nothing can be read."""
    if device.type == "cpu":
        return open_rapl()
    if device.type == "cuda" and device.vendor == "amd":
        return open_amd(device)
    if device.type == "cuda" and device.vendor in ("nvidia", None):
        return open_nvml(device)
    return None


def baseline_of(device: Device) -> Baseline:
    """Read the slow-changing facts of a device; all None where nothing can be read."""
    telemetry = open_telemetry(device)
    if telemetry is None:
        return Baseline()
    with closing(telemetry):
        return telemetry.baseline()


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
