"""What the catalogue alone says: ratios of figures, conditions on rows, export rules replayed."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from bench.analysis.claims.claim import Bounds, Case, ClaimCases, ClaimTest, exactly
from bench.analysis.claims.claims_facts import ClaimFacts
from bench.core.nouns import Chip
from bench.core.units import format_number
from bench.hardware.export_rules import (
    export_rule,
    is_caught,
    performance_density,
    total_processing_performance,
)
from bench.hardware.loader import Text
from bench.hardware.query import chip_fields, parse_conditions, test_conditions

Pair = Annotated[str, Meta(pattern=r"^\S+ +\S+$")]
"""Two ids."""


class CatalogueRatio(ClaimTest, tag="catalogue-ratio", frozen=True, kw_only=True):
    """Compare `fields` of chip b with those of chip a for each of `pairs` ('a b').

    `as: drop` takes 1 - b/a. `beside` has pairs that are shown without a say.
    """

    pairs: tuple[Pair, ...]
    beside: tuple[Pair, ...] = ()
    fields: tuple[Text, ...]
    form: Literal["ratio", "drop"] = field(name="as", default="ratio")

    def outcome(self, facts: ClaimFacts, *, bounds: Bounds, unit: str) -> ClaimCases:
        """Compute the cases."""
        cases, missing = [], []
        for pair in (*self.pairs, *self.beside):
            name_a, name_b = pair.split()
            fields_a, fields_b = (chip_fields(facts.chips[name]) for name in (name_a, name_b))
            for name in self.fields:
                a, b = fields_a.get(name), fields_b.get(name)
                if not isinstance(a, int | float) or not isinstance(b, int | float) or not a:
                    missing.append(f"{name} of {name_a} or {name_b} is not public")
                    continue
                value = exactly(b / a if self.form == "ratio" else 1.0 - b / a)
                case = bounds.case(
                    value,
                    factors={"chips": f"{name_b} over {name_a}", "figure": name},
                    unit=unit,
                    how=f"{name}: {format_number(b)} over {format_number(a)}"
                    + (", 1 minus it" if self.form == "drop" else ""),
                    basis="specification",
                    source=_sources(facts.chips[name_a], facts.chips[name_b]),
                    counts=pair in self.pairs,
                )
                cases.append(case)
        return ClaimCases(cases=tuple(cases), missing=tuple(missing))


def _sources(*chips: Chip) -> str:
    return "; ".join(dict.fromkeys(source for chip in chips for source in chip.sources[:2]))


class CatalogueWhere(ClaimTest, tag="catalogue-where", frozen=True, kw_only=True):
    """Ask the comparisons of `where`, as `bench list chips --where` does, of each of `chips`."""

    chips: tuple[Text, ...]
    where: Text

    def __post_init__(self) -> None:
        parse_conditions(self.where)

    def outcome(self, facts: ClaimFacts, *, bounds: Bounds, unit: str) -> ClaimCases:
        """Compute the cases."""
        conditions = parse_conditions(self.where)
        cases, missing = [], []
        for name in self.chips:
            holds, unknown = test_conditions(chip_fields(facts.chips[name]), conditions=conditions)
            if holds is None:
                missing.append(f"{' and '.join(sorted(unknown))} of {name} is not public")
                continue
            cases.append(
                Case(
                    factors={"chip": name},
                    holds=holds,
                    value=None,
                    unit="",
                    how=f"{self.where}: {'yes' if holds else 'no'}",
                    basis="specification",
                    source=_sources(facts.chips[name]),
                )
            )
        return ClaimCases(cases=tuple(cases), missing=tuple(missing))


class ExportOutcome(ClaimTest, tag="export-outcome", frozen=True, kw_only=True):
    """Replay `rule` over chips that it is said to catch (`caught`) and to pass (`passed`)."""

    rule: Text
    caught: tuple[Text, ...] = ()
    passed: tuple[Text, ...] = ()

    def __post_init__(self) -> None:
        export_rule(self.rule)
        if not self.caught and not self.passed:
            raise ValueError("caught: neither caught nor passed names a chip")

    def outcome(self, facts: ClaimFacts, *, bounds: Bounds, unit: str) -> ClaimCases:
        """Compute the cases."""
        cases, missing = [], []
        rule = export_rule(self.rule)
        expected = dict.fromkeys(self.caught, True) | dict.fromkeys(self.passed, False)
        for name, should in expected.items():
            chip = facts.chips[name]
            outcome = is_caught(rule, chip=chip)
            if outcome is None:
                missing.append(f"{rule.id} turns on a figure of {name} that is not public")
                continue
            cases.append(
                Case(
                    factors={"chip": name, "rule": rule.id},
                    holds=outcome == should,
                    value=None,
                    unit="",
                    how=_replay_words(chip, outcome=outcome, should=should),
                    basis="specification",
                    source=rule.sources[0],
                )
            )
        return ClaimCases(cases=tuple(cases), missing=tuple(missing))


def _replay_words(chip: Chip, *, outcome: bool, should: bool) -> str:
    tpp, density = total_processing_performance(chip), performance_density(chip)
    link = chip.facts.get("link_bytes_per_s")
    told = [
        "" if tpp is None else f"total processing performance {tpp:.0f}",
        "" if density is None else f"density {density:.2f}",
        f"link {2 * link / 1e9:.0f} GB/s both ways" if isinstance(link, int | float) else "",
    ]
    words = {True: "caught", False: "passed"}
    agreed = "as said" if outcome == should else f"but said to be {words[should]}"
    return f"{words[outcome]}, {agreed}: {', '.join(part for part in told if part)}"
