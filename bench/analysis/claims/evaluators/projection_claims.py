"""Chips set against each other by projection: no two of them were measured side by side.

Ratios are projected workload by workload from the counted operators; the intervals are those of
`bench project --score`: achieved shares, relatedness of the two chips and what the roofs leave
open. Every case says projected.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import median

from bench.analysis.claims.claim_cases import ClaimCase, ClaimFacts, ClaimTest, span_of
from bench.analysis.claims.evaluators.link_claims import EndModel
from bench.analysis.projection.projected import LAUNCH_S
from bench.analysis.projection.roofs import Unknown
from bench.analysis.projection.scaled_operators import speed_ratio
from bench.analysis.projection.sizing import usual_link
from bench.core.nouns import Chip
from bench.hardware.costs.layouts import data_parallel_step
from bench.hardware.loader import Number, Text
from bench.hardware.operators import Mix, load_mixes, total

GRADIENT_BYTES = 4
COMPUTE_FRACTION = 0.4
"""Share of its peak that the fast chip is assumed to reach; sets the share of the exchange."""
MOST_CHIPS = 1024


def _mix_named(name: str) -> Mix:
    mixes = {mix.id: mix for mix in load_mixes()}
    if name not in mixes:
        raise ValueError(f"mixes: {name!r} is not one of {', '.join(mixes)}")
    return mixes[name]


class _OnMixes(ClaimTest, frozen=True, kw_only=True):
    """A test on the operators of shipped workloads."""

    mixes: tuple[Text, ...]
    dtype: Text = "bf16"

    def __post_init__(self) -> None:
        for name in self.mixes:
            _mix_named(name)


class ProjectedRatio(_OnMixes, tag="projected-ratio", frozen=True, kw_only=True):
    """Project `mixes` from chip `a` to each of `b`."""

    a: Text
    b: tuple[Text, ...]
    counts: bool = True

    def _cases(self, facts: ClaimFacts) -> Iterator[ClaimCase | str]:
        for name, mix in ((name, _mix_named(mix)) for name in self.b for mix in self.mixes):
            speed = speed_ratio(
                facts.chips[self.a],
                facts.chips[name],
                operators=mix.operators,
                dtype=self.dtype,
            )
            if isinstance(speed, Unknown):
                yield f"{self.a} or {name}: {speed.reason}"
                continue
            workload = f"{mix.workload}-{mix.phase}"
            yield ClaimCase(
                value=span_of(speed.mid, speed.low, speed.high),
                factors={
                    "workload": workload,
                    "chips": f"{name} over {self.a}",
                },
                how=f"speed on the operators of {mix.id} in {self.dtype}",
                basis="projected",
                source="catalogue peaks, achieved shares and counted operators",
                counts=self.counts,
            )


class Stacking(_OnMixes, tag="stacking", frozen=True, kw_only=True):
    """Nominal power of the `slow` chips that do the work of one `fast`, over the fast one's.

    For every pair and each of `mixes`. Training also pays for the exchange of gradients, over the
    link in `links`, else the slow chip's usual one.
    """

    fast: Text
    slow: tuple[Text, ...]
    links: dict[str, Text] = {}

    def _cases(self, facts: ClaimFacts) -> Iterator[ClaimCase | str]:
        for name, mix in ((name, _mix_named(mix)) for name in self.slow for mix in self.mixes):
            yield self._case(facts.chips[self.fast], facts.chips[name], mix=mix)

    def _case(self, fast: Chip, slow: Chip, *, mix: Mix) -> ClaimCase | str:
        speed = speed_ratio(fast, slow, operators=mix.operators, dtype=self.dtype)
        if isinstance(speed, Unknown):
            return f"{slow.id}: {speed.reason}"
        if not fast.tdp_w or not slow.tdp_w:
            return f"{slow.id}: its power is not known"
        link = (self.links.get(slow.id) or usual_link(slow)) if mix.phase == "train" else None
        peak = fast.peak_per_s.get(self.dtype) or math.inf
        step_s = total(mix.operators, "flops") / (COMPUTE_FRACTION * peak)
        low, mid, high = (
            _needed(ratio, mix, link=link, step_s=step_s)
            for ratio in (speed.high, speed.mid, speed.low)
        )
        if low is None or mid is None or high is None:
            return f"{slow.id}: {MOST_CHIPS} of them over {link} do not reach it on {mix.id}"
        over, workload = f" over {link}" if link else "", f"{mix.workload}-{mix.phase}"
        return ClaimCase(
            value=span_of(*(number * (slow.tdp_w / fast.tdp_w) for number in (mid, low, high))),
            factors={
                "workload": workload,
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


class Crossover(ClaimTest, tag="crossover", frozen=True, kw_only=True):
    """Speed of `chip` over the CPU that was measured, for each number of `samples` in a step.

    `parameters` of the model (6 FLOP each and sample, training), `operators` in a step. A step
    costs host time for each operator on either side; beyond that the CPU computes at its measured
    roof and the accelerator at its listed one, beside the host.
    """

    chip: Text
    samples: tuple[Number, ...]
    parameters: Number
    operators: Number

    def _cases(self, facts: ClaimFacts) -> Iterator[ClaimCase | str]:
        used = [
            row
            for one in facts.configurations
            for row in one.used
            if row["device_type"] == "cpu" and row["dtype"] == "fp32"
        ]
        roofs = [one["roof_flops_per_s"] for one in used]
        known = [float(roof) for roof in roofs if isinstance(roof, int | float)]
        peak = facts.chips[self.chip].peak_per_s.get("fp32")
        if not known or peak is None:
            yield "a measured CPU roof: bench run -w tabular"
            return
        roof = median(known)
        for number in self.samples:
            flops = 6.0 * self.parameters * number
            hosts_s = [self.operators * s for s in (LAUNCH_S.mid, LAUNCH_S.low, LAUNCH_S.high)]
            yield ClaimCase(
                # CPU: host time and compute one after the other; accelerator: side by side.
                value=span_of(*((s + flops / roof) / max(s, flops / peak) for s in hosts_s)),
                factors={"rows in a step": number},
                how=f"{flops:.3g} FLOP at {roof:.3g}/s (measured roof) or {peak:.3g}/s (listed), "
                f"{self.operators:g} operators of {LAUNCH_S.low * 1e6:g} to "
                f"{LAUNCH_S.high * 1e6:g} us on the host",
                basis="projected",
                source=f"rows of run {', '.join(sorted({str(one['run_id']) for one in used}))}; "
                f"catalogue: {self.chip}",
            )
