"""How many slower chips replace one faster, and at how much nominal power.

Number by projected speed, workload by workload; training also pays for the exchange of gradients
over the slower chips' own link. Power is nominal, and so is what is said of it.
"""

from __future__ import annotations

import math

from bench.analysis.claims.claim import Bounds, Case, ClaimCases, ClaimTest, Span
from bench.analysis.claims.claims_facts import ClaimFacts
from bench.analysis.claims.evaluators.link_claims import EndModel
from bench.analysis.claims.evaluators.projection_claims import check_mixes, speed_ratio
from bench.analysis.projection.roofs import Unknown
from bench.analysis.projection.sizing import usual_link
from bench.core.nouns import Chip
from bench.hardware.costs.cost import CostModel
from bench.hardware.costs.layouts import data_parallel_step
from bench.hardware.loader import Text
from bench.hardware.operator_mixes import Mix, load_mixes
from bench.hardware.operators import total

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
        check_mixes(self.mixes)

    def outcome(self, facts: ClaimFacts, *, bounds: Bounds, unit: str) -> ClaimCases:
        """Compute the cases."""
        cases, missing = [], []
        for name in self.slow:
            for mix in self.mixes:
                case = _case(
                    facts.chips[self.fast],
                    facts.chips[name],
                    mix=mix,
                    dtype=self.dtype,
                    bounds=bounds,
                    link=self.links.get(name),
                )
                if isinstance(case, Case):
                    cases.append(case)
                else:
                    missing.append(f"{name}: {case}")
        return ClaimCases(cases=tuple(cases), missing=tuple(dict.fromkeys(missing)))


def _case(
    fast: Chip, slow: Chip, *, mix: str, dtype: str, bounds: Bounds, link: str | None
) -> Case | str:
    told = speed_ratio(fast, slow, mix=mix, dtype=dtype)
    if isinstance(told, Unknown):
        return told.reason
    if not fast.tdp_w or not slow.tdp_w:
        return "its power is not known"
    known = next(one for one in load_mixes() if one.id == mix)
    link = (link or usual_link(slow)) if known.phase == "train" else None
    model = None if link is None else EndModel(link)
    step_s = total(known.operators, "flops") / (
        COMPUTE_FRACTION * (fast.peak_per_s.get(dtype) or math.inf)
    )
    low, mid, high = (
        _needed(speed, known, model=model, step_s=step_s)
        for speed in (told.high, told.mid, told.low)
    )
    if low is None or mid is None or high is None:
        return f"{MOST_CHIPS} of them over {link} do not reach it on {mix}"
    factor = slow.tdp_w / fast.tdp_w
    value = Span(low=low * factor, mid=mid * factor, high=high * factor)
    over = f" over {link}" if link else ""
    return bounds.case(
        value,
        factors={"workload": mix.rpartition("-")[0], "chips": f"{slow.id} for one {fast.id}"},
        unit="ratio",
        how=f"{low} to {high} (middle {mid}) of {slow.tdp_w:g} W{over} for one of {fast.tdp_w:g} W "
        f"at {told.low:.2g} to {told.high:.2g} of its speed each; nominal power over the "
        f"fast one's, asked {bounds.words}",
        basis="projected",
        source="catalogue peaks and watts, counted operators, cost model of the link",
    )


def _needed(speed: float, mix: Mix, *, model: CostModel | None, step_s: float) -> int | None:
    """Fewest chips, each `speed` times the fast one, that reach its rate with their exchange."""
    if model is None:
        return math.ceil(1.0 / speed - 1e-9)
    for chips in range(math.ceil(1.0 / speed - 1e-9), MOST_CHIPS + 1):
        step = data_parallel_step(
            step_s / speed,
            gradient_bytes=GRADIENT_BYTES * mix.parameters,
            num_devices=chips,
            model=model,
        )
        if step.seconds <= chips * step_s:
            return chips
    return None
