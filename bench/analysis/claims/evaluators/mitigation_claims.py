"""How much of what a narrow link costs each mitigation wins back, by formula; time only.

Data parallelism: overlap, accumulation, fewer bytes, rarer exchange. Tensor parallelism sends
activations inside every layer, which none of these touches. What a mitigation does to learning is
measured elsewhere, on real ranks.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.analysis.claims.claim_cases import Factors, Span, span_of
from bench.analysis.claims.evaluators.link_claims import EndModel, LinkPlan, Step
from bench.hardware.loader import AboveZero, Declared, Number


class _Method(Declared, frozen=True, kw_only=True):
    """What a mitigation does to the exchange of gradients."""

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

    def figures(self, factors: Factors, step: Step) -> Iterator[tuple[Factors, Span, str]]:
        """One figure for each method."""
        narrow = EndModel(self.narrow)
        fast_s, slow_s = step(model=EndModel(self.wide)).seconds, step(model=narrow).seconds
        if slow_s - fast_s < self.least * fast_s:
            return
        for name, method in self.methods.items():
            if factors["split"] == "tensor":
                mitigated_s, why = slow_s, "it does not touch activations"
            else:
                size_bytes = int(step.keywords["gradient_bytes"] * method.bytes_fraction)
                overlaps = method.overlap or step.keywords["is_overlapped"]
                step_time = step(model=narrow, gradient_bytes=size_bytes, is_overlapped=overlaps)
                mitigated_s = step_time.compute_s + step_time.data_s / method.steps
                why = f"{method.steps:g} steps an exchange, {method.bytes_fraction:g} of the bytes"
            how = (
                f"step {fast_s * 1e3:.3g} ms on {self.wide}, {slow_s * 1e3:.3g} on "
                f"{self.narrow}, {mitigated_s * 1e3:.3g} with {name} ({why})"
            )
            yield {"method": name}, span_of((slow_s - mitigated_s) / (slow_s - fast_s)), how
