"""Whether a run of requests may be used: judged from its schedule and its books, not from speed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bench.core.statistics import percentile
from bench.core.units import counted, format_duration, format_number
from bench.measure.timing.drift import change_over
from bench.measure.timing.validity import Problems
from bench.serve.slo import Attainment, Slo
from bench.serve.tally import LEFT, Served

LATE_FRAC = 0.05
"""Of the tightest limit, that the client may be late by at p99."""
SENT_FRAC = 0.99
LITTLE_FRAC, STAMP_S = 0.02, 1e-4
"""By how much the number present may differ; and what lies between a time and its count."""
BUSY_FRAC = 0.98
"""A server that idles more than the rest of it in the second half has no growing queue."""
GROWN_FRAC = 0.2
"""Of the median latency, over the window: a queue that grows adds far more, and noise less."""
ERRORS_FRAC, HEAVY_ERRORS_FRAC = 0.001, 0.01


def problems_of(
    served: Sequence[Served],
    *,
    slo: Slo | None,
    seconds: float,
    found: Attainment | None,
    is_one_server: bool,
    present_s: float | None = None,
) -> Problems:
    """Return what is wrong with the run; `found` is its attainment.

    `present_s` is the number of requests that were there, counted and integrated over time.
    """
    problems = [
        *_client_problems(served, slo=slo, seconds=seconds),
        *_little_problems(served, present_s=present_s),
        *_error_problems(served),
    ]
    if is_overloaded(served, seconds=seconds, is_one_server=is_one_server):
        left = sum(one.status == LEFT for one in served)
        grew = f"{counted(left, 'request')} left unserved" if left else "the queue grew to the end"
        problems.append(("overloaded", grew))
    if slo is not None and found is not None and found.verdict(slo.at) == "undecided":
        share = f"{100 * found.frac:.4g} % held {slo.label}"
        known = f"95 % interval {100 * found.low:.4g} to {100 * found.high:.4g} %"
        problems.append(("short_run", f"{share}, {known}"))
    return problems


def _client_problems(served: Sequence[Served], *, slo: Slo | None, seconds: float) -> Problems:
    """Whether requests were sent when the schedule said."""
    late_s = percentile([one.send_lag_s for one in served], 0.99)
    limits = [] if slo is None else [slo.latency_s, slo.ttft_s]
    tightest_s = min((one for one in limits if one is not None), default=None)
    sent = sum(one.sent_s <= seconds for one in served)
    words = f"requests were sent up to {format_duration(late_s)} late at p99"
    if tightest_s is not None and late_s > LATE_FRAC * tightest_s:
        return [("client_late", f"{words}, the limit is {format_duration(tightest_s)}")]
    if sent < SENT_FRAC * len(served):
        return [("client_late", f"{words}, {sent} of {len(served)} in time")]
    return []


def _little_problems(served: Sequence[Served], *, present_s: float | None) -> Problems:
    """Whether the number present, counted as it changed, is rate x mean time (Little's law).

    J. D. C. Little, Operations Research 9 (1961), https://doi.org/10.1287/opre.9.3.383
    """
    by_little_s = sum(one.ended_s - one.sent_s for one in served)
    slack_s = LITTLE_FRAC * by_little_s + STAMP_S * len(served)
    if present_s is None or abs(present_s - by_little_s) <= slack_s:
        return []
    whole_s = max(one.ended_s for one in served) - min(one.sent_s for one in served)
    if whole_s <= 0.0:
        return [("load_inconsistent", "no time passed")]
    counted_mean, by_little = (format_number(one / whole_s) for one in (present_s, by_little_s))
    words = f"{counted_mean} requests present on average, rate x mean time is {by_little}"
    return [("load_inconsistent", words)]


def _error_problems(served: Sequence[Served]) -> Problems:
    errors = Counter(one.status for one in served if one.is_error)
    share = sum(errors.values()) / len(served)
    if share <= ERRORS_FRAC:
        return []
    words = ", ".join(f"{count} x {name}" for name, count in errors.most_common())
    return [("endpoint_errors_heavy" if share > HEAVY_ERRORS_FRAC else "endpoint_errors", words)]


def is_overloaded(served: Sequence[Served], *, seconds: float, is_one_server: bool) -> bool:
    """Whether the queue still grew when the schedule ended: waits rise with the time of arrival."""
    if any(one.status == LEFT for one in served):
        return True
    change = change_over([one.latency_s for one in served])
    if change is None or change.frac <= max(change.half_width_frac, GROWN_FRAC):
        return False
    half_s = seconds / 2
    batches = {one.started_s: one for one in served}.values()
    busy_s = sum(
        max(0.0, min(one.ended_s, seconds) - max(one.started_s, half_s)) for one in batches
    )
    if is_one_server:
        return busy_s >= BUSY_FRAC * half_s
    # Of several at once it is not known how busy they were: a load that grows explains the rise.
    num_late = sum(one.scheduled_s > half_s for one in served)
    return num_late <= (1.0 + GROWN_FRAC) * (len(served) - num_late)
