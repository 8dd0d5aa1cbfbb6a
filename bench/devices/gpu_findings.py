"""State of the accelerators, read from their drivers, that spoils measurements.

Devices are listed by the driver's own order, because torch, which knows another one, is not asked.
Only NVIDIA and AMD drivers are read. The link's generation is not judged: it drops at rest to save
power, while a narrow link stays narrow.
"""

from typing import Any

from bench.core.units import format_bytes
from bench.devices.amd import AmdTelemetry, import_amdsmi
from bench.devices.finding import Finding
from bench.devices.nvml import NvmlTelemetry, import_nvml
from bench.devices.telemetry import THROTTLE_REASONS, Baseline, Sample

FOREIGN_BYTES = 500 * 2**20
FOREIGN_UTILIZATION_FRAC = 0.05
_HOT_C = 80.0
_LIMIT_TOLERANCE_FRAC = 0.01


def use_finding(rest: Sample, *, label: str, tool: str) -> Finding | None:
    """Report memory or time that something else uses."""
    is_full = rest.used_bytes is not None and rest.used_bytes > FOREIGN_BYTES
    load_frac = rest.utilization_frac or 0.0
    if not is_full and load_frac <= FOREIGN_UTILIZATION_FRAC:
        return None
    used = "unknown memory" if rest.used_bytes is None else format_bytes(rest.used_bytes)
    return Finding(
        severity="warning",
        what=f"{label} is in use: {used}, {load_frac:.0%} busy",
        why="whatever uses it takes time and memory from every trial",
        fix=f"find it and stop it: {tool}",
    )


def heat_finding(rest: Sample, *, label: str) -> Finding | None:
    """Report slow-downs in force, or heat before any work."""
    reasons = sorted((rest.throttle_reasons or frozenset()) & THROTTLE_REASONS)
    is_hot = rest.temperature_c is not None and rest.temperature_c >= _HOT_C
    if not reasons and not is_hot:
        return None
    state = f"slows itself down ({', '.join(reasons)})" if reasons else "is hot before any work"
    heat = "" if rest.temperature_c is None else f" at {rest.temperature_c:.0f} C"
    return Finding(
        severity="error" if reasons else "warning",
        what=f"{label} {state}{heat}",
        why="clocks drop while it is too hot or short of power; such trials are invalid",
        fix="improve cooling and power, or wait until it has cooled down",
    )


def ecc_finding(base: Baseline, *, label: str, tool: str) -> Finding | None:
    """Report uncorrected memory errors."""
    if not base.ecc_uncorrected:
        return None
    return Finding(
        severity="error",
        what=f"{label}: {base.ecc_uncorrected} uncorrected memory errors since the driver started",
        why="results may be wrong and kernels may be repeated; the device may be faulty",
        fix=f"{tool}; reset the device or have it replaced",
    )


def limit_finding(base: Baseline, *, label: str, command: str) -> Finding | None:
    """Report a power limit below the default; `command` takes the default in watts."""
    limit_w, default_w = base.power_limit_w, base.power_limit_default_w
    if limit_w is None or default_w is None:
        return None
    if limit_w >= default_w * (1 - _LIMIT_TOLERANCE_FRAC):
        return None
    return Finding(
        severity="warning",
        what=f"{label} is limited to {limit_w:.0f} W; its default is {default_w:.0f} W",
        why="clocks drop under load, so results compare to no other device of its kind",
        fix=command.format(watts=default_w),
    )


def link_finding(base: Baseline, *, label: str) -> Finding | None:
    """Report a PCIe link with fewer lanes than it could have."""
    if base.pcie_width is None or base.pcie_width_max is None:
        return None
    if base.pcie_width >= base.pcie_width_max:
        return None
    return Finding(
        severity="warning",
        what=f"{label} has {base.pcie_width} of {base.pcie_width_max} PCIe lanes",
        why="copies between host and device take longer than they should",
        fix="reseat the card or use another slot: sudo lspci -vv | grep -i lnksta",
    )


def nvidia_findings(telemetry: NvmlTelemetry, *, index: int, name: str) -> list[Finding]:
    """Report everything about one NVIDIA device."""
    rest, base = telemetry.sample(), telemetry.baseline()
    label = f"GPU {index} ({name})"
    smi = f"sudo nvidia-smi -i {index}"
    found = [
        use_finding(rest, label=label, tool=f"nvidia-smi -i {index}"),
        heat_finding(rest, label=label),
        ecc_finding(base, label=label, tool=f"nvidia-smi -i {index} -q -d ECC"),
        limit_finding(base, label=label, command=smi + " -pl {watts:.0f}"),
        link_finding(base, label=label),
    ]
    if base.has_mig:
        found.append(
            Finding(
                severity="warning",
                what=f"{label} is split by MIG",
                why="a slice is a smaller device, and its energy cannot be told from the others'",
                fix=f"{smi} -mig 0",
            )
        )
    if base.has_persistence is False:
        found.append(
            Finding(
                severity="note",
                what=f"{label} has persistence mode off",
                why="the driver unloads between trials: cold starts take seconds longer",
                fix=f"{smi} -pm 1",
            )
        )
    found.append(_clock_finding(rest, base=base, label=label, smi=smi))
    return [finding for finding in found if finding is not None]


def _clock_finding(rest: Sample, *, base: Baseline, label: str, smi: str) -> Finding | None:
    """Say whether clocks are held. NVML tells only that a setting limits them, not which."""
    if rest.throttle_reasons is None:
        return None
    if "app_clocks" in rest.throttle_reasons:
        return Finding(
            severity="note",
            what=f"{label} has its clocks limited by a setting",
            why="steady, but slower than the same device without it: say so when comparing",
            fix=f"{smi} -rgc && {smi} -rac",
        )
    most = "" if base.sm_clock_max_hz is None else f",{base.sm_clock_max_hz * 0.75 / 1e6:.0f}"
    return Finding(
        severity="note",
        what=f"{label} has free clocks",
        why="they follow heat and power, so runs on different days differ by a few percent",
        fix=f"{smi} -lgc {most.lstrip(',')}".rstrip() + f" (undo: {smi} -rgc)",
    )


def amd_findings(telemetry: AmdTelemetry, *, index: int) -> list[Finding]:
    """Report what AMD's driver tells about one device."""
    rest, base = telemetry.sample(), telemetry.baseline()
    label = f"AMD GPU {index}"
    found = [
        use_finding(rest, label=label, tool="amd-smi process"),
        heat_finding(rest, label=label),
        ecc_finding(base, label=label, tool=f"amd-smi metric -g {index} --ecc"),
        limit_finding(
            base,
            label=label,
            command=f"sudo amd-smi set -g {index} --power-cap " + "{watts:.0f}",
        ),
    ]
    return [finding for finding in found if finding is not None]


def _all_nvidia(nvml: Any) -> list[Finding]:
    found: list[Finding] = []
    try:
        for index in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            name = nvml.nvmlDeviceGetName(handle)
            text = name.decode() if isinstance(name, bytes) else name
            telemetry = NvmlTelemetry(nvml, handle=handle)
            found.extend(nvidia_findings(telemetry, index=index, name=text))
    except nvml.NVMLError as error:
        found.append(
            Finding(
                severity="warning",
                what=f"NVIDIA's driver refuses to list its devices: {error}",
                why="a device that cannot be asked cannot be checked",
                fix="nvidia-smi",
            )
        )
    nvml.nvmlShutdown()
    return found


def _all_amd(smi: Any) -> list[Finding]:
    try:
        handles = list(smi.amdsmi_get_processor_handles())
    except smi.AmdSmiException:
        return []
    found: list[Finding] = []
    for index, handle in enumerate(handles):
        found.extend(amd_findings(AmdTelemetry(smi, handle=handle), index=index))
    smi.amdsmi_shut_down()
    return found


def gpu_findings(*, nvml: Any = None, smi: Any = None) -> list[Finding]:
    """Report on every device of the drivers present; an empty list without any."""
    nvml = nvml if nvml is not None else import_nvml()
    smi = smi if smi is not None else import_amdsmi()
    nvidia = _all_nvidia(nvml) if nvml is not None else []
    return nvidia + (_all_amd(smi) if smi is not None else [])
