"""Tests that claims can name, by name: each declares what it needs and computes cases."""

from bench.analysis.claims.evaluators import (
    arithmetic_claims,
    chip_claims,
    crossover_claims,
    exchange_claims,
    link_claims,
    measured_claims,
    mitigation_claims,
    projection_claims,
    published_claims,
    region_claims,
    stacking_claims,
)

AnyTest = (
    arithmetic_claims.Arithmetic
    | arithmetic_claims.Needs
    | chip_claims.CatalogueRatio
    | chip_claims.CatalogueWhere
    | chip_claims.ExportOutcome
    | exchange_claims.CommunicationShare
    | crossover_claims.Crossover
    | link_claims.LinkSlowdown
    | mitigation_claims.MitigationShare
    | projection_claims.ProjectedRatio
    | published_claims.PublishedFigureTest
    | published_claims.PublishedRatioTest
    | region_claims.Region
    | measured_claims.EmulatedSlowdown
    | measured_claims.MeasuredRatio
    | stacking_claims.Stacking
)
