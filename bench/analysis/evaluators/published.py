"""Published ratios and figures held against the bounds of a claim."""

from __future__ import annotations

from bench.analysis.claims import Basis, Bounds, Case, Evaluate, Outcome, exactly
from bench.analysis.claims_facts import Facts
from bench.hardware.loader import Row
from bench.hardware.published import PublishedRatio

_BASIS: dict[str, Basis] = {"published": "published", "vendor": "vendor"}


def published_ratio(row: Row, bounds: Bounds, unit: str) -> Evaluate:
    """Take ratios of `a` and `b` (ids, several allowed), in `phases`, or those in `ids`.

    `as: count` takes 1 / ratio: how many b replace one a.
    """
    ids, phases = row.texts("ids"), row.texts("phases")
    a, b = row.texts("a"), row.texts("b")
    form = row.text("as") or "ratio"
    if form not in ("ratio", "count") or not (ids or (a and b)):
        raise row.complain("by", "needs ids, or a and b; as is ratio or count")

    def evaluate(facts: Facts) -> Outcome:
        found = [
            one
            for one in facts.published.ratios
            if one.id in ids
            or (one.chip_a in a and one.chip_b in b and (not phases or one.phase in phases))
        ]
        if len(ids) > len([one for one in found if one.id in ids]) or not found:
            return Outcome(cases=(), missing=(f"published ratio of {', '.join(ids or b)}",))
        cases = []
        for one in found:
            value = exactly(one.ratio if form == "ratio" else 1.0 / one.ratio)
            note = f"; {one.note}" if one.note else ""
            case = Case(
                factors=_factors(one),
                holds=bounds.holds(value),
                value=value,
                unit=unit,
                how=f"speed of {one.num_devices} device{'s' * (one.num_devices > 1)}, "
                f"asked {bounds.words}{note}",
                basis=_BASIS[one.basis],
                source=f"{one.id}: {one.source}",
            )
            cases.append(case)
        return Outcome(cases=tuple(cases))

    return evaluate


def _factors(one: PublishedRatio) -> dict[str, str | float]:
    factors: dict[str, str | float] = {
        "net": one.net,
        "phase": one.phase,
        "chips": f"{one.chip_b} over {one.chip_a}",
    }
    return factors | ({"said by": "its vendor"} if one.basis == "vendor" else {})


def published_figure(row: Row, bounds: Bounds, unit: str) -> Evaluate:
    """Hold published figures, by what they are of (`of: {name: id}`), against the bounds.

    `factor` says what the names are: a device, a net.
    """
    factor, of = row.text("factor") or "case", row.child("of", required=True)
    ids = {name: of.need_text(name) for name in of.keys()}  # noqa: SIM118
    factors = row.child("factors")
    fixed: dict[str, str | float] = {name: factors.need_text(name) for name in factors.keys()}  # noqa: SIM118

    def evaluate(facts: Facts) -> Outcome:
        cases = []
        for name, id in ids.items():
            figure = facts.published.figure(id)
            value = exactly(figure.value)
            case = Case(
                factors=fixed | {factor: name},
                holds=bounds.holds(value),
                value=value,
                unit=figure.unit,
                how=f"{figure.what}, asked {bounds.words}",
                basis=_BASIS[figure.basis],
                source=f"{figure.id}: {figure.source}",
            )
            cases.append(case)
        return Outcome(cases=tuple(cases))

    return evaluate
