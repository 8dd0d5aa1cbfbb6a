"""How much of what a narrow link costs each workaround wins back, by formula; time only.

Data parallelism: overlap, accumulation, fewer bytes, rarer exchange. Tensor parallelism sends
activations inside every layer, which none of these touches. What a workaround does to learning is
measured elsewhere, on real ranks.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.analysis.claims.claim import Bounds, Case, ClaimCases, exactly
from bench.analysis.claims.claims_facts import ClaimFacts
from bench.analysis.claims.evaluators.link_claims import EndModel, LinkPlan, Spanned
from bench.hardware.costs.cost import CostModel
from bench.hardware.costs.layouts import StepTime, data_parallel_step
from bench.hardware.loader import AboveZero, Declared, Number


class _Method(Declared, frozen=True, kw_only=True):
    """What a workaround does to the exchange of gradients."""

    steps: AboveZero = 1.0
    """Steps of compute for one exchange."""
    bytes_fraction: AboveZero = 1.0
    overlap: bool = False


class MitigationShare(LinkPlan, tag="mitigation", frozen=True, kw_only=True):
    """Share of the slowdown from `wide` to `narrow` that each of `methods` takes away.

    `methods: {name: {steps: 4, bytes_fraction: 0.5, overlap: yes}}`; the layouts are those of
    link-slowdown. A layout without a slowdown of `least` (a share) has nothing to win back.
    """

    least: Number = 0.01
    methods: dict[str, _Method]

    def outcome(self, facts: ClaimFacts, *, bounds: Bounds, unit: str) -> ClaimCases:
        """Compute the cases."""
        base, limited = EndModel(self.wide), EndModel(self.narrow)

        def cases(one: Spanned) -> Iterator[Case]:
            fast_s, slow = one.step(base).seconds, one.step(limited)
            lost_s = slow.seconds - fast_s
            if lost_s < self.least * fast_s:
                return
            for name, method in self.methods.items():
                remedied_s, why = _remedied(one, slow, method=method, model=limited)
                value = exactly((slow.seconds - remedied_s) / lost_s)
                how = (
                    f"step {fast_s * 1e3:.3g} ms on {self.wide}, {slow.seconds * 1e3:.3g} on "
                    f"{self.narrow}, {remedied_s * 1e3:.3g} with {name} ({why})"
                )
                factors = {"method": name, **one.factors}
                yield self.case(factors, value, how=how, bounds=bounds, unit=unit)

        return self.spanned(facts, cases)


def _remedied(
    one: Spanned, slow: StepTime, *, method: _Method, model: CostModel
) -> tuple[float, str]:
    """Step with the workaround, in seconds, and what it does in words."""
    if one.net is None:
        return slow.seconds, "it does not touch activations"
    step = data_parallel_step(
        one.net.compute_s,
        gradient_bytes=int(one.net.gradient_bytes * method.bytes_fraction),
        num_devices=int(one.factors["ranks"]),
        model=model,
        is_overlapped=method.overlap or one.factors["overlap"] == "yes",
    )
    why = f"{method.steps:g} steps an exchange, {method.bytes_fraction:g} of the bytes"
    return step.compute_s + step.data_s / method.steps, why
