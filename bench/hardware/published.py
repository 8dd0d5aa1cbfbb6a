"""Published ratios and figures that claims are held against, each with its public source.

Facts only, in our own words: who measured what on what, and how much it was. A ratio is of two
chips in one party's measurement; a figure is a single value. Nothing in the harness is fitted to
them.
"""

from functools import cache
from pathlib import Path
from typing import Any, Literal

from msgspec import field

from bench.core.errors import DataError
from bench.hardware.chips import load_chips
from bench.hardware.loader import Count, Declared, Number, Text, read_document

Basis = Literal["published", "vendor"]
"""published: measured, and open to a check by others; vendor: said by whom it is to sell."""


class PublishedRatio(Declared, frozen=True, kw_only=True):
    """Speed of chip b over that of chip a on one net, by one party or in one round."""

    id: Text
    chip_a: Text = field(name="a")
    chip_b: Text = field(name="b")
    phase: Text
    net: Text
    num_devices: Count = field(name="devices")
    ratio: Number
    basis: Basis = "published"
    note: Text | None = None
    source: Text

    def __post_init__(self) -> None:
        for name in (self.chip_a, self.chip_b):
            if name not in {chip.id for chip in load_chips()}:
                raise ValueError(f"chip {name!r} is not in the catalogue")


class PublishedFigure(Declared, frozen=True, kw_only=True):
    """One value."""

    id: Text
    what: Text
    value: Number
    unit: Text
    basis: Basis = "published"
    source: Text


class Published(Declared, frozen=True, kw_only=True):
    """Everything in `published.yaml`."""

    sources: dict[str, Any]
    ratios: tuple[PublishedRatio, ...]
    figures: tuple[PublishedFigure, ...]

    def figure(self, id: str) -> PublishedFigure:
        """Return one figure; `DataError` where a ledger names one that is not there."""
        for figure in self.figures:
            if figure.id == id:
                return figure
        raise DataError(f"published figure {id!r} is not in published.yaml")


@cache
def load_published() -> Published:
    """Return what ships with the harness, read once per process."""
    return read_document(Path(__file__).with_name("published.yaml"), into=Published)
