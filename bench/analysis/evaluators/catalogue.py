"""What the catalogue alone says: ratios of figures, conditions on rows, export rules replayed."""

from __future__ import annotations

from bench.analysis.claims import Bounds, Case, Evaluate, Outcome, exactly
from bench.analysis.claims_facts import Facts
from bench.core.nouns import Chip
from bench.core.units import format_number
from bench.hardware.export_rules import (
    export_rule,
    is_caught,
    performance_density,
    total_processing_performance,
)
from bench.hardware.loader import Row
from bench.hardware.query import chip_fields, parse_conditions, test_conditions


def catalogue_ratio(row: Row, bounds: Bounds, unit: str) -> Evaluate:
    """Compare `fields` of chip b with those of chip a for each of `pairs` ('a b').

    `as: drop` takes 1 - b/a. `beside` has pairs that are shown without a say.
    """
    pairs = [(*_pair(text, row), True) for text in row.texts("pairs", required=True)]
    pairs += [(*_pair(text, row), False) for text in row.texts("beside")]
    fields = row.texts("fields", required=True)
    form = row.text("as") or "ratio"
    if form not in ("ratio", "drop"):
        raise row.complain("as", f"{form!r} is not ratio or drop")

    def evaluate(facts: Facts) -> Outcome:
        cases, missing = [], []
        for name_a, name_b, counts in pairs:
            fields_a, fields_b = (chip_fields(facts.chips[name]) for name in (name_a, name_b))
            for field in fields:
                a, b = fields_a.get(field), fields_b.get(field)
                if not isinstance(a, int | float) or not isinstance(b, int | float) or not a:
                    missing.append(f"{field} of {name_a} or {name_b} is not public")
                    continue
                value = exactly(b / a if form == "ratio" else 1.0 - b / a)
                case = Case(
                    factors={"chips": f"{name_b} over {name_a}", "figure": field},
                    holds=bounds.holds(value),
                    value=value,
                    unit=unit,
                    how=f"{field}: {format_number(b)} over {format_number(a)}"
                    + (", 1 minus it" if form == "drop" else ""),
                    basis="specification",
                    source=_sources(facts.chips[name_a], facts.chips[name_b]),
                    counts=counts,
                )
                cases.append(case)
        return Outcome(cases=tuple(cases), missing=tuple(missing))

    return evaluate


def _pair(text: str, row: Row) -> tuple[str, str]:
    parts = text.split()
    if len(parts) != 2:
        raise row.complain("pairs", f"{text!r} is not two ids")
    return parts[0], parts[1]


def _sources(*chips: Chip) -> str:
    return "; ".join(dict.fromkeys(source for chip in chips for source in chip.sources[:2]))


def catalogue_where(row: Row, bounds: Bounds, unit: str) -> Evaluate:
    """Ask the comparisons of `where`, as `bench list chips --where` does, of each of `chips`."""
    names, condition = row.texts("chips", required=True), row.need_text("where")
    conditions = parse_conditions(condition)

    def evaluate(facts: Facts) -> Outcome:
        cases, missing = [], []
        for name in names:
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
                    how=f"{condition}: {'yes' if holds else 'no'}",
                    basis="specification",
                    source=_sources(facts.chips[name]),
                )
            )
        return Outcome(cases=tuple(cases), missing=tuple(missing))

    return evaluate


def export_outcome(row: Row, bounds: Bounds, unit: str) -> Evaluate:
    """Replay `rule` over chips that it is said to catch (`caught`) and to pass (`passed`)."""
    rule = export_rule(row.need_text("rule"))
    expected = dict.fromkeys(row.texts("caught"), True) | dict.fromkeys(row.texts("passed"), False)
    if not expected:
        raise row.complain("caught", "neither caught nor passed names a chip")

    def evaluate(facts: Facts) -> Outcome:
        cases, missing = [], []
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
        return Outcome(cases=tuple(cases), missing=tuple(missing))

    return evaluate


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
