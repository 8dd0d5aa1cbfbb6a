"""How many slower chips replace one faster, and at how much nominal power.

Number by projected speed, workload by workload; training also pays for the exchange of gradients
over the slower chips' own link. Power is nominal, and so is what is said of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from bench.analysis.claims.claim_cases import ClaimCase, ClaimTest, span_of
from bench.analysis.claims.claims_facts import ClaimFacts
from bench.analysis.claims.evaluators.link_claims import EndModel
from bench.analysis.claims.evaluators.projection_claims import mix_named, speed_ratio
from bench.analysis.projection.roofs import Unknown
from bench.analysis.projection.sizing import usual_link
from bench.core.nouns import Chip
from bench.hardware.costs.layouts import data_parallel_step
from bench.hardware.loader import Text
from bench.hardware.operators import Mix, total

GRADIENT_BYTES = 4
COMPUTE_FRACTION = 0.4
"""Share of its peak that the fast chip is assumed to reach; sets the share of the exchange."""
MOST_CHIPS = 1024


class Stacking(ClaimTest, tag="stacking", frozen=True, kw_only=True):
    """Nominal power of the `slow` chips that do the work of one `fast`, over the fast one's.

    For every pair and each of `mixes`; training over the link in `links`, else the usual one.
    """

    fast: Text
    slow: tuple[Text, ...]
    mixes: tuple[Text, ...]
    dtype: Text = "bf16"
    links: dict[str, Text] = {}

    def __post_init__(self) -> None:
        for name in self.mixes:
            mix_named(name)

    def cases(self, facts: ClaimFacts) -> Iterator[ClaimCase | str]:
        """One case for each slow chip and workload."""
        for name, mix in ((name, mix) for name in self.slow for mix in self.mixes):
            yield self._case(facts.chips[self.fast], facts.chips[name], mix=mix_named(mix))

    def _case(self, fast: Chip, slow: Chip, *, mix: Mix) -> ClaimCase | str:
        speed = speed_ratio(fast, slow, mix=mix.id, dtype=self.dtype)
        if isinstance(speed, Unknown):
            return f"{slow.id}: {speed.reason}"
        if not fast.tdp_w or not slow.tdp_w:
            return f"{slow.id}: its power is not known"
        link = (self.links.get(slow.id) or usual_link(slow)) if mix.phase == "train" else None
        peak = fast.peak_per_s.get(self.dtype) or math.inf
        step_s = total(mix.operators, "flops") / (COMPUTE_FRACTION * peak)
        needed = [
            _needed(ratio, mix, link=link, step_s=step_s)
            for ratio in (speed.high, speed.mid, speed.low)
        ]
        low, mid, high = needed
        if low is None or mid is None or high is None:
            return f"{slow.id}: {MOST_CHIPS} of them over {link} do not reach it on {mix.id}"
        over = f" over {link}" if link else ""
        return ClaimCase(
            value=span_of(*(number * (slow.tdp_w / fast.tdp_w) for number in (mid, low, high))),
            factors={
                "workload": mix.id.rpartition("-")[0],
                "chips": f"{slow.id} for one {fast.id}",
            },
            unit="ratio",
            how=f"{low} to {high} (middle {mid}) of {slow.tdp_w:g} W{over} for one of "
            f"{fast.tdp_w:g} W at {speed.low:.2g} to {speed.high:.2g} of its speed each; nominal "
            "power over the fast one's",
            basis="projected",
            source="catalogue peaks and watts, counted operators, cost model of the link",
        )


def _needed(speed: float, mix: Mix, *, link: str | None, step_s: float) -> int | None:
    """Fewest chips, each `speed` times the fast one, that reach its rate with their exchange."""
    fewest = math.ceil(1.0 / speed - 1e-9)
    if link is None:
        return fewest
    model, size_bytes = EndModel(link), GRADIENT_BYTES * mix.parameters
    for chips in range(fewest, MOST_CHIPS + 1):
        step = data_parallel_step(
            step_s / speed, gradient_bytes=size_bytes, num_devices=chips, model=model
        )
        if step.seconds <= chips * step_s:
            return chips
    return None
