"""Work between far regions: what exchanging gradients over a wide-area link adds to a step.

`sites` train together and exchange fp32 weights or gradients once in so many steps. Whether the job
is moved instead is arithmetic of its data. Rates and delays are the link presets' assumptions.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from bench.analysis.claims.claim_cases import ClaimCase, ClaimTest, span_of
from bench.analysis.claims.claims_facts import ClaimFacts
from bench.analysis.claims.evaluators.link_claims import EndModel, check_links
from bench.hardware.loader import Count, Number, Text

GRADIENT_BYTES = 4


class Region(ClaimTest, tag="region", frozen=True, kw_only=True):
    """Time added to a step, over the step, for `links` x `parameters` x `steps_per_exchange`.

    `step_s` is what a step takes at one site; nothing overlaps.
    """

    links: tuple[Text, ...]
    parameters: tuple[Number, ...]
    steps_per_exchange: tuple[Number, ...]
    step_s: Number
    sites: Count = 2

    def __post_init__(self) -> None:
        check_links(*self.links)

    def cases(self, facts: ClaimFacts) -> Iterator[ClaimCase | str]:
        """One case for each combination."""
        for link, size, every in product(self.links, self.parameters, self.steps_per_exchange):
            model = EndModel(link)
            size_bytes, group = int(GRADIENT_BYTES * size), model.group_of(range(self.sites))
            cost = model.cost("all_reduce", num_bytes=size_bytes, group=group)
            ends = (cost.seconds, cost.low_s, cost.high_s)
            yield ClaimCase(
                value=span_of(*(end / (every * self.step_s) for end in ends)),
                factors={
                    "work": "one training over both sites",
                    "link": link,
                    "parameters": size,
                    "steps per exchange": every,
                },
                how=f"{cost.seconds:.3g} s to exchange over {self.sites} sites, every {every:g} "
                f"steps of {self.step_s:g} s",
                basis="modelled",
                source=f"link preset {link}, an assumption; nothing official is published",
            )
