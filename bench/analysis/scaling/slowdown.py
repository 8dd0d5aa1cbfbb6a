"""What a link costs: one layout's step over each link, against the fastest one on the same terms.

Two configurations are put into one ratio only when everything but the link is equal, the mode
included: an emulated step is never divided by a real one. Statistics are over trials; the error
band (of the link, with and without contention) stands beside them and is never mixed into them.
Loss is not looked at: gradients of virtual ranks are copies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bench.analysis.trials.configuration import Ends, Trials
from bench.analysis.trials.estimates import LogEstimate


def over_compute(trials: Trials) -> LogEstimate | None:
    """Step over the same steps without communication: what the machine did to both cancels."""
    column = "step_mean_ms" if trials.shows_mean else "step_median_ms"
    return trials.estimate(column, over="compute_step_ms")


def _ends_over_compute(trials: Trials) -> Ends | None:
    """Both ends of the step over the step without communication."""
    compute_ms = trials.mean("compute_step_ms")
    if trials.step_ends_s is None or not compute_ms:
        return None
    low_s, high_s = trials.step_ends_s
    return low_s * 1e3 / compute_ms, high_s * 1e3 / compute_ms


@dataclass(frozen=True, kw_only=True)
class Slowdown:
    """Step over a link against that over the fastest link."""

    fastest: Trials
    ratio: LogEstimate
    """Over 1: slower than over the fastest link."""
    ends: Ends | None
    """With both links at the fast, and both at the slow end of their error bands."""


def fastest_links(runs: Iterable[Trials]) -> dict[tuple[str, ...], Trials]:
    """Return, per set of equal terms with two links or more, the run over the fastest link.

    The link whose modelled time for this traffic is least: a choice that measured noise has no part
    in. Only where that is not stated for all of them, the shortest step decides.
    """
    together: dict[tuple[str, ...], list[Trials]] = {}
    for run in runs:
        if run.link and run.step_s is not None:
            together.setdefault(run.terms(but=("link",)), []).append(run)
    return {
        but_link: min(found, key=_order(found))
        for but_link, found in together.items()
        if len({run.link for run in found}) > 1
    }


def _order(found: Sequence[Trials]) -> Callable[[Trials], float]:
    if all(run.mean("comm_total_ms") is not None for run in found):
        return lambda run: run.mean("comm_total_ms") or 0.0
    return lambda run: math.inf if run.step_s is None else run.step_s.log


def slowdown(run: Trials, *, fastest: dict[tuple[str, ...], Trials]) -> Slowdown | None:
    """Set a run against the fastest link; None for that one itself, and where there is no other."""
    other = fastest.get(run.terms(but=("link",))) if run.link else None
    if other is None or other is run or run.step_s is None or other.step_s is None:
        return None
    ratio, ours, theirs = run.step_s.over(other.step_s), run.step_ends_s, other.step_ends_s
    paired = over_compute(run), over_compute(other)
    if paired[0] is not None and paired[1] is not None:
        # Each step was replayed without its communication in the trial that ran it: divided by
        # that, it no longer holds how fast the machine happened to be in that trial.
        ratio = paired[0].over(paired[1])
        ours, theirs = _ends_over_compute(run), _ends_over_compute(other)
    ends = None
    if ours is not None and theirs is not None:
        both = [mine / its for mine, its in zip(ours, theirs, strict=True)]
        ends = min(both), max(both)
    return Slowdown(fastest=other, ratio=ratio, ends=ends)
