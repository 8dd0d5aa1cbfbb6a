"""The step that a group of ranks takes when each is as unsteady as the one measured.

A step ends when its slowest rank does, so among N ranks the expected compute time is the mean of
the largest of N draws from the measured times. It is computed exactly from the order statistics of
the measured sample. Left out: ranks that differ for good (a slow card), and that what is drawn on
several ranks may be correlated (a job that slows all of them), which would make the effect smaller.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

from bench.emulate.simulate import Replay


def expected_step_s(step_s: Sequence[float], *, num_ranks: int) -> float:
    """Expect the largest of `num_ranks` draws from measured times; ValueError when there are none.

    With more ranks than measured steps it is a lower bound: slower steps than were ever seen are
    to be expected.
    """
    if not step_s or num_ranks < 1:
        raise ValueError("stragglers need at least one measured step and one rank")
    # The largest is at most the i-th smallest when all draws are: (i / count) ** num_ranks.
    count = len(step_s)
    reached = [(index / count) ** num_ranks for index in range(count + 1)]
    weights = map(operator.sub, reached[1:], reached)
    return math.fsum(map(operator.mul, sorted(step_s), weights))


def straggler_step_s(replays: Sequence[Replay], *, num_ranks: int) -> float:
    """Expect the step of `num_ranks` ranks that wait for each other once in each step.

    The compute of a step is drawn for each rank; what it waits for the link comes on top.
    """
    waited_s = math.fsum(one.comm_exposed_s for one in replays) / max(len(replays), 1)
    return expected_step_s([one.compute_s for one in replays], num_ranks=num_ranks) + waited_s
