"""How the share of a step that waits for the link changes with ranks, or with the net's size.

Neighbouring values are compared pair by pair: larger than before, or not. Transformers by formula
without overlap. `as memory needs` gives each width the fewest ranks that hold its training state.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Literal

from bench.analysis.claims.claim_cases import ClaimCase, ClaimTest, span_of
from bench.analysis.claims.claims_facts import ClaimFacts
from bench.analysis.claims.evaluators.link_claims import (
    EndModel,
    check_links,
    split_step,
    transformer,
)
from bench.core.nouns import Chip
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

    def cases(self, facts: ClaimFacts) -> Iterator[ClaimCase | str]:
        """One case for each pair of neighbours."""
        model, device = EndModel(self.link), facts.chips[self.chip]
        peak = device.peak_per_s.get("bf16")
        if peak is None:
            yield f"bf16 peak of {self.chip} is not known"
            return
        shares = []
        for value in self.values:
            hidden = self.hidden if self.vary == "ranks" else value
            net = transformer(hidden, num_layers=max(1, hidden // WIDTH_OF_LAYER))
            ranks = value if self.vary == "ranks" else self.ranks
            if self.vary == "width, ranks as memory needs":
                ranks = _ranks_for(STATE_BYTES * net.num_parameters, device)
            step = split_step(net, self.split, ranks, flops_per_s=peak * self.compute_fraction)
            shares.append((value, ranks, step(model=model).communication_fraction))
        what = "ranks" if self.vary == "ranks" else "width"
        for one, two in pairwise(shares):
            yield ClaimCase(
                value=span_of(two[2] / one[2]),
                factors={"varied": self.vary, "split": self.split, what: f"{one[0]} to {two[0]}"},
                how=f"share {one[2]:.1%} at {what} {one[0]} ({one[1]} ranks), {two[2]:.1%} at "
                f"{two[0]} ({two[1]} ranks); second over first",
                basis="modelled",
                source=f"cost model of {self.link}; transformer by formula, without overlap",
            )


def _ranks_for(state_bytes: float, chip: Chip) -> int:
    """Fewest devices, a power of two and two at least, whose memory holds the training state."""
    ranks = 2
    while state_bytes > ranks * USABLE_FRACTION * (chip.memory_bytes or 0.0) and ranks < 2**16:
        ranks *= 2
    return ranks
