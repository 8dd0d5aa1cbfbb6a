"""Published ratios and figures that claims are held against, each with its public source.

Facts only, in our own words: who measured what on what, and how much it was. A ratio is of two
chips in one party's measurement; a figure is a single value. Nothing in the harness is fitted to
them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.core.errors import DataError
from bench.hardware.chips import chip
from bench.hardware.loader import Row, load_rows, read_document
from bench.hardware.sources import load_sources, take_sources

BASES = ("published", "vendor")
"""published: measured, and open to a check by others; vendor: said by whom it is to sell."""


@dataclass(frozen=True, kw_only=True)
class PublishedRatio:
    """Speed of chip b over that of chip a on one net, by one party or in one round."""

    id: str
    chip_a: str
    chip_b: str
    phase: str
    net: str
    num_devices: int
    ratio: float
    basis: str
    note: str | None
    source: str


@dataclass(frozen=True, kw_only=True)
class PublishedFigure:
    """One value."""

    id: str
    what: str
    value: float
    unit: str
    basis: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Published:
    """Everything in `published.yaml`."""

    ratios: tuple[PublishedRatio, ...]
    figures: tuple[PublishedFigure, ...]

    def figure(self, id: str) -> PublishedFigure:
        """Return one figure; `DataError` where a ledger names one that is not there."""
        for figure in self.figures:
            if figure.id == id:
                return figure
        raise DataError(f"published figure {id!r} is not in published.yaml")


def _ratio(row: Row, *, sources: dict[str, str]) -> PublishedRatio:
    ratio, devices = row.number("ratio", required=True), row.count("devices", required=True)
    assert ratio is not None and devices is not None
    return PublishedRatio(
        id=row.need_text("id"),
        chip_a=chip(row.need_text("a")).id,
        chip_b=chip(row.need_text("b")).id,
        phase=row.need_text("phase"),
        net=row.need_text("net"),
        num_devices=devices,
        ratio=ratio,
        basis=row.choice("basis", allowed=BASES) if "basis" in row.keys() else "published",  # noqa: SIM118
        note=row.text("note"),
        source=take_sources(row, sources=sources, key="source")[0],
    )


def _figure(row: Row, *, sources: dict[str, str]) -> PublishedFigure:
    value = row.number("value", required=True)
    assert value is not None
    return PublishedFigure(
        id=row.need_text("id"),
        what=row.need_text("what"),
        value=value,
        unit=row.need_text("unit"),
        basis=row.choice("basis", allowed=BASES) if "basis" in row.keys() else "published",  # noqa: SIM118
        source=take_sources(row, sources=sources, key="source")[0],
    )


def parse_published(document: Row) -> Published:
    """Build ratios and figures from a parsed document."""
    sources = load_sources(document)
    ratios = load_rows(document.rows("ratios"), build=lambda row: _ratio(row, sources=sources))
    figures = load_rows(document.rows("figures"), build=lambda row: _figure(row, sources=sources))
    document.finish()
    return Published(ratios=ratios, figures=figures)


@cache
def load_published() -> Published:
    """Return what ships with the harness, read once per process."""
    return parse_published(read_document(Path(__file__).with_name("published.yaml")))
