"""Two arms of one job, measured in ABBA blocks: a paired t interval that drift cannot bias.

Within a block the arms take the places 1, 4 and 2, 3, so a machine that slows down steadily slows
both of them by the same amount and the difference of the block is free of it. One block is one
observation; a block that lost a trial is left out and counted. Running the arms is left to the
caller, who marks each trial with its arm and its block.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.analysis.comparison.comparison import value_of
from bench.analysis.comparison.verdicts import MIN_TRIALS, Judged, judge
from bench.analysis.trials.estimates import mean_of_logs


@dataclass(frozen=True, kw_only=True)
class ArmTrial:
    """One trial of an arm."""

    arm: str
    """'A' or 'B'."""
    block: int
    value: float | None
    """The metric; None when the trial is not usable."""


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


def _block_differences(trials: Sequence[ArmTrial]) -> tuple[list[float], int]:
    """Mean log(B) - mean log(A) of every whole block; how many blocks are not whole."""
    blocks: dict[int, Mapping[str, list[float | None]]] = {}
    for trial in trials:
        blocks.setdefault(trial.block, {"A": [], "B": []})[trial.arm].append(trial.value)
    differences = []
    for arms in blocks.values():
        logs = {
            arm: [math.log(value) for value in values if value is not None and value > 0.0]
            for arm, values in arms.items()
        }
        is_whole = all(logs[arm] and len(logs[arm]) == len(arms[arm]) for arm in "AB")
        if is_whole and len(logs["A"]) == len(logs["B"]):
            means = {arm: math.fsum(values) / len(values) for arm, values in logs.items()}
            differences.append(means["B"] - means["A"])
    return differences, len(blocks) - len(differences)


def compare_arms(trials: Sequence[ArmTrial], *, threshold_frac: float) -> PairedResult:
    """Judge arm B against arm A by their blocks."""
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
        ratio=value_of(ratio),
        low=low,
        high=high,
        num_blocks=num,
        num_left_out=num_left_out,
        verdict=judged.verdict,
        reason=reason,
        more_blocks=judged.more_trials,
    )
