"""How often does the rule raise an alarm about nothing? Tried on trials of one and the same thing.

The trials of both arms of an A/A run are split into random halves again and again, and each split
is compared as two files would be. The splits share their trials, so the counts are indicative, not
independent trials of the rule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bench.analysis.compare import compare
from bench.analysis.figures import Options
from bench.analysis.metrics import METRICS

if TYPE_CHECKING:
    import pandas as pd


def count_verdicts(
    arm_a: pd.DataFrame, arm_b: pd.DataFrame, *, num_splits: int, seed: int
) -> dict[str, int]:
    """Verdicts of `num_splits` comparisons of random halves, over all configurations."""
    import pandas as pd

    trials = pd.concat([arm_a, arm_b], ignore_index=True)
    random = np.random.default_rng(seed)
    counts: dict[str, int] = {}
    for _ in range(num_splits):
        is_first = np.zeros(len(trials), dtype=bool)
        for index in trials.groupby(["config_hash", "device"], observed=True).indices.values():
            chosen = random.permutation(index)[: len(index) // 2]
            is_first[chosen] = True
        halves = [_renumbered(trials[is_first]), _renumbered(trials[~is_first])]
        comparison = compare(
            [("first half", halves[0]), ("second half", halves[1])],
            metric=METRICS["time"],
            options=Options(),
        )
        for row in comparison.rows:
            counts[row.verdict] = counts.get(row.verdict, 0) + 1
    return counts


def _renumbered(trials: pd.DataFrame) -> pd.DataFrame:
    """Number the trials anew: two of an A/A run have the same number."""
    numbers = trials.groupby(["config_hash", "device"], observed=True).cumcount()
    return trials.assign(trial=numbers, attempt=1)
