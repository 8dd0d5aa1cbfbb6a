"""Published ratios and figures held against the bounds of a claim."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from msgspec import field

from bench.analysis.claims.claim_cases import ClaimCase, ClaimTest, span_of
from bench.analysis.claims.claims_facts import ClaimFacts
from bench.hardware.loader import Text


class PublishedRatioTest(ClaimTest, tag="published-ratio", frozen=True, kw_only=True):
    """Take ratios of `a` and `b` (ids, several allowed), in `phases`, or those in `ids`.

    `as: count` takes 1 / ratio: how many b replace one a.
    """

    ids: tuple[Text, ...] = ()
    phases: tuple[Text, ...] = ()
    a: tuple[Text, ...] = ()
    b: tuple[Text, ...] = ()
    form: Literal["ratio", "count"] = field(name="as", default="ratio")

    def __post_init__(self) -> None:
        if not self.ids and not (self.a and self.b):
            raise ValueError("by: needs ids, or a and b")

    def cases(self, facts: ClaimFacts) -> Iterator[ClaimCase | str]:
        """One case for each ratio."""
        found = [
            one
            for one in facts.published.ratios
            if one.id in self.ids
            or (one.chip_a in self.a and one.chip_b in self.b
                and (not self.phases or one.phase in self.phases))
        ]  # fmt: skip
        if set(self.ids) - {one.id for one in found} or not found:
            yield f"published ratio of {', '.join(self.ids or self.b)}"
            return
        for one in found:
            vendor = {"said by": "its vendor"} if one.basis == "vendor" else {}
            yield ClaimCase(
                value=span_of(one.ratio if self.form == "ratio" else 1.0 / one.ratio),
                factors={"net": one.net, "phase": one.phase,
                         "chips": f"{one.chip_b} over {one.chip_a}", **vendor},
                how=f"speed of {one.num_devices} device{'s' * (one.num_devices > 1)}"
                + (f"; {one.note}" if one.note else ""),
                basis=one.basis,
                source=f"{one.id}: {one.source}",
            )  # fmt: skip


class PublishedFigureTest(ClaimTest, tag="published-figure", frozen=True, kw_only=True):
    """Hold published figures, by what they are of (`of: {name: id}`), against the bounds.

    `factor` says what the names are: a device, a net.
    """

    factor: Text = "case"
    of: dict[str, Text]
    factors: dict[str, Text] = {}

    def cases(self, facts: ClaimFacts) -> Iterator[ClaimCase | str]:
        """One case for each figure."""
        for name, id in self.of.items():
            figure = facts.published.figure(id)
            yield ClaimCase(
                value=span_of(figure.value),
                factors=self.factors | {self.factor: name},
                unit=figure.unit,
                how=figure.what,
                basis=figure.basis,
                source=f"{figure.id}: {figure.source}",
            )
