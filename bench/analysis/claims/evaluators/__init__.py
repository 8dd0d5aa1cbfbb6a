"""Tests that claims can name, by name: each declares what it needs and computes cases."""

from bench.analysis.claims.evaluators import (
    catalogue_claims,
    link_claims,
    measured_claims,
    projection_claims,
)

AnyTest = (
    catalogue_claims.Arithmetic
    | catalogue_claims.Needs
    | catalogue_claims.CatalogueRatio
    | catalogue_claims.CatalogueWhere
    | catalogue_claims.ExportOutcome
    | catalogue_claims.PublishedFigureTest
    | catalogue_claims.PublishedRatioTest
    | link_claims.CommunicationShare
    | link_claims.LinkSlowdown
    | link_claims.MitigationShare
    | link_claims.Region
    | measured_claims.EmulatedSlowdown
    | measured_claims.MeasuredRatio
    | projection_claims.Crossover
    | projection_claims.ProjectedRatio
    | projection_claims.Stacking
)
