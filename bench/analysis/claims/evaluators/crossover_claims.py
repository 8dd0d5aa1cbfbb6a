"""How much an accelerator helps a small tabular model, by how many rows a step holds.

A step costs host time for each operator on either side; beyond that the CPU computes at its
measured roof and the accelerator at its listed one, beside the host. Below some number of rows the
host is all there is and a faster card changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from bench.analysis.claims.claim_cases import ClaimCase, ClaimTest, span_of
from bench.analysis.claims.claims_facts import ClaimFacts
from bench.analysis.projection.projected import LAUNCH_S
from bench.hardware.loader import Number, Text


class Crossover(ClaimTest, tag="crossover", frozen=True, kw_only=True):
    """Speed of `chip` over the CPU that was measured, for each number of `samples` in a step.

    `parameters` of the model (6 FLOP each and sample, training), `operators` in a step.
    """

    chip: Text
    samples: tuple[Number, ...]
    parameters: Number
    operators: Number

    def cases(self, facts: ClaimFacts) -> Iterator[ClaimCase | str]:
        """One case for each number of rows."""
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
