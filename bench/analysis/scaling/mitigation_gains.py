"""How much of what a narrow link costs an algorithmic mitigation wins back: time only.

On one link and layout: time per item without the mitigation (b), with it (m), and without it over
the fastest link (f). Recovered is (b - m) / (b - f), 1 when the narrow link no longer matters. What
a mitigation does to learning is another question, which virtual ranks cannot answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.analysis.scaling.slowdown import fastest_links
from bench.analysis.trials.configuration import Trials
from bench.analysis.trials.estimates import LogEstimate
from bench.analysis.trials.identity import MITIGATION

_LINK = ("link", *MITIGATION)


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """Share of a slowdown that is gone, with its 95 % interval where trials allow one."""

    share: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Mitigated:
    """A run with a mitigation, beside the run without."""

    run: Trials
    plain: Trials
    change: LogEstimate
    """Time per item with it over that without, on the same link."""
    recovered: Recovered | None
    why_not: str
    """Why nothing is said to be recovered; '' when something is."""


def find_mitigated(runs: Sequence[Trials]) -> list[Mitigated]:
    """Every run with a mitigation that has a run without it on the same link and layout."""
    plains: dict[tuple[str, ...], Trials] = {}
    for run in runs:
        if run.is_plain and run.window_per_item_s is not None:
            plains.setdefault(run.terms(but=MITIGATION), run)
    fastest = {run.terms(but=_LINK): run for run in fastest_links(plains.values()).values()}
    found = []
    for run in runs:
        plain = plains.get(run.terms(but=MITIGATION))
        if run.is_wide and not run.is_plain and plain is not None:
            mitigated = _mitigated(run, plain=plain, fastest=fastest.get(run.terms(but=_LINK)))
            found += [] if mitigated is None else [mitigated]
    return found


def _mitigated(run: Trials, *, plain: Trials, fastest: Trials | None) -> Mitigated | None:
    with_s, without_s = run.window_per_item_s, plain.window_per_item_s
    if with_s is None or without_s is None:
        return None
    recovered, why_not = None, ""
    fastest_s = None if fastest is None else fastest.window_per_item_s
    lost = None if fastest_s is None else without_s.over(fastest_s)
    if fastest_s is None or lost is None:
        why_not = "no other link to compare with"
    elif fastest is plain:
        why_not = "this is the fastest link"
    elif lost.value <= 1.0 or (lost.interval is not None and lost.interval[0] <= 1.0):
        why_not = "no clear slowdown to recover"
    else:
        recovered = recovered_share(with_s, without_s=without_s, fastest_s=fastest_s)
    change = with_s.over(without_s)
    return Mitigated(run=run, plain=plain, change=change, recovered=recovered, why_not=why_not)


def recovered_share(
    with_s: LogEstimate, *, without_s: LogEstimate, fastest_s: LogEstimate
) -> Recovered:
    """(b - m) / (b - f), errors carried to first order; `without_s` must exceed `fastest_s`."""
    b, m, f = without_s.value, with_s.value, fastest_s.value
    lost_s = b - f
    share = (b - m) / lost_s
    if not (with_s.parts and without_s.parts and fastest_s.parts):
        return Recovered(share=share, low=None, high=None)
    # Derivatives by the logarithm of each time, whose squared errors are in `parts`.
    slopes = (
        (without_s, b * (m - f) / lost_s**2),
        (with_s, -m / lost_s),
        (fastest_s, f * (b - m) / lost_s**2),
    )
    parts = tuple(
        (slope**2 * part, degrees) for one, slope in slopes for part, degrees in one.parts
    )
    half_width = LogEstimate(log=0.0, parts=parts).half_width or 0.0
    return Recovered(share=share, low=share - half_width, high=share + half_width)
