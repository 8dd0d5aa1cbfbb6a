"""Ratios of two catalogue chips, projected workload by workload from the counted operators.

The intervals are those of `bench project --score`: achieved shares, kinship of the two chips and
what the roofs leave open. Nothing is measured here, and every case says projected.
"""

from __future__ import annotations

from bench.analysis.claims import Bounds, Case, Evaluate, Outcome, Span
from bench.analysis.claims_facts import Facts
from bench.analysis.projection_model import scale
from bench.analysis.projection_roofs import Unknown, catalogue_roofs
from bench.analysis.projection_sampling import Estimate, draws, estimate
from bench.core.nouns import Chip
from bench.hardware.loader import Row
from bench.hardware.operator_mixes import load_mixes


def speed_ratio(one: Chip, two: Chip, *, mix: str, dtype: str) -> Estimate | Unknown:
    """Speed of chip two over chip one on the operators of a shipped workload."""
    operators = next(known.operators for known in load_mixes() if known.id == mix)
    source, target = (catalogue_roofs(chip, dtype=dtype) for chip in (one, two))
    for roofs in (source, target):
        if isinstance(roofs, Unknown):
            return roofs
    assert not isinstance(source, Unknown) and not isinstance(target, Unknown)
    scaled = scale(operators, source=source, target=target, dtype=dtype, unknown=draws())
    return estimate(scaled.ratio, middle=scaled.ratio_alike).inverse()


def check_mixes(row: Row, names: tuple[str, ...]) -> None:
    """Refuse a workload whose operators do not ship."""
    known = [mix.id for mix in load_mixes()]
    for name in names:
        if name not in known:
            raise row.complain("mixes", f"{name!r} is not one of {', '.join(known)}")


def projected_ratio(row: Row, bounds: Bounds, unit: str) -> Evaluate:
    """Project `mixes` from chip `a` to each of `b`; `times` multiplies (a network's gain)."""
    a, b, mixes = row.need_text("a"), row.texts("b", required=True), row.texts("mixes")
    check_mixes(row, mixes)
    dtype = row.text("dtype") or "bf16"
    counts = row.flag("counts") is not False

    def evaluate(facts: Facts) -> Outcome:
        cases, missing = [], []
        for name in b:
            for mix in mixes:
                told = speed_ratio(facts.chips[a], facts.chips[name], mix=mix, dtype=dtype)
                if isinstance(told, Unknown):
                    missing.append(f"{a} or {name}: {told.reason}")
                    continue
                value = Span(low=told.low, mid=told.mid, high=told.high)
                case = Case(
                    factors={
                        "workload": mix.rpartition("-")[0],
                        "chips": f"{name} over {a}",
                    },
                    holds=bounds.holds(value),
                    value=value,
                    unit=unit,
                    how=f"speed on the operators of {mix} in {dtype}, asked {bounds.words}",
                    basis="projected",
                    source="catalogue peaks, achieved shares and counted operators",
                    counts=counts,
                )
                cases.append(case)
        return Outcome(cases=tuple(cases), missing=tuple(dict.fromkeys(missing)))

    return evaluate
