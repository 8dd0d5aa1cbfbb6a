"""Published ratios and figures held against the bounds of a claim."""

from __future__ import annotations

from typing import Literal

from msgspec import field

from bench.analysis.claims.claim import Bounds, ClaimCases, ClaimTest, exactly
from bench.analysis.claims.claims_facts import ClaimFacts
from bench.hardware.loader import Text
from bench.hardware.published import PublishedRatio


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

    def outcome(self, facts: ClaimFacts, *, bounds: Bounds, unit: str) -> ClaimCases:
        """Compute the cases."""
        found = [
            one for one in facts.published.ratios if one.id in self.ids or self._is_of_pair(one)
        ]
        if set(self.ids) - {one.id for one in found} or not found:
            sought = ", ".join(self.ids or self.b)
            return ClaimCases(cases=(), missing=(f"published ratio of {sought}",))
        cases = []
        for one in found:
            value = exactly(one.ratio if self.form == "ratio" else 1.0 / one.ratio)
            note = f"; {one.note}" if one.note else ""
            case = bounds.case(
                value,
                factors=_factors(one),
                unit=unit,
                how=f"speed of {one.num_devices} device{'s' * (one.num_devices > 1)}, "
                f"asked {bounds.words}{note}",
                basis=one.basis,
                source=f"{one.id}: {one.source}",
            )
            cases.append(case)
        return ClaimCases(cases=tuple(cases))

    def _is_of_pair(self, one: PublishedRatio) -> bool:
        is_phase = not self.phases or one.phase in self.phases
        return one.chip_a in self.a and one.chip_b in self.b and is_phase


def _factors(one: PublishedRatio) -> dict[str, str | float]:
    factors: dict[str, str | float] = {
        "net": one.net,
        "phase": one.phase,
        "chips": f"{one.chip_b} over {one.chip_a}",
    }
    return factors | ({"said by": "its vendor"} if one.basis == "vendor" else {})


class PublishedFigureTest(ClaimTest, tag="published-figure", frozen=True, kw_only=True):
    """Hold published figures, by what they are of (`of: {name: id}`), against the bounds.

    `factor` says what the names are: a device, a net.
    """

    factor: Text = "case"
    of: dict[str, Text]
    factors: dict[str, Text] = {}

    def outcome(self, facts: ClaimFacts, *, bounds: Bounds, unit: str) -> ClaimCases:
        """Compute the cases."""
        cases = []
        for name, id in self.of.items():
            figure = facts.published.figure(id)
            value = exactly(figure.value)
            case = bounds.case(
                value,
                factors=self.factors | {self.factor: name},
                unit=figure.unit,
                how=f"{figure.what}, asked {bounds.words}",
                basis=figure.basis,
                source=f"{figure.id}: {figure.source}",
            )
            cases.append(case)
        return ClaimCases(cases=tuple(cases))
