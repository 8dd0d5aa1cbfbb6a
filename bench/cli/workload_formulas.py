"""What the shipped workloads compute, by their own formulas, for claims that turn on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.analysis.claims.claim_cases import PhaseWork


def work_of(size: str, workload: str | None, settings: Mapping[str, str]) -> list[PhaseWork]:
    """Phases of one workload with settings, or of all that have the size, but served ones.

    `UsageError` for a workload or a setting that is not there.
    """
    from bench import discovery
    from bench.analysis.claims.claim_cases import PhaseWork

    found = [discovery.load(name) for name in ([workload] if workload else discovery.names())]
    works = []
    for one in found:
        if one.cls.domain == "selftest" or (workload is None and size not in one.cls.sizes):
            continue
        built = discovery.instance(one, size=size, overrides=dict(settings))
        for phase in (phase for phase in one.cls.phases if not phase.is_served):
            elements = built.elements(phase, None)
            works.append(
                PhaseWork(
                    net=one.name,
                    domain=one.cls.domain,
                    phase=phase.name,
                    is_training=phase.is_training,
                    items_unit=phase.item,
                    elements_unit=phase.element or "",
                    elements_per_item=elements and elements / built.items(phase, None),
                    flops_per_item=built.flops_per_item(phase),
                )
            )
    return works
