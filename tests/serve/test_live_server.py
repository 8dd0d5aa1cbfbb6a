"""A server in real time, short: who is served when, whose answer is whose, what is kept."""

import time
from collections.abc import Sequence
from typing import Any

import pytest

from bench.core.nouns import Serving
from bench.measure.messages import Messages, TrialResult
from bench.measure.timing.clock import Clock
from bench.serve.arrival_files import Arrival
from bench.serve.batcher import BatchRule
from bench.serve.judgement import problems_of
from bench.serve.live import server
from bench.serve.live.clients import ScheduleClient
from bench.serve.live.own_answers import most_alike
from bench.serve.live.server import run_server
from bench.serve.live.serving_engine import ServingEngine
from bench.serve.served_trial import run_request
from bench.serve.tally import Served
from tests.measure.trial_requests import request_of

FAST = {"seconds": 0.002}


def answered(name: str, **how: Any) -> TrialResult:
    """Run a served trial in this process."""
    sent: list[Any] = []
    messages = Messages()
    messages.send = sent.append  # type: ignore[method-assign]
    run_request(request_of(name, **how), messages)
    (result,) = (one for one in sent if isinstance(one, TrialResult))
    return result


def result_of(**how: Any) -> TrialResult:
    """Serve a wait of 2 ms for each batch, whatever is in it."""
    asked = {"arrivals": "uniform:100/s", "given": "uniform:100/s", "slo": "1s@p95", "seconds": 0.6}
    return answered("sleep-infer", overrides=FAST, serving=Serving(**(asked | how)))


def test_requests_are_served_one_by_one_from_the_host() -> None:
    result = result_of()
    row = result.row
    assert row["requests"] == row["lat_n"] == 60 and row["errors"] == 0
    assert row["service_p50_ms"] == pytest.approx(2.2, abs=1.5)  # type: ignore[comparison-overlap]
    assert row["attainment_frac"] == 1.0 and row["distinct_items"] == 4
    assert set(result.reasons) <= {"smoke", "client_late"}, result.detail
    assert result.window_end_s - result.window_start_s >= 0.6


def test_requests_that_wait_share_a_batch_and_get_their_own_answers() -> None:
    arrivals = {"arrivals": "uniform:2000/s", "given": "uniform:2000/s"}
    row = result_of(**arrivals, max_batch=8, seconds=0.3).row
    assert 2 < float(str(row["batch_mean"])) <= 8 and row["requests"] == 600


def test_a_warm_up_puts_together_what_a_server_would(monkeypatch: pytest.MonkeyPatch) -> None:
    """Volumes of a folder differ in shape, and only those of one shape are ever served together."""
    engine, shapes = object.__new__(ServingEngine), [24, 36, 24, 24, 36]
    served: list[Sequence[int]] = []
    engine._requests = [[one] for one in shapes]
    monkeypatch.setattr(engine, "shape_of", shapes.__getitem__)
    monkeypatch.setattr(engine, "serve", served.append)
    engine.warm_batches(3)
    found = sorted((len(one), *{shapes[place] for place in one}) for one in served)
    assert found == [(2, 24), (2, 36), (3, 24), (3, 36)]


def test_books_that_say_less_than_who_was_counted_make_the_row_invalid(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def booked(**times: Any) -> Served:
        return Served(**(times | {"ended_s": times["started_s"] + 1e-3}))

    monkeypatch.setattr(server, "Served", booked)
    result = answered(
        "sleep-infer",
        overrides={"seconds": 0.01},
        serving=Serving(arrivals="uniform:50/s", given="uniform:50/s", seconds=0.5),
    )
    assert "load_inconsistent" in result.reasons
    assert "requests present on average, rate x mean time is" in result.detail


def test_answers_are_checked_of_requests_that_can_share_a_batch() -> None:
    assert most_alike([24, 36, 48, 36, 24, 36, 60]) == [1, 3, 5, 0, 4, 2, 6]


def test_somebody_elses_answer_makes_the_row_invalid(monkeypatch: pytest.MonkeyPatch) -> None:
    serve = ServingEngine.serve

    def swapped(engine: ServingEngine, requests: Any) -> Any:
        return serve(engine, list(requests)[::-1])

    monkeypatch.setattr(ServingEngine, "serve", swapped)
    result = result_of(max_batch=4)
    assert "wrong_output" in result.reasons
    assert "has the answer of request" in result.detail
    assert "wrong_output" not in result_of(max_batch=1).reasons, "alone nobody can be swapped"


def test_more_than_can_be_served_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    start_s = time.monotonic()
    arrivals = {"arrivals": "uniform:5000/s", "given": "uniform:5000/s"}
    result = result_of(**arrivals, seconds=0.3, slo="10ms@p95")
    assert "overloaded" in result.reasons and "left unserved" in result.detail
    assert result.row["errors"] == 0 and time.monotonic() - start_s < 20


def test_requests_that_the_client_never_sent_are_not_laid_on_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    send_all = ScheduleClient._send_all

    def gives_up(client: ScheduleClient) -> None:
        some = ScheduleClient(client._schedule_s[:5], clock=client._clock, on_sent=None)
        some.start_s, some.sent_s, some._inbox = client.start_s, client.sent_s, client._inbox
        send_all(some)

    monkeypatch.setattr(ScheduleClient, "_send_all", gives_up)
    served = run_server(
        [Arrival(at_s=0.01 * place) for place in range(20)],
        serve=lambda places: None,
        shapes=[None] * 20,
        rule=BatchRule(),
        last_s=0.4,
        clock=Clock(),
    )
    assert [one.status for one in served] == ["ok"] * 5 + ["left"] * 15
    assert all(one.send_lag_s > 0.1 for one in served[5:])
    asked: Any = {"slo": None, "seconds": 0.2, "found": None, "is_one_server": True}
    (words,) = (words for code, words in problems_of(served, **asked) if code == "client_late")
    assert "5 of 20 in time" in words


def test_what_bringing_a_request_computes_is_no_work_of_a_step() -> None:
    serving = Serving(arrivals="uniform:20/s", given="uniform:20/s", seconds=0.3)
    result = answered("llm-decode", serving=serving)
    assert "flops_unconfirmed" not in result.reasons, result.detail
