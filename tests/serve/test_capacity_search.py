"""The search for a capacity, with live runs in simulated time."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from statistics import fmean

import pytest

from bench.core.units import format_number
from bench.serve.arrivals import Arrivals, parse_arrivals
from bench.serve.batcher import BatchRule
from bench.serve.columns import Tally, columns_of
from bench.serve.fake_server import lognormal, serve
from bench.serve.live.capacity_search import Searched, search
from bench.serve.live.services import Batched, OneByOne, timed_batches
from bench.serve.slo import parse_slo

SERVICE_S, SECONDS = 0.03, 60.0
SLO = parse_slo("300ms@p95")
Live = Callable[[Arrivals], Tally]


def live_runs(*, slower: float, seed: int) -> Live:
    """Live runs on a server whose services are so many times those of the closed loop."""
    law, seeds = lognormal(slower * SERVICE_S, cv=0.15, seed=seed), count(1000 * seed)

    def live(arrivals: Arrivals) -> Tally:
        coming = arrivals.draw(seconds=SECONDS, seed=next(seeds))
        return columns_of(serve(coming, law=law), slo=SLO, seconds=SECONDS)

    return live


def searched(*, slower: float, seed: int) -> Searched:
    law = lognormal(SERVICE_S, cv=0.15, seed=seed)
    return search(
        OneByOne(alone_s=[law(1) for _ in range(700)]),
        slo=SLO,
        arrivals=parse_arrivals("auto"),
        seconds=SECONDS,
        live=live_runs(slower=slower, seed=seed),
    )


def test_what_is_predicted_is_confirmed_in_nine_of_ten_trials() -> None:
    verdicts = [searched(slower=1.0, seed=seed).row["capacity_is"] for seed in range(10)]
    assert verdicts.count("confirmed") >= 9 and "refuted" not in verdicts


def test_a_server_that_is_slower_than_its_closed_loop_is_known_by_its_own_services() -> None:
    as_told = searched(slower=1.0, seed=1).row
    found = searched(slower=1.2, seed=1)
    assert found.row["capacity_is"] == "confirmed" and found.problems[-1][0] == ""
    ratio = float(str(as_told["capacity_per_s"])) / float(str(found.row["capacity_per_s"]))
    assert 1.15 < ratio < 1.3
    assert found.row["service_p50_ms"] == as_told["service_p50_ms"], "what was timed"
    first, second, *_ = found.problems[-1][1].split("; ")
    assert "holds" not in first and second.endswith("holds")
    assert float(str(found.row["attainment_frac"])) >= 0.95, "the row is of the run that held"


def test_waiting_that_services_do_not_explain_refutes_and_is_not_looked_for_again() -> None:
    """Every other request is fetched by the server only when its limit is over."""
    inner = live_runs(slower=1.0, seed=1)
    rates = []

    def live(arrivals: Arrivals) -> Tally:
        rates.append(arrivals.rate_per_s)
        served = list(inner(arrivals).served)
        served[::2] = [
            replace(one, scheduled_s=one.scheduled_s - 0.3, sent_s=one.sent_s - 0.3)
            for one in served[::2]
        ]
        return columns_of(served, slo=SLO, seconds=SECONDS)

    law = lognormal(SERVICE_S, cv=0.15, seed=1)
    services = OneByOne(alone_s=[law(1) for _ in range(700)])
    auto = parse_arrivals("auto")
    found = search(services, slo=SLO, arrivals=auto, seconds=SECONDS, live=live)
    assert found.row["capacity_is"] == "refuted" and len(rates) == 1
    assert found.problems[-1][0] == "capacity_not_confirmed"


def test_of_too_few_services_the_ends_are_rates_that_held_and_broke() -> None:
    law = lognormal(SERVICE_S, cv=0.15, seed=3)
    services = OneByOne(alone_s=[law(1) for _ in range(150)])
    live = live_runs(slower=1.0, seed=3)
    auto = parse_arrivals("auto")
    found = search(services, slo=SLO, arrivals=auto, seconds=SECONDS, live=live)
    words = found.problems[-1][1].split("; ")
    assert words[0] == "150 service times are too few for an interval"
    ends = [float(str(found.row[f"capacity_{end}_per_s"])) for end in ("low", "high")]
    for end, said, verdict in zip(ends, words[1:], ("holds", "breaks"), strict=True):
        assert said.startswith(f"live at {format_number(end)}/s") and said.endswith(verdict)
    assert ends[0] < float(str(found.row["capacity_per_s"])) < ends[1]


def test_without_an_interval_the_lower_end_is_the_rate_that_the_row_is_of() -> None:
    law = lognormal(SERVICE_S, cv=0.15, seed=3)
    found = search(
        OneByOne(alone_s=[law(1) for _ in range(150)]),
        slo=SLO,
        arrivals=parse_arrivals("auto"),
        seconds=SECONDS,
        live=live_runs(slower=0.5, seed=3),
    ).row
    assert found["capacity_is"] == "low_only" and found["capacity_high_per_s"] is None
    assert float(str(found["capacity_low_per_s"])) <= float(str(found["capacity_per_s"]))


class FourShapes:
    """Eight requests of four shapes, each batch a law's."""

    shapes = (1, 2, 3, 4) * 2

    def __init__(self) -> None:
        self._law = lognormal(SERVICE_S, cv=0.15, seed=5)

    def batch_s(self, requests: Sequence[int]) -> float:
        (shape,) = {self.shapes[one] for one in requests}
        return shape * (1 + len(requests)) * self._law(1)


def batches_of(max_batch: int, *, most_s: float) -> Batched:
    rule = BatchRule(max_batch=max_batch, max_wait_s=0.02)
    return timed_batches(FourShapes(), rule=rule, most_s=most_s, is_smoke=False)


@pytest.mark.parametrize("max_batch", [2, 3, 4, 8, 64])
def test_batches_of_every_shape_are_timed_until_an_interval_can_be_drawn(max_batch: int) -> None:
    found = batches_of(max_batch, most_s=1e9)
    assert found.has_enough, found.known
    means = [fmean(series) for series in zip(*found.kinds[3].rounds, strict=True)]
    assert means[1] / means[0] == pytest.approx(3 / 2, rel=0.1)


def test_too_few_batches_are_counted_by_shape() -> None:
    found = batches_of(2, most_s=10.0)
    assert not found.has_enough
    words = search(
        found,
        slo=parse_slo("2s@p95"),
        arrivals=parse_arrivals("auto"),
        seconds=SECONDS,
        live=live_runs(slower=1.0, seed=1),
    ).problems[-1][1]
    num = len(found.kinds[0].rounds) * 2
    assert words.startswith(f"{num} batches of a shape are too few for an interval")


def test_a_day_is_judged_by_its_busiest_hour() -> None:
    """Of the whole day enough requests are in time, since few of them come in that hour."""
    day = Arrivals(law="day", label="day:ct", rate_per_s=None, hours=(4.0,) * 23 + (6.0,))
    law, seconds = lognormal(SERVICE_S, cv=0.15, seed=1), 2400.0
    shares, slower = [], lognormal(1.15 * SERVICE_S, cv=0.15, seed=2)

    def live(arrivals: Arrivals) -> Tally:
        coming = arrivals.draw(seconds=seconds, seed=7)
        served = serve(coming, law=slower)
        tally = columns_of(served, slo=SLO, seconds=seconds, arrivals=arrivals)
        shares.append(float(str(tally.row["attainment_frac"])))
        return tally

    services = OneByOne(alone_s=[law(1) for _ in range(700)])
    found = search(services, slo=SLO, arrivals=day, seconds=seconds, live=live)
    first, second, *_ = found.problems[-1][1].split("; ")
    assert shares[0] > 0.95 and first.endswith("breaks"), first
    assert second.endswith("holds")


def test_a_day_too_short_for_its_busiest_hour_decides_nothing() -> None:
    day = Arrivals(law="day", label="day:ct", rate_per_s=None, hours=(4.0,) * 23 + (6.0,))
    law = lognormal(SERVICE_S, cv=0.15, seed=1)
    found = search(
        OneByOne(alone_s=[law(1) for _ in range(700)]),
        slo=SLO,
        arrivals=day,
        seconds=SECONDS,
        live=live_runs(slower=1.0, seed=1),
    )
    assert found.row["capacity_is"] == "predicted"
    assert found.problems[-1][1].endswith("10 requests that may be late in the busiest hour")
