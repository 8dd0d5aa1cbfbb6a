"""What devices of one step wait for while gradients travel: put on top of compute, or taken out.

Gradients leave while backward runs, so a part of the exchange is hidden: from none of what fits
beside backward to all of it, drawn like every unknown. Taken out of a measured step the same
relation is solved for the compute that is left.
"""

import numpy as np

from bench.analysis.projection.roofs import band
from bench.analysis.projection.scaled_operators import Array, Draws, between
from bench.hardware.costs.cost import BACKWARD_FRACTION, CostModel

GRADIENT_BYTES = 4
"""Gradients are exchanged as they are kept, in fp32."""


def exchange_s(link: CostModel, *, parameters: float, devices: int, unknown: Draws) -> Array:
    """Time of one all-reduce of all gradients, in each draw."""
    cost = link.cost(
        "all_reduce",
        num_bytes=GRADIENT_BYTES * int(parameters),
        group=link.group_of(range(devices)),
    )
    return between(band(max(cost.low_s, 1e-12), max(cost.high_s, 1e-12)), unknown.link)


def exposed_s(compute_s: Array, *, whole_s: Array, unknown: Draws) -> Array:
    """Part of an exchange that a step of so much compute waits for."""
    beyond_s = np.maximum(0.0, whole_s - BACKWARD_FRACTION * compute_s)
    exposed: Array = beyond_s + (whole_s - beyond_s) * unknown.link
    return exposed


def compute_of(step_s: float, *, whole_s: Array, unknown: Draws) -> Array:
    """Compute of a measured step: what `exposed_s` is added to, to give that step.

    No exchange takes more than the step did: where the model says so it is as long as the step.
    """
    within_s = np.minimum(whole_s, step_s)
    hidden = step_s - within_s * unknown.link  # all of it fits beside backward
    rest = 1.0 - BACKWARD_FRACTION * (1.0 - unknown.link)
    beyond: Array = (step_s - within_s) / rest
    fits = within_s <= BACKWARD_FRACTION * hidden
    return np.where(fits, hidden, np.maximum(beyond, 1e-3 * step_s))
