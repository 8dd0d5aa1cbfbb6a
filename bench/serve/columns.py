"""From what became of each request to the columns of a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev

from bench.core.statistics import median, percentile
from bench.measure.timing.validity import Problems
from bench.results.schema import Row
from bench.serve.arrivals import Arrivals
from bench.serve.judgement import problems_of
from bench.serve.slo import Attainment, Slo, attainment
from bench.serve.tally import Served

FEWEST_FOR_P90, FEWEST_FOR_P99 = 64, 662
"""Requests, as for the steps of a closed loop."""


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What a run of requests came to."""

    row: Row
    problems: Problems
    attainment: Attainment | None
    """By which a rate is judged: of a day that of its busiest hours. None without limits, or where
    nobody came then."""
    served: Sequence[Served] = ()
    window_s: tuple[float, float] | None = None
    """When it was, on the engine's clock."""


def columns_of(
    served: Sequence[Served],
    *,
    slo: Slo | None,
    seconds: float,
    arrivals: Arrivals | None = None,
    is_one_server: bool = True,
    is_smoke: bool = False,
    present_s: float | None = None,
) -> Tally:
    """Return the columns of requests that came for so many seconds, in their order of arrival.

    `is_one_server`: batches follow one another, so that there is a time of service and a
    utilisation.
    """
    known = None if slo is None else attainment_of(served, slo=slo)
    problems = problems_of(
        served,
        slo=slo,
        seconds=seconds,
        found=known,
        is_one_server=is_one_server,
        present_s=present_s,
    )
    if is_smoke:
        problems = [("smoke", ""), *(one for one in problems if one[0] != "short_run")]
    answered = [one for one in served if one.status == "ok"]
    row: Row = {
        "requests": len(served),
        "errors": sum(one.is_error for one in served),
        "window_s": seconds,
        "offered_per_s": len(served) / seconds,
        "achieved_per_s": _achieved_per_s(answered, seconds=seconds),
        "send_lag_p99_ms": _ms(percentile([one.send_lag_s for one in served], 0.99)),
    }
    if known is not None and slo is not None:
        row |= {
            "attainment_frac": known.frac,
            "attainment_low_frac": known.low,
            "attainment_high_frac": known.high,
            "goodput_per_s": sum(one.holds(slo) for one in served) / seconds,
        }
    if all(code != "overloaded" for code, _ in problems):
        row |= latency_columns(answered)
    if is_one_server and answered:
        row |= server_columns(answered, seconds=seconds)
    tokens = [one.tokens_got for one in answered if one.tokens_got is not None]
    if tokens:
        row["decode_tok_per_s"] = sum(tokens) / _answering_s(answered, seconds=seconds)
    if known is not None and slo is not None and arrivals is not None:
        judged = in_busiest_hours(served, arrivals=arrivals, seconds=seconds)
        known = attainment_of(judged, slo=slo) if judged else None
    return Tally(row=row, problems=problems, attainment=known, served=served)


def in_busiest_hours(
    served: Sequence[Served], *, arrivals: Arrivals, seconds: float
) -> Sequence[Served]:
    """Return who came in the busiest hours of a day; all where the arrivals have no hours.

    A day's rate is that of its busiest hour: at night nearly everybody is in time.
    """
    return [one for one in served if arrivals.is_busiest(one.scheduled_s, seconds=seconds)]


def attainment_of(served: Sequence[Served], *, slo: Slo) -> Attainment:
    """Return the share of the requests that held every limit."""
    latencies_s = [one.latency_s for one in served]
    return attainment([one.holds(slo) for one in served], latencies_s=latencies_s)


def _achieved_per_s(answered: Sequence[Served], *, seconds: float) -> float | None:
    return len(answered) / _answering_s(answered, seconds=seconds) if answered else None


def _answering_s(answered: Sequence[Served], *, seconds: float) -> float:
    """Until the schedule's end, or the last answer where that is later."""
    return max(seconds, max(one.ended_s for one in answered))


def latency_columns(answered: Sequence[Served]) -> Row:
    """Latencies, waits and times of tokens; a percentile only above its least count."""
    row: Row = {"lat_n": len(answered)}
    row |= _quantiles("lat", [one.latency_s for one in answered], with_p90=True)
    row |= _quantiles("wait", [one.wait_s for one in answered])
    row |= _quantiles("ttft", [one.ttft_s for one in answered if one.ttft_s is not None])
    row |= _quantiles("tpot", [one.tpot_s for one in answered if one.tpot_s is not None])
    for name in ("tokens_asked", "tokens_sent", "tokens_got"):
        counts = [count for one in answered if (count := getattr(one, name)) is not None]
        row[f"{name}_mean"] = fmean(counts) if counts else None
    return row


def _quantiles(name: str, values_s: Sequence[float], *, with_p90: bool = False) -> Row:
    """`lat_p50_ms` and so on."""
    if not values_s:
        return {}
    row: Row = {f"{name}_p50_ms": _ms(median(values_s))}
    if with_p90 and len(values_s) >= FEWEST_FOR_P90:
        row[f"{name}_p90_ms"] = _ms(percentile(values_s, 0.9))
    if len(values_s) >= FEWEST_FOR_P99:
        row[f"{name}_p99_ms"] = _ms(percentile(values_s, 0.99))
    return row


def server_columns(answered: Sequence[Served], *, seconds: float) -> Row:
    """What one server did: its services, and the share of the window in which it worked."""
    batches = list({one.started_s: one for one in answered}.values())
    services_s = [one.ended_s - one.started_s for one in batches]
    busy_s = sum(
        max(0.0, min(one.ended_s, seconds) - min(one.started_s, seconds)) for one in batches
    )
    return {
        "service_p50_ms": _ms(median(services_s)),
        "service_cv": pstdev(services_s) / fmean(services_s),
        "utilisation_frac": busy_s / seconds,
        "batch_mean": len(answered) / len(batches),
    }


def _ms(value_s: float) -> float:
    return value_s * 1e3
