"""Everything about this machine that may spoil a measurement, worst first.

Observes and changes nothing. Takes about a second, most of it watching who else is busy, and needs
no torch: what a torch build and a driver make of each other is not looked at here.

Accelerators are asked through the drivers of NVIDIA and AMD, in those drivers' order: torch, which
knows another, is not asked. The generation of a link is not judged: it drops at rest to save power,
while a narrow link stays narrow.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.core.units import format_bytes
from bench.devices.doctor.host_findings import (
    SEVERITIES,
    Finding,
    disk_findings,
    error,
    load_findings,
    note,
    processor_findings,
    share_findings,
    software_findings,
    warning,
)
from bench.devices.doctor.kernel_findings import core_findings, shared_memory_findings
from bench.devices.host.cgroup import ROOT
from bench.devices.telemetry.bounds import refused_words
from bench.devices.telemetry.common import THROTTLE_REASONS, Telemetry, is_in_use
from bench.devices.telemetry.nvml import NvmlTelemetry, import_nvml
from bench.devices.telemetry.readers import AmdTelemetry, import_amdsmi

_HOT_C = 80.0
_LIMIT_TOLERANCE_FRAC = 0.01


def _common_findings(
    telemetry: Telemetry, *, label: str, tool: str, ecc_tool: str, limit_tool: str
) -> Iterator[Finding]:
    rest, base = telemetry.sample(), telemetry.baseline()
    if is_in_use(rest):
        load_frac = rest.utilization_frac or 0.0
        used = "unknown memory" if rest.used_bytes is None else format_bytes(rest.used_bytes)
        yield warning(
            what=f"{label} is in use: {used}, {load_frac:.0%} busy",
            why="whatever uses it takes time and memory from every trial",
            fix=f"find it and stop it: {tool}",
        )
    reasons = sorted((rest.throttle_reasons or frozenset()) & THROTTLE_REASONS)
    if reasons or (rest.temperature_c or 0.0) >= _HOT_C:
        state = f"slows itself down ({', '.join(reasons)})" if reasons else "is hot before any work"
        heat = "" if rest.temperature_c is None else f" at {rest.temperature_c:.0f} C"
        yield Finding(
            severity="error" if reasons else "warning",
            what=f"{label} {state}{heat}",
            why="clocks drop while it is too hot or short of power; such trials are invalid",
            fix="improve cooling and power, or wait until it has cooled down",
        )
    if base.ecc_uncorrected:
        yield error(
            what=f"{label}: {base.ecc_uncorrected} uncorrected memory errors since the driver "
            "started",
            why="results may be wrong and kernels may be repeated; the device may be faulty",
            fix=f"{ecc_tool}; reset the device or have it replaced",
        )
    if refused := {**base.refused, **rest.refused}:
        yield note(
            what=f"{label}: the driver gives {refused_words(refused)}",
            why="no device has that, so it counts as not measured and its cells stay blank",
            fix=f"update the driver, or measure on the host of a virtual machine: {tool}",
        )
    limit_w, default_w = base.power_limit_w, base.power_limit_default_w
    least_w = (default_w or 0.0) * (1 - _LIMIT_TOLERANCE_FRAC)
    if limit_w is not None and default_w is not None and limit_w < least_w:
        yield warning(
            what=f"{label} is limited to {limit_w:.0f} W; its default is {default_w:.0f} W",
            why="clocks drop under load, so results compare to no other device of its kind",
            fix=f"{limit_tool} {default_w:.0f}",
        )


def _nvidia_settings(telemetry: Telemetry, *, label: str, smi: str) -> Iterator[Finding]:
    reasons, base = telemetry.sample().throttle_reasons, telemetry.baseline()
    if (base.pcie_width or 0) < (base.pcie_width_max or 0) and base.pcie_width is not None:
        yield warning(
            what=f"{label} has {base.pcie_width} of {base.pcie_width_max} PCIe lanes",
            why="copies between host and device take longer than they should",
            fix="reseat the card or use another slot: sudo lspci -vv | grep -i lnksta",
        )
    if base.has_mig:
        yield warning(
            what=f"{label} is split by MIG",
            why="a slice is a smaller device, and its energy cannot be separated from the others'",
            fix=f"{smi} -mig 0",
        )
    if base.has_persistence is False:
        yield note(
            what=f"{label} has persistence mode off",
            why="the driver unloads between trials: cold starts take seconds longer",
            fix=f"{smi} -pm 1",
        )
    # NVML shows only that a setting limits the clocks, not which.
    if reasons is not None and "app_clocks" in reasons:
        yield note(
            what=f"{label} has its clocks limited by a setting",
            why="steady, but slower than the same device without it: say so when comparing",
            fix=f"{smi} -rgc && {smi} -rac",
        )
    elif reasons is not None:
        clock = base.sm_clock_max_hz
        most = "" if clock is None else f" {clock * 0.75 / 1e6:.0f}"
        yield note(
            what=f"{label} has free clocks",
            why="they follow heat and power, so runs on different days differ by a few percent",
            fix=f"{smi} -lgc{most} (undo: {smi} -rgc)",
        )


def _nvidia_findings(nvml: Any) -> Iterator[Finding]:
    try:
        for index in range(nvml.nvmlDeviceGetCount()):
            telemetry = NvmlTelemetry(nvml, handle=nvml.nvmlDeviceGetHandleByIndex(index))
            label, smi = f"GPU {index} ({telemetry.name})", f"nvidia-smi -i {index}"
            yield from _common_findings(
                telemetry,
                label=label,
                tool=smi,
                ecc_tool=f"{smi} -q -d ECC",
                limit_tool=f"sudo {smi} -pl",
            )
            yield from _nvidia_settings(telemetry, label=label, smi=f"sudo {smi}")
    except nvml.NVMLError as refusal:
        yield warning(
            what=f"NVIDIA's driver refuses to list its devices: {refusal}",
            why="a device that cannot be asked cannot be checked",
            fix="nvidia-smi",
        )
    nvml.nvmlShutdown()


def _amd_findings(smi: Any) -> Iterator[Finding]:
    try:
        handles = list(smi.amdsmi_get_processor_handles())
    except smi.AmdSmiException:
        return
    for index, handle in enumerate(handles):
        yield from _common_findings(
            AmdTelemetry(smi, handle=handle),
            label=f"AMD GPU {index}",
            tool="amd-smi process",
            ecc_tool=f"amd-smi metric -g {index} --ecc",
            limit_tool=f"sudo amd-smi set -g {index} --power-cap",
        )
    smi.amdsmi_shut_down()


def gpu_findings() -> list[Finding]:
    """Report on every device of the drivers present; an empty list without any."""
    nvml, smi = import_nvml(), import_amdsmi()
    nvidia = [] if nvml is None else list(_nvidia_findings(nvml))
    return nvidia + ([] if smi is None else list(_amd_findings(smi)))


def findings(
    *,
    results_dir: Path = Path("results"),
    root: Path = ROOT,
    environ: Mapping[str, str] = os.environ,
) -> list[Finding]:
    """Return all findings, errors first; an empty list when nothing was found."""
    found = [
        *load_findings(),
        *processor_findings(root=root),
        *share_findings(root=root, environ=environ),
        *core_findings(root=root),
        *shared_memory_findings(root=root),
        *disk_findings(results_dir),
        *software_findings(environ),
        *gpu_findings(),
    ]
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))
