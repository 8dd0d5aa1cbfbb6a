"""How the share of a step that waits for the link changes with ranks, or with the net's size.

Neighbouring values are compared pair by pair: larger than before, or not. Transformers by formula
without overlap. `as memory needs` gives each width the fewest ranks that hold its training state.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from bench.analysis.claims.claim import Bounds, Case, ClaimCases, ClaimTest, exactly
from bench.analysis.claims.claims_facts import ClaimFacts
from bench.analysis.claims.evaluators.link_claims import SEQUENCE_LENGTH, EndModel, check_links
from bench.core.nouns import Chip, Layout
from bench.hardware.costs.cost import CostModel
from bench.hardware.costs.layouts import StepTime, Transformer, transformer_step
from bench.hardware.loader import Count, Number, Text

STATE_BYTES = 16
"""fp32 weight, gradient and two moments of one parameter."""
USABLE_FRACTION = 0.93
WIDTH_OF_LAYER = 128
"""Layers grow with width: one for each 128, as in GPT-3's family (https://arxiv.org/abs/2005.14165)."""


class CommunicationShare(ClaimTest, tag="communication-share", frozen=True, kw_only=True):
    """Compare the share at each of `values` with that at the one before.

    `vary` is ranks, width or 'width, ranks as memory needs'; `split` tensor or data; `link`, `chip`
    and `compute_fraction` as in link-slowdown; `hidden` and `ranks` hold what is not varied.
    """

    link: Text
    split: Literal["tensor", "data"]
    vary: Literal["ranks", "width", "width, ranks as memory needs"]
    values: tuple[Count, ...]
    chip: Text
    compute_fraction: Number = 0.5
    hidden: Count = 0
    ranks: Count = 0

    def __post_init__(self) -> None:
        check_links(self.link)

    def outcome(self, facts: ClaimFacts, *, bounds: Bounds, unit: str) -> ClaimCases:
        """Compute the cases."""
        model, device = EndModel(self.link), facts.chips[self.chip]
        peak = device.peak_per_s.get("bf16")
        if peak is None:
            return ClaimCases(cases=(), missing=(f"bf16 peak of {self.chip} is not known",))
        shares = []
        for value in self.values:
            hidden = self.hidden if self.vary == "ranks" else value
            ranks = value if self.vary == "ranks" else self.ranks
            if self.vary == "width, ranks as memory needs":
                ranks = _ranks_for(hidden, device)
            flops_per_s = peak * self.compute_fraction
            step = _step(hidden, ranks, split=self.split, flops_per_s=flops_per_s, model=model)
            shares.append((value, ranks, step.communication_fraction))
        cases = [self._case(one, two, bounds=bounds, unit=unit) for one, two in pairwise(shares)]
        return ClaimCases(cases=tuple(cases))

    def _case(
        self,
        one: tuple[int, int, float],
        two: tuple[int, int, float],
        *,
        bounds: Bounds,
        unit: str,
    ) -> Case:
        value = exactly(two[2] / one[2])
        what = "ranks" if self.vary == "ranks" else "width"
        return bounds.case(
            value,
            factors={"varied": self.vary, "split": self.split, what: f"{one[0]} to {two[0]}"},
            unit=unit,
            how=f"share {one[2]:.1%} at {what} {one[0]} ({one[1]} ranks), {two[2]:.1%} at "
            f"{two[0]} ({two[1]} ranks); second over first, asked {bounds.words}",
            basis="modelled",
            source=f"cost model of {self.link}; transformer by formula, without overlap",
        )


def _net(hidden: int) -> Transformer:
    layers = max(1, hidden // WIDTH_OF_LAYER)
    return Transformer(hidden=hidden, num_layers=layers, sequence_length=SEQUENCE_LENGTH)


def _ranks_for(hidden: int, chip: Chip) -> int:
    """Fewest devices, a power of two and two at least, whose memory holds the training state."""
    usable = USABLE_FRACTION * (chip.memory_bytes or 0.0)
    ranks = 2
    while STATE_BYTES * _net(hidden).num_parameters > ranks * usable and ranks < 2**16:
        ranks *= 2
    return ranks


def _step(hidden: int, ranks: int, *, split: str, flops_per_s: float, model: CostModel) -> StepTime:
    layout = Layout(strategy="tp", tensor=ranks) if split == "tensor" else Layout(data=ranks)
    return transformer_step(
        _net(hidden),
        layout=layout,
        tokens_per_micro_batch=SEQUENCE_LENGTH,
        num_micro_batches=1,
        flops_per_s=flops_per_s,
        model=model,
    )
