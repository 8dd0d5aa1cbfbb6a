"""Tests that claims can name, by name: each reads its parameters once and computes cases.

An evaluator takes the test's block of the ledger, the bounds inside which a figure makes the claim
true, and the unit; it returns a function of the facts. It never knows which claim it serves.
"""

from __future__ import annotations

from collections.abc import Callable

from bench.analysis.claims import Bounds, Evaluate
from bench.analysis.evaluators import (
    arithmetic,
    catalogue,
    communication,
    crossover,
    links,
    mitigations,
    projection,
    published,
    regions,
    rows,
    stacking,
)
from bench.hardware.loader import Row

EVALUATORS: dict[str, Callable[[Row, Bounds, str], Evaluate]] = {
    "arithmetic": arithmetic.arithmetic,
    "catalogue-ratio": catalogue.catalogue_ratio,
    "catalogue-where": catalogue.catalogue_where,
    "communication-share": communication.communication_share,
    "crossover": crossover.crossover,
    "emulated-slowdown": rows.emulated_slowdown,
    "export-outcome": catalogue.export_outcome,
    "link-slowdown": links.link_slowdown,
    "measured-ratio": rows.measured_ratio,
    "mitigation": mitigations.mitigation,
    "needs": arithmetic.needs,
    "projected-ratio": projection.projected_ratio,
    "published-figure": published.published_figure,
    "published-ratio": published.published_ratio,
    "region": regions.region,
    "stacking": stacking.stacking,
}
