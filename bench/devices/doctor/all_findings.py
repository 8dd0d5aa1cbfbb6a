"""Everything about this machine that may spoil a measurement, worst first.

Observes and changes nothing. Takes about a second, most of it watching who else is busy, and needs
no torch: what a torch build and a driver make of each other is not looked at here.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from bench.devices.doctor.finding import SEVERITIES, Finding
from bench.devices.doctor.gpu_findings import gpu_findings
from bench.devices.doctor.host_findings import (
    disk_findings,
    load_findings,
    processor_findings,
    share_findings,
    software_findings,
)
from bench.devices.host.cgroup import ROOT


def findings(
    *,
    results_dir: Path = Path("results"),
    root: Path = ROOT,
    environ: Mapping[str, str] = os.environ,
) -> list[Finding]:
    """Return all findings, errors first; an empty list when nothing was found."""
    found = [
        *load_findings(root),
        *processor_findings(root=root),
        *share_findings(root=root, environ=environ),
        *disk_findings(results_dir),
        *software_findings(environ),
        *gpu_findings(),
    ]
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))
