"""From an interval of a ratio to a word: when a change is real, when it is not, when nobody knows.

A change counts when the whole 95 % interval lies beyond a practical threshold, so that neither a
significant trifle nor a large accident is called a regression. With many rows the share of false
alarms is held by Benjamini-Hochberg. Whatever is in between is INCONCLUSIVE, said aloud together
with how many more trials should settle it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from bench.analysis.statistics import (
    Differences,
    benjamini_hochberg,
    p_values_beyond,
    trials_to_settle,
)
from bench.core.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Mask = NDArray[np.bool_]

Verdict = Literal["REGRESSION", "IMPROVED", "SAME", "INCONCLUSIVE", "NOT COMPARED"]
VERDICTS: tuple[Verdict, ...] = (
    "REGRESSION",
    "INCONCLUSIVE",
    "NOT COMPARED",
    "IMPROVED",
    "SAME",
)
"""In the order in which a reader wants to see them."""
MIN_TRIALS = 3
"""Trials per side under which a spread is a guess and nothing is gated."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Verdicts of many comparisons; entries that are not gated are ''."""

    verdict: NDArray[np.object_]
    more_trials: Array
    """Trials per side that should settle an INCONCLUSIVE one; NaN: none, or over 1000."""
    is_demoted: Mask
    """Beyond the threshold by itself, but not among so many rows."""


def parse_threshold(text: str, *, flag: str = "--fail-on") -> float:
    """Fraction in '5%'; `UsageError` for anything else, since 5 and 0.05 are easily confused."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*%\s*", text)
    value = float(match[1]) / 100.0 if match else 0.0
    if not 0.0 < value < 10.0:
        raise UsageError(f"{flag} {text!r} is not a percentage over 0 and under 1000, such as 5%")
    return value


def judge(differences: Differences, *, threshold_frac: Array, gated: Mask, num: Array) -> Judgement:
    """Judge the ratio B/A of something that should be small; `num` is trials per side."""
    margin = np.log1p(threshold_frac)
    slower, faster = differences.low > margin, differences.high < -margin
    inside = (differences.low > -margin) & (differences.high < margin)
    is_kept = np.zeros(len(margin), dtype=bool)
    p_values = p_values_beyond(differences, margin=margin)
    is_kept[gated] = benjamini_hochberg(p_values[gated])
    verdict = np.full(len(margin), "INCONCLUSIVE", dtype=object)
    verdict[inside] = "SAME"
    verdict[slower & is_kept] = "REGRESSION"
    verdict[faster & is_kept] = "IMPROVED"
    verdict[~gated] = ""
    is_open = verdict == "INCONCLUSIVE"
    more = trials_to_settle(differences, margin=margin, num=num)
    return Judgement(
        verdict=verdict,
        more_trials=np.where(is_open, more, np.nan),
        is_demoted=np.asarray(is_open & (slower | faster)),
    )
