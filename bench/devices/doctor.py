"""Everything about this machine that may spoil a measurement, worst first.

Observes and changes nothing. Takes about a second, most of it watching who else is busy, and needs
no torch: what a torch build and a driver make of each other is not looked at here.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from bench.devices import host_findings as host
from bench.devices.cgroup import ROOT
from bench.devices.finding import SEVERITIES, Finding
from bench.devices.gpu_findings import gpu_findings
from bench.devices.load_findings import load_findings


def findings(
    *,
    results_dir: Path = Path("results"),
    root: Path = ROOT,
    environ: Mapping[str, str] | None = None,
    watch_s: float = 1.0,
) -> list[Finding]:
    """Return all findings, errors first; an empty list when nothing was found."""
    settings = [
        host.governor_finding(root=root),
        host.turbo_finding(root=root),
        host.huge_pages_finding(root=root),
        host.smt_finding(root=root),
        host.quota_finding(root=root),
        host.swap_finding(),
        host.memory_finding(root=root),
        host.disk_finding(results_dir),
        host.container_finding(root=root),
        host.torchvision_finding(),
    ]
    found = [
        *load_findings(root=root, watch_s=watch_s),
        *(finding for finding in settings if finding is not None),
        *host.variable_findings(os.environ if environ is None else environ),
        *gpu_findings(),
    ]
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))
