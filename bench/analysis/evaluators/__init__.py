"""Tests that claims can name, by name: each declares what it needs and computes cases."""

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

AnyTest = (
    arithmetic.Arithmetic
    | arithmetic.Needs
    | catalogue.CatalogueRatio
    | catalogue.CatalogueWhere
    | catalogue.ExportOutcome
    | communication.CommunicationShare
    | crossover.Crossover
    | links.LinkSlowdown
    | mitigations.Mitigation
    | projection.ProjectedRatio
    | published.PublishedFigureTest
    | published.PublishedRatioTest
    | regions.Region
    | rows.EmulatedSlowdown
    | rows.MeasuredRatio
    | stacking.Stacking
)
