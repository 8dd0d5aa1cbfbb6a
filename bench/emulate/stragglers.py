"""The step that a group of ranks takes when each is as unsteady as the one measured.

A step ends when its slowest rank does, so among N ranks the expected compute time is the mean of
the largest of N draws from the measured times. It is computed exactly from the order statistics of
the measured sample. Left out: ranks that differ for good (a slow card), and that what is drawn on
several ranks may be correlated (a job that slows all of them), which would make the effect smaller.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.core.statistics import effective_sample_size
from bench.emulate.simulate import Replay

RESAMPLES = 200
_TAIL = 0.025


@dataclass(frozen=True, kw_only=True, slots=True)
class StragglerEstimate:
    """Expected step of the slowest rank, with a 95 % interval over what was measured."""

    mean_s: float
    low_s: float
    high_s: float
    is_lower_bound: bool
    """More ranks than measured steps: slower ones than were ever seen are to be expected."""


def expected_step_s(step_s: Sequence[float], *, num_ranks: int, seed: int = 0) -> StragglerEstimate:
    """Expect the largest of `num_ranks` draws from measured times; ValueError when there are none.

    The interval is a bootstrap by blocks as long as the steps remember each other.
    """
    import numpy as np

    if not step_s or num_ranks < 1:
        raise ValueError("stragglers need at least one measured step and one rank")
    times_s = np.asarray(step_s, dtype=float)
    count = len(times_s)
    weights = _order_weights(count, num_ranks=num_ranks)
    block = _block_length(step_s)
    starts = np.random.default_rng(seed).integers(count, size=(RESAMPLES, -(-count // block)))
    means_s = []
    for row in starts:
        drawn = (row[:, None] + np.arange(block)).ravel()[:count] % count
        means_s.append(float(np.sort(times_s[drawn]) @ weights))
    low_s, high_s = np.quantile(means_s, (_TAIL, 1.0 - _TAIL))
    return StragglerEstimate(
        mean_s=float(np.sort(times_s) @ weights),
        low_s=float(low_s),
        high_s=float(high_s),
        is_lower_bound=num_ranks > count,
    )


def straggler_step_s(
    replays: Sequence[Replay], *, num_ranks: int, seed: int = 0
) -> StragglerEstimate:
    """Expect the step of `num_ranks` ranks that wait for each other once in each step.

    The compute of a step is drawn for each rank; what it waits for the link comes on top.
    """
    waited_s = math.fsum(one.comm_exposed_s for one in replays) / max(len(replays), 1)
    compute = expected_step_s([one.compute_s for one in replays], num_ranks=num_ranks, seed=seed)
    return StragglerEstimate(
        mean_s=compute.mean_s + waited_s,
        low_s=compute.low_s + waited_s,
        high_s=compute.high_s + waited_s,
        is_lower_bound=compute.is_lower_bound,
    )


def _order_weights(count: int, *, num_ranks: int) -> list[float]:
    """Probability that the largest of `num_ranks` draws is the i-th smallest of `count` values.

    The largest is at most the i-th when all draws are: (i / count) ** num_ranks.
    """
    reached = [(index / count) ** num_ranks for index in range(count + 1)]
    return [later - earlier for earlier, later in zip(reached, reached[1:], strict=False)]


def _block_length(step_s: Sequence[float]) -> int:
    effective = effective_sample_size(step_s)
    return 1 if not effective else min(len(step_s), math.ceil(len(step_s) / effective))
