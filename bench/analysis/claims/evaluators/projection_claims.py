"""Ratios of two catalogue chips, projected workload by workload from the counted operators.

The intervals are those of `bench project --score`: achieved shares, kinship of the two chips and
what the roofs leave open. Nothing is measured here, and every case says projected.
"""

from __future__ import annotations

from bench.analysis.claims.claim import Bounds, ClaimCases, ClaimTest, Span
from bench.analysis.claims.claims_facts import ClaimFacts
from bench.analysis.projection.roofs import Unknown, catalogue_roofs
from bench.analysis.projection.sampling import Estimate, draws, estimate
from bench.analysis.projection.scaled_operators import scale
from bench.core.nouns import Chip
from bench.hardware.loader import Text
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


def check_mixes(names: tuple[str, ...]) -> None:
    """Refuse a workload whose operators do not ship."""
    known = [mix.id for mix in load_mixes()]
    for name in names:
        if name not in known:
            raise ValueError(f"mixes: {name!r} is not one of {', '.join(known)}")


class ProjectedRatio(ClaimTest, tag="projected-ratio", frozen=True, kw_only=True):
    """Project `mixes` from chip `a` to each of `b`."""

    a: Text
    b: tuple[Text, ...]
    mixes: tuple[Text, ...] = ()
    dtype: Text = "bf16"
    counts: bool = True

    def __post_init__(self) -> None:
        check_mixes(self.mixes)

    def outcome(self, facts: ClaimFacts, *, bounds: Bounds, unit: str) -> ClaimCases:
        """Compute the cases."""
        cases, missing = [], []
        one = facts.chips[self.a]
        for name in self.b:
            for mix in self.mixes:
                told = speed_ratio(one, facts.chips[name], mix=mix, dtype=self.dtype)
                if isinstance(told, Unknown):
                    missing.append(f"{self.a} or {name}: {told.reason}")
                    continue
                value = Span(low=told.low, mid=told.mid, high=told.high)
                case = bounds.case(
                    value,
                    factors={
                        "workload": mix.rpartition("-")[0],
                        "chips": f"{name} over {self.a}",
                    },
                    unit=unit,
                    how=f"speed on the operators of {mix} in {self.dtype}, asked {bounds.words}",
                    basis="projected",
                    source="catalogue peaks, achieved shares and counted operators",
                    counts=self.counts,
                )
                cases.append(case)
        return ClaimCases(cases=tuple(cases), missing=tuple(dict.fromkeys(missing)))
