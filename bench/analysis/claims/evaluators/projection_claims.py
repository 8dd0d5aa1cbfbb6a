"""Ratios of two catalogue chips, projected workload by workload from the counted operators.

The intervals are those of `bench project --score`: achieved shares, relatedness of the two chips
and what the roofs leave open. Nothing is measured here, and every case says projected.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.analysis.claims.claim_cases import ClaimCase, ClaimTest, span_of
from bench.analysis.claims.claims_facts import ClaimFacts
from bench.analysis.projection.roofs import Unknown, catalogue_roofs
from bench.analysis.projection.sampling import Estimate, draws, estimate
from bench.analysis.projection.scaled_operators import scale
from bench.core.nouns import Chip
from bench.hardware.loader import Text
from bench.hardware.operators import Mix, load_mixes


def mix_named(name: str) -> Mix:
    """Operators of a shipped workload; `ValueError` where they do not ship."""
    mixes = {mix.id: mix for mix in load_mixes()}
    if name not in mixes:
        raise ValueError(f"mixes: {name!r} is not one of {', '.join(mixes)}")
    return mixes[name]


def speed_ratio(one: Chip, two: Chip, *, mix: str, dtype: str) -> Estimate | Unknown:
    """Speed of chip two over chip one on the operators of a shipped workload."""
    source, target = (catalogue_roofs(chip, dtype=dtype) for chip in (one, two))
    if isinstance(source, Unknown):
        return source
    if isinstance(target, Unknown):
        return target
    operators = mix_named(mix).operators
    scaled = scale(operators, source=source, target=target, dtype=dtype, unknown=draws())
    return estimate(scaled.ratio, middle=scaled.ratio_alike).inverse()


class ProjectedRatio(ClaimTest, tag="projected-ratio", frozen=True, kw_only=True):
    """Project `mixes` from chip `a` to each of `b`."""

    a: Text
    b: tuple[Text, ...]
    mixes: tuple[Text, ...] = ()
    dtype: Text = "bf16"
    counts: bool = True

    def __post_init__(self) -> None:
        for name in self.mixes:
            mix_named(name)

    def cases(self, facts: ClaimFacts) -> Iterator[ClaimCase | str]:
        """One case for each chip and workload."""
        for name, mix in ((name, mix) for name in self.b for mix in self.mixes):
            speed = speed_ratio(facts.chips[self.a], facts.chips[name], mix=mix, dtype=self.dtype)
            if isinstance(speed, Unknown):
                yield f"{self.a} or {name}: {speed.reason}"
                continue
            yield ClaimCase(
                value=span_of(speed.mid, speed.low, speed.high),
                factors={"workload": mix.rpartition("-")[0], "chips": f"{name} over {self.a}"},
                how=f"speed on the operators of {mix} in {self.dtype}",
                basis="projected",
                source="catalogue peaks, achieved shares and counted operators",
                counts=self.counts,
            )
