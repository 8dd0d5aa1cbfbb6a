"""From an interval of a ratio to a word: when a change is real, when it is not, when nobody knows.

A change counts when the whole 95 % interval lies beyond a practical threshold, so that neither a
significant trifle nor a large accident is called a regression. With many rows the share of false
alarms is held by Benjamini-Hochberg. Whatever is in between is INCONCLUSIVE, said aloud together
with how many more trials should settle it.

Two arms of one job are measured in ABBA blocks: within a block they take the places 1, 4 and 2, 3,
so a machine that slows down steadily slows both by the same amount. One block is one observation.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from bench.analysis.trials.estimates import LogEstimate, mean_of_logs
from bench.core.errors import UsageError
from bench.core.statistics import t_cdf, t_quantile

Verdict = Literal["REGRESSION", "IMPROVED", "SAME", "INCONCLUSIVE", "NOT COMPARED"]
VERDICTS: tuple[Verdict, ...] = ("REGRESSION", "INCONCLUSIVE", "NOT COMPARED", "IMPROVED", "SAME")
"""In the order in which a reader wants to see them."""
MIN_TRIALS = 3
"""Trials per side under which a spread is a guess and nothing is gated."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What became of one comparison."""

    verdict: Verdict
    more_trials: int | None = None
    """Trials per side that should settle an INCONCLUSIVE one; None: not one, or over 1000."""
    is_demoted: bool = False
    """Beyond the threshold by itself, but not among so many rows."""


def parse_threshold(text: str, *, flag: str = "--fail-on") -> float:
    """Fraction in '5%'; `UsageError` for anything else, since 5 and 0.05 are easily confused."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*%\s*", text)
    value = float(match[1]) / 100.0 if match else 0.0
    if not 0.0 < value < 10.0:
        raise UsageError(f"{flag} {text!r} is not a percentage over 0 and under 1000, such as 5%")
    return value


def judge(ratios: Sequence[LogEstimate], *, threshold_fracs: Sequence[float]) -> list[Judged]:
    """Judge ratios B/A of something that should be small, a table at once; all have intervals."""
    pairs = list(zip(ratios, map(math.log1p, threshold_fracs), strict=True))
    kept = benjamini_hochberg([p_beyond(ratio, margin=margin) for ratio, margin in pairs])
    return [
        _judged(ratio, margin=margin, is_kept=is_kept)
        for (ratio, margin), is_kept in zip(pairs, kept, strict=True)
    ]


def _judged(ratio: LogEstimate, *, margin: float, is_kept: bool) -> Judged:
    low, high = ratio.log_ends
    if -margin < low and high < margin:
        return Judged(verdict="SAME")
    is_slower, is_faster = low > margin, high < -margin
    if is_kept and (is_slower or is_faster):
        return Judged(verdict="REGRESSION" if is_slower else "IMPROVED")
    return Judged(
        verdict="INCONCLUSIVE",
        more_trials=trials_to_settle(ratio, margin=margin),
        is_demoted=is_slower or is_faster,
    )


def p_beyond(ratio: LogEstimate, *, margin: float) -> float:
    """Two-sided p of "the difference is no larger than the margin"; 1 where that is not in doubt.

    Below .05 exactly where the 95 % interval lies wholly beyond the margin on one side.
    """
    low, high = ratio.log_ends
    if max(low - margin, -margin - high) <= 0.0:
        return 1.0
    distance = abs(ratio.log) - margin
    return 2.0 * t_cdf(-distance / ratio.error, ratio.degrees) if ratio.error > 0.0 else 0.0


def benjamini_hochberg(p_values: Sequence[float], *, q: float = 0.05) -> list[bool]:
    """Which hypotheses are rejected when the expected share of false ones is held at `q`.

    Benjamini and Hochberg, JRSS B 57 (1995), https://doi.org/10.1111/j.2517-6161.1995.tb02031.x
    """
    num = len(p_values)
    ranked = enumerate(sorted(p_values), start=1)
    limit = max((p for place, p in ranked if p <= q * place / num), default=-1.0)
    return [p <= limit for p in p_values]


def trials_to_settle(ratio: LogEstimate, *, margin: float) -> int | None:
    """Trials per side, beyond those there are, until the interval should leave the margin.

    None over 1000. Takes the estimate and its error as true: a planning figure, not a promise.
    """
    distance = abs(abs(ratio.log) - margin)
    if distance == 0.0:
        return None
    quantile, needed, before = 1.96, 0.0, -1.0
    for _ in range(9):
        needed = (quantile * ratio.error / distance) ** 2 * ratio.num
        if needed > 1e4:
            return None
        if abs(needed - before) < 1e-3:
            break
        quantile, before = t_quantile(0.975, max(2.0 * needed - 2.0, 1.0)), needed
    more = max(math.ceil(needed - ratio.num), 1)
    return more if more <= 1000 else None


@dataclass(frozen=True, kw_only=True)
class PairedResult:
    """What two arms came to. The ratio is B / A."""

    ratio: float | None
    low: float | None
    high: float | None
    num_blocks: int
    num_left_out: int
    verdict: str
    reason: str
    more_blocks: int | None


def block_order(num_blocks: int) -> list[str]:
    """Arms in the order in which to run them: ABBA, then BAAB, in turn."""
    return [arm for block in range(num_blocks) for arm in ("ABBA" if block % 2 == 0 else "BAAB")]


def compare_arms(
    trials: Iterable[tuple[str, int, float | None]], *, threshold_frac: float
) -> PairedResult:
    """Judge arm B against arm A by trials: (arm, block, metric or None where it is not usable)."""
    differences, num_left_out = _block_differences(trials)
    num = len(differences)
    ratio = mean_of_logs(differences) if num else None
    reason = f"{num_left_out} blocks lost a trial and are left out" if num_left_out else ""
    low, high, judged = None, None, Judged(verdict="NOT COMPARED", more_trials=MIN_TRIALS - num)
    if ratio is None or num < MIN_TRIALS:
        reason = f"{num} whole blocks, needs {MIN_TRIALS}"
    else:
        # One difference a block: a paired t interval.
        [judged] = judge([ratio], threshold_fracs=[threshold_frac])
        low, high = ratio.interval or (None, None)
    return PairedResult(
        ratio=None if ratio is None else ratio.value,
        low=low,
        high=high,
        num_blocks=num,
        num_left_out=num_left_out,
        verdict=judged.verdict,
        reason=reason,
        more_blocks=judged.more_trials,
    )


def _block_differences(
    trials: Iterable[tuple[str, int, float | None]],
) -> tuple[list[float], int]:
    """Mean log(B) - mean log(A) of every whole block; how many blocks are not whole."""
    blocks: dict[int, dict[str, list[float | None]]] = {}
    for arm, block, value in trials:
        blocks.setdefault(block, {"A": [], "B": []})[arm].append(value)
    differences = []
    for arms in blocks.values():
        logs = [
            [math.log(value) for value in arms[arm] if value is not None and value > 0.0]
            for arm in "AB"
        ]
        lengths = {*map(len, arms.values()), *map(len, logs)}
        if len(lengths) == 1 and 0 not in lengths:
            differences.append(fmean(logs[1]) - fmean(logs[0]))
    return differences, len(blocks) - len(differences)
