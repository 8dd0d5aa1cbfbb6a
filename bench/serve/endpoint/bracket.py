"""Which rate to try next, to close in on the largest that an endpoint holds.

The search is on the rate at which requests come, never on how many wait: a server that is asked for
too much by users who wait for it only slows them down. What comes out is a bracket of two measured
rates, and no single figure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from bench.serve.slo import Verdict

MOST_POINTS = 8
STEP = 4.0
"""From one rate to the next while one side is not known."""
CLOSE = 1.1
"""A bracket whose ends differ by less is narrow enough."""


@dataclass(frozen=True, kw_only=True)
class Bracket:
    """What is known of the largest rate; None where no rate that was tried shows it."""

    holds_per_s: float | None
    """Highest rate that held, below any that broke."""
    breaks_per_s: float | None
    """Lowest that broke."""


def bracket_of(tried: Sequence[tuple[float, Verdict]]) -> Bracket:
    """Return the bracket of these rates and what each of them showed."""
    breaks = min((rate for rate, verdict in tried if verdict == "breaks"), default=None)
    below = math.inf if breaks is None else breaks
    holds = [rate for rate, verdict in tried if verdict == "holds" and rate < below]
    return Bracket(holds_per_s=max(holds, default=None), breaks_per_s=breaks)


def next_rate(tried: Sequence[tuple[float, Verdict]], *, first_per_s: float) -> float | None:
    """Return the rate to try next; None when the bracket is narrow or enough were tried.

    Undecided rates lie near the largest: what is left is looked for on both sides of them.
    """
    if not tried:
        return first_per_s
    if len(tried) >= MOST_POINTS:
        return None
    rates = sorted(rate for rate, _ in tried)
    found = bracket_of(tried)
    if found.breaks_per_s is None:
        return rates[-1] * STEP
    if found.holds_per_s is None:
        return rates[0] / STEP
    inside = [rate for rate in rates if found.holds_per_s <= rate <= found.breaks_per_s]
    widest = max(pairwise(inside), key=lambda pair: pair[1] / pair[0])
    return None if widest[1] / widest[0] <= CLOSE else math.sqrt(widest[0] * widest[1])
