"""What others measured and published, from `published.yaml`: facts only, in our own words.

Ratios (two chips in one party's measurement), gaps (training and inference of one net on one chip)
and single figures. Claims and `bench gap` are held against them; nothing in the harness is fitted
to them.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from msgspec import field

from bench.core.errors import DataError
from bench.core.nouns import Chip
from bench.hardware.loader import AboveZero, Citations, Count, Declared, Number, Text, read_document

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


class _Rate(Declared, frozen=True, kw_only=True):
    """Items a second of all devices together, and how many of the gap's unit make up an item."""

    items_per_s: AboveZero | None = None
    units_per_item: AboveZero = 1.0
    dtype: Text
    """Precision of the arithmetic, by the catalogue's name of it where there is one."""


class PublishedGap(Declared, frozen=True, kw_only=True):
    """Training against inference of one net on one chip."""

    id: Text
    net: Text
    chip: Text
    num_devices: Count | None = field(name="devices", default=None)
    unit: Text = field(name="per")
    """What both phases are counted in."""
    train: _Rate
    infer: _Rate
    ratio: AboveZero | None = None
    """Time of training over that of inference, where it is written down without the rates."""
    round: Text
    """Gaps of one round were measured under the same rules, so that chips can be compared."""
    same_as: dict[Text, Text] = {}
    """Workloads whose net and work are these in kind, with the size of each that is nearest."""
    note: Text | None = None
    sources: Citations

    def __post_init__(self) -> None:
        rates = self.train.items_per_s, self.infer.items_per_s
        if rates != (None, None) if self.ratio else None in rates:
            raise ValueError("ratio: needs the rates of both phases, or their ratio instead")

    @property
    def time(self) -> float:
        """Time of training over that of inference, per unit."""
        if self.ratio:
            return self.ratio
        assert self.train.items_per_s and self.infer.items_per_s
        trained = self.train.items_per_s * self.train.units_per_item
        return self.infer.items_per_s * self.infer.units_per_item / trained

    def in_one_precision(self, chips: Mapping[str, Chip]) -> tuple[float, float] | None:
        """Bounds of `time` if inference computed as training does; None where peaks are unknown.

        Narrower numbers speed inference up by the ratio of the peaks at most, and by nothing at
        least.
        """
        if self.train.dtype == self.infer.dtype:
            return self.time, self.time
        chip = chips.get(self.chip)
        wide, narrow = (
            chip.peak_per_s.get(one.dtype) if chip else None for one in (self.train, self.infer)
        )
        if not wide or not narrow:
            return None
        ends = self.time * wide / narrow, self.time
        return min(ends), max(ends)


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
    gaps: tuple[PublishedGap, ...]
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
