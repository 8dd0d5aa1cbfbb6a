"""Several devices and the links between them: what a link costs, and what wins it back.

Slowdown: one layout's step over each link, against the fastest one on the same terms. Mitigation:
how much of that an algorithm wins back, in time only. Efficiency: how far several devices are as
many times faster than one.

Two configurations are put into one ratio only when everything but what is compared is equal, the
mode included: an emulated step is never divided by a real one. Statistics are over trials; the
error band (of the link, with and without contention) stands beside them and is never mixed into
them. Loss is not looked at: gradients of virtual ranks are copies.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from bench.analysis.trials.configuration import LAYOUT, MITIGATION, Trials, grouped, number
from bench.core.log_estimate import Ends, LogEstimate, estimate
from bench.results.schema import Row

_DEVICES = tuple(name for name in LAYOUT if name != "mode")
_LINK = ("link", *MITIGATION)

ByTerms = dict[tuple[str, ...], Trials]
Singles = dict[tuple[str, ...], list[Trials]]
"""One-device runs by their terms, the mode among them."""


@dataclass(frozen=True, kw_only=True)
class Slowdown:
    """Step over a link against that over the fastest link."""

    fastest: Trials
    ratio: LogEstimate
    """Over 1: slower than over the fastest link."""
    ends: Ends | None
    """With both links at the fast, and both at the slow end of their error bands."""


def fastest_links(runs: Iterable[Trials]) -> ByTerms:
    """Return, per set of equal terms with two links or more, the run over the fastest link.

    The link whose modelled time for this traffic is least: a choice that measured noise has no part
    in. Only where that is not stated for all of them, the shortest step decides.
    """
    linked = (run for run in runs if run.link and run.step_s is not None)
    return {
        but_link: min(found, key=_order(found))
        for but_link, found in grouped(linked, lambda run: run.terms(but=("link",))).items()
        if len({run.link for run in found}) > 1
    }


def _order(found: Sequence[Trials]) -> Callable[[Trials], float]:
    if all(run.mean("comm_total_ms") is not None for run in found):
        return lambda run: run.mean("comm_total_ms") or 0.0
    return lambda run: math.inf if run.step_s is None else run.step_s.log


def slowdown(run: Trials, *, fastest: ByTerms) -> Slowdown | None:
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
    ratio = _trial_by_trial(run, other) or ratio
    ends = None
    if ours is not None and theirs is not None:
        low, high = sorted(mine / its for mine, its in zip(ours, theirs, strict=True))
        ends = low, high
    return Slowdown(fastest=other, ratio=ratio, ends=ends)


def _trial_by_trial(run: Trials, other: Trials) -> LogEstimate | None:
    """Ratio of steps that are replays of one another: both rows come of one trial."""
    column = "step_mean_ms" if run.shows_mean else "step_median_ms"
    ours, theirs = (
        {(row["run_id"], row["trial"], row.get("started_utc")): number(row, column) for row in some}
        for some in (run.used, other.used)
    )
    pairs = [(step_ms, theirs.get(key)) for key, step_ms in ours.items()]
    ratios = [mine / its for mine, its in pairs if mine and its]
    is_replayed = run.mode == "simulated" and len(ratios) == min(len(ours), len(theirs))
    return estimate(ratios) if is_replayed else None


def over_compute(trials: Trials) -> LogEstimate | None:
    """Step over the same steps without communication: what the machine did to both cancels."""
    column = "step_mean_ms" if trials.shows_mean else "step_median_ms"
    return trials.estimate(column, over="compute_step_ms")


def _ends_over_compute(trials: Trials) -> Ends | None:
    compute_ms = trials.mean("compute_step_ms")
    if trials.step_ends_s is None or not compute_ms:
        return None
    low_s, high_s = trials.step_ends_s
    return low_s * 1e3 / compute_ms, high_s * 1e3 / compute_ms


@dataclass(frozen=True, kw_only=True)
class Mitigated:
    """A run with a mitigation, beside the run without."""

    run: Trials
    change: LogEstimate
    """Time per item with it over that without, on the same link."""
    recovered: float | None
    """Share of the slowdown that is gone."""
    ends: Ends | None
    """Its 95 % interval, where trials allow one."""
    why_not: str
    """Why nothing is said to be recovered; '' when something is."""


def find_mitigated(runs: Sequence[Trials]) -> list[Mitigated]:
    """Every run with a mitigation that has a run without it on the same link and layout."""
    plains: ByTerms = {}
    for run in runs:
        if not any(run.facts(MITIGATION)) and run.time_per_item_s is not None:
            plains.setdefault(run.terms(but=MITIGATION), run)
    fastest = {run.terms(but=_LINK): run for run in fastest_links(plains.values()).values()}
    found = []
    for run in runs:
        plain = plains.get(run.terms(but=MITIGATION))
        if run.is_wide and any(run.facts(MITIGATION)) and plain is not None:
            mitigated = _mitigated(run, plain=plain, fastest=fastest.get(run.terms(but=_LINK)))
            found += [mitigated] if mitigated else []
    return found


def _mitigated(run: Trials, *, plain: Trials, fastest: Trials | None) -> Mitigated | None:
    with_s, without_s = run.time_per_item_s, plain.time_per_item_s
    if with_s is None or without_s is None:
        return None
    recovered, ends, why_not = None, None, ""
    fastest_s = None if fastest is None else fastest.time_per_item_s
    if fastest_s is None:
        why_not = "no other link to compare with"
    elif fastest is plain:
        why_not = "this is the fastest link"
    elif (lost := without_s.over(fastest_s)).value <= 1.0 or (lost.interval or (2.0,))[0] <= 1.0:
        why_not = "no clear slowdown to recover"
    else:
        recovered, ends = _recovered(with_s, without_s=without_s, fastest_s=fastest_s)
    change = with_s.over(without_s)
    return Mitigated(run=run, change=change, recovered=recovered, ends=ends, why_not=why_not)


def _recovered(
    with_s: LogEstimate, *, without_s: LogEstimate, fastest_s: LogEstimate
) -> tuple[float, Ends | None]:
    """(b - m) / (b - f), errors carried to first order; `without_s` must exceed `fastest_s`.

    b is the time per item without the mitigation, m with it, f without it over the fastest link.
    """
    b, m, f = without_s.value, with_s.value, fastest_s.value
    lost_s = b - f
    share = (b - m) / lost_s
    if not (with_s.parts and without_s.parts and fastest_s.parts):
        return share, None
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
    return share, (share - half_width, share + half_width)


def single_runs(runs: Iterable[Trials]) -> Singles:
    """One-device runs by their terms."""
    known = (run for run in runs if run.num_devices == 1 and run.time_per_item_s is not None)
    return grouped(known, lambda run: run.terms(but=_DEVICES))


def _one_device(run: Trials, *, singles: Singles) -> Trials | None:
    """Return the one-device run nearest to `run`: same terms, then as many equal mitigations."""

    def likeness(other: Trials) -> int:
        pairs = zip(run.facts(MITIGATION), other.facts(MITIGATION), strict=True)
        # One device sends nothing, so its link matters least.
        return 2 * sum(a == b for a, b in pairs) + (run.link == other.link)

    return max(singles.get(run.terms(but=_DEVICES), []), key=likeness, default=None)


def efficiency(
    run: Trials, *, singles: Singles
) -> tuple[LogEstimate, Literal["one device", "compute"]] | None:
    """Share of what so many devices could do, and by what; None for one device, or if none shows.

    one device: items per second and device over those of one device in the same mode. compute: the
    step without communication over the whole step, which forgives what cutting the work into
    smaller pieces costs.
    """
    if run.num_devices == 1:
        return None
    alone = _one_device(run, singles=singles)
    single_s = None if alone is None else alone.time_per_item_s
    item_s = run.time_per_item_s
    if single_s is not None and item_s is not None:
        return single_s.over(item_s).times(1.0 / run.num_devices), "one device"
    if run.shows_mean:
        mean_ms = run.estimate("window_s", over="steps", scale=1e3)
        compute_ms = run.estimate("compute_step_ms")
        found = None if mean_ms is None or compute_ms is None else compute_ms.over(mean_ms)
    else:
        found = run.estimate("compute_step_ms", over="step_median_ms")
    return None if found is None else (found, "compute")


def step_parts_ms(row: Row) -> dict[str, float]:
    """Where a modelled step goes: compute, loader, exposed; they add up to it.

    compute_step_ms holds the wait for the loader, as the step did. Where some is waited for these
    are parts of the mean step, since one step in several may wait for all. Not taken apart where
    an accelerator may have worked while its host waited: no step of that window was traced.
    """
    names = {"compute": "compute_step_ms", "exposed": "comm_exposed_ms"}
    parts = {
        part: value for part, name in names.items() if (value := number(row, name)) is not None
    }
    waited_s, steps = number(row, "data_wait_s"), number(row, "steps")
    is_traced = row.get("mode") == "simulated" or row.get("device_type") == "cpu"
    if "compute" in parts and waited_s and steps and is_traced:
        loader_ms, mean_ms = waited_s * 1e3 / steps, number(row, "step_mean_ms")
        if mean_ms is not None:  # medians of parts do not add up to that of the whole
            parts["compute"] = mean_ms - parts.get("exposed", 0.0)
        parts |= {"compute": parts["compute"] - loader_ms, "loader": loader_ms}
    return parts


def families(runs: Sequence[Trials]) -> list[list[Trials]]:
    """Runs that differ in the number of devices alone, by their number; two numbers at least.

    One device leads each family of its mode and terms, whichever link it named.
    """
    singles = single_runs(runs)
    several = (run for run in runs if run.num_devices > 1 and run.step_s is not None)
    found = []
    for family in grouped(several, lambda run: run.terms(but=("device_count", "layout"))).values():
        alone = _one_device(family[0], singles=singles)
        whole = [*([] if alone is None else [alone]), *family]
        if len({run.num_devices for run in whole}) > 1:
            found.append(sorted(whole, key=lambda run: (run.num_devices, run.facts(("layout",)))))
    return found
