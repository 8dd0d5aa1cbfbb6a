"""The search for the rate that an endpoint holds, and one rate's run: with and without a server."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bench.serve.arrivals import Arrivals, parse_arrivals
from bench.serve.endpoint.bracket import CLOSE, MOST_POINTS, bracket_of, next_rate
from bench.serve.endpoint.calibration import Overhead, overhead_of
from bench.serve.endpoint.closed_loop import ClosedLoop, users_of
from bench.serve.endpoint.endpoint_client import EndpointClient
from bench.serve.endpoint.endpoint_columns import endpoint_columns
from bench.serve.endpoint.rate_run import RateRun
from bench.serve.endpoint.rate_search import FoundRate, found_capacity, users_columns
from bench.serve.endpoint.token_server import server_process
from bench.serve.endpoint.wire.connections import Address, Connections
from bench.serve.endpoint.wire.dialect import Dialect
from bench.serve.lengths import parse_lengths
from bench.serve.slo import Slo, Verdict, parse_slo

SERVER = str(Path(__file__).with_name("faulty_server.py"))
FIRST_S, TOKEN_S, TOKENS = 0.02, 0.004, 6
NO_OVERHEAD = Overhead(p50_s=0.0, p99_s=0.0)


@pytest.fixture(scope="module")
def server() -> Iterator[Address]:
    with server_process([SERVER, str(FIRST_S), str(TOKEN_S)]) as address:
        yield address


def client_of(connections: Connections, model: str, *, tokens: int = TOKENS) -> EndpointClient:
    return EndpointClient(
        connections=connections,
        dialect=Dialect(model=model, is_chat=False),
        prompt=parse_lengths("fixed:20", what=""),
        output=parse_lengths(f"fixed:{tokens}", what=""),
        seed=0,
    )


def run_at(
    server: Address, model: str, *, rate: str, seconds: float, slo: str | None = None
) -> RateRun:
    async def run() -> RateRun:
        async with Connections(server, stall_s=0.5) as connections:
            limits = None if slo is None else parse_slo(slo)
            client = client_of(connections, model)
            found = RateRun(client, parse_arrivals(rate), slo=limits, seconds=seconds)
            await found.run()
            return found

    return asyncio.run(run())


# Which rate next ---------------------------------------------------------------------------------


def searched(truth: float, *, first: float, blind: float = 1.0) -> list[tuple[float, Verdict]]:
    """What a search tries where rates nearer than `blind` to the truth stay undecided."""
    tried: list[tuple[float, Verdict]] = []
    while (rate := next_rate(tried, first_per_s=first)) is not None:
        is_near = truth / blind < rate < truth * blind
        tried.append((rate, "undecided" if is_near else "holds" if rate < truth else "breaks"))
    return tried


@pytest.mark.parametrize("factor", [0.3, 0.99, 1.7, 20.0, 60.0])
def test_a_bracket_holds_the_truth_and_is_narrow_after_few_points(factor: float) -> None:
    tried = searched(factor, first=1.0)
    found = bracket_of(tried)
    assert len(tried) <= MOST_POINTS
    assert found.holds_per_s is not None and found.breaks_per_s is not None
    assert found.holds_per_s <= factor <= found.breaks_per_s
    assert found.breaks_per_s / found.holds_per_s < 1.35


def test_undecided_rates_are_no_end_of_the_bracket() -> None:
    tried = searched(10.0, first=1.0, blind=1.3)
    found = bracket_of(tried)
    assert any(verdict == "undecided" for _, verdict in tried)
    assert found.holds_per_s is not None and found.breaks_per_s is not None
    assert found.holds_per_s <= 10.0 / 1.3 and found.breaks_per_s >= 13.0


def test_a_server_that_holds_nothing_has_no_lower_end() -> None:
    tried = searched(0.0, first=1.0)
    assert bracket_of(tried).holds_per_s is None
    assert min(rate for rate, _ in tried) == 4.0 ** (1 - MOST_POINTS)


def test_a_rate_that_held_above_one_that_broke_counts_for_nothing() -> None:
    found = bracket_of([(1.0, "holds"), (2.0, "breaks"), (4.0, "holds")])
    assert (found.holds_per_s, found.breaks_per_s) == (1.0, 2.0)
    assert next_rate([(1.0, "holds"), (CLOSE, "breaks")], first_per_s=1.0) is None


# One rate ----------------------------------------------------------------------------------------


def test_a_rate_is_measured_after_its_warm_up(server: Address) -> None:
    run = run_at(server, "plain", rate="uniform:40/s", seconds=1.0, slo="ttft=500ms@p90")
    assert run.is_steady and not run.gone
    assert len(run.served) == 40
    row, problems = endpoint_columns(run, overhead=NO_OVERHEAD)
    assert (row["attainment_frac"], row["errors"], row["items"]) == (1.0, 0, 40 * TOKENS)
    assert row["ttft_p50_ms"] == pytest.approx(1e3 * FIRST_S, abs=5.0)
    assert "wait_p50_ms" not in row
    assert {code for code, _ in problems} <= {"chunks_joined", "short_run"}


@pytest.mark.parametrize("hours", [(), (1.0,) * 23 + (6.0,)])
def test_a_day_is_no_shorter_where_its_night_is_decided(
    server: Address, hours: tuple[float, ...]
) -> None:
    arrivals = Arrivals(law="day" if hours else "uniform", label="", rate_per_s=100.0, hours=hours)
    slo = parse_slo("ttft=5s@p50")

    async def run() -> RateRun:
        async with Connections(server, stall_s=5.0) as connections:
            asked: Any = {"slo": slo, "seconds": 4.0, "ends_when_decided": True}
            found = RateRun(client_of(connections, "plain"), arrivals, **asked)
            await found.run()
            return found

    found = asyncio.run(run())
    assert (found.seconds == 4.0) == bool(hours) and found.verdict == "holds"


def test_what_streams_lack_is_blank_with_its_reason(server: Address) -> None:
    for model, reason, blank in (
        ("no_usage", "no_usage", "tpot_p50_ms"),
        ("several", "chunks_joined", "itl_p99_ms"),
        ("cached", "prefix_cache_hit", None),
    ):
        run = run_at(server, model, rate="uniform:40/s", seconds=0.6)
        row, problems = endpoint_columns(run, overhead=NO_OVERHEAD)
        assert reason in {code for code, _ in problems}, model
        assert blank is None or row.get(blank) is None
    run = run_at(server, "early", rate="uniform:40/s", seconds=0.6)
    row, problems = endpoint_columns(run, overhead=Overhead(p50_s=1.0, p99_s=1.0))
    assert row["tokens_got_mean"] == 5.0 and row["ttft_p50_ms"] is None
    assert "24 of 24 answers ended early" in {words for _, words in problems}
    assert "client_overhead" in {code for code, _ in problems}


def test_errors_count_as_over_the_limit_and_say_what_the_first_was(server: Address) -> None:
    run = run_at(server, "503@4", rate="uniform:40/s", seconds=1.0, slo="ttft=500ms@p90")
    row, problems = endpoint_columns(run, overhead=NO_OVERHEAD)
    assert (row["errors"], row["attainment_frac"]) == (10, 0.75)
    assert ("endpoint_errors_heavy", "10 x http_503") in problems
    assert ("", "first error: not now") in problems


def test_a_run_ends_soon_after_its_server(server: Address) -> None:
    """What was answered before is kept."""

    async def run() -> RateRun:
        with server_process([SERVER, str(FIRST_S), str(TOKEN_S)]) as own:
            async with Connections(own, stall_s=0.5) as connections:
                client = client_of(connections, "plain")
                found = RateRun(client, parse_arrivals("uniform:50/s"), slo=None, seconds=60.0)
                running = asyncio.create_task(found.run())
                while len(found.loop.replies) < 10:
                    await asyncio.sleep(0.05)
                _, writer = await asyncio.open_connection(own.host, own.port)
                body = b'{"model": "leave"}'
                writer.write(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                async with asyncio.timeout(10.0):
                    await running
                writer.close()
        return found

    found = asyncio.run(run())
    assert found.gone.startswith("the server is gone")
    assert sum(one.status == "ok" for one in found.served) >= 10


def test_what_the_client_adds_is_known_before_a_run(server: Address) -> None:
    async def run() -> Overhead:
        async with Connections(server, stall_s=0.5) as connections:
            return await overhead_of(client_of(connections, ""), parse_arrivals("poisson:2/s"))

    found = asyncio.run(run())
    assert 0.0 < found.p50_s <= found.p99_s < 0.2
    assert found.hides([4.0 * found.p50_s]) and not found.hides([6.0 * found.p50_s])


# Capacity ----------------------------------------------------------------------------------------


def deterministic_capacity(service_s: float, *, limit_s: float, at: float) -> float:
    """Largest rate of M/D/1 whose `at` quantile of sojourns is the limit, by simulation."""

    def holds(rate: float) -> bool:
        source, ends_s, at_s, late, num = random.Random(0), 0.0, 0.0, 0, 40_000
        for _ in range(num):
            at_s += source.expovariate(rate)
            ends_s = max(at_s, ends_s) + service_s
            late += ends_s - at_s > limit_s
        return late <= (1.0 - at) * num

    low, high = 0.0, 1.0 / service_s
    for _ in range(12):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _decided(client: EndpointClient, arrivals: Arrivals, seconds: float, *, slo: Slo) -> RateRun:
    return RateRun(client, arrivals, slo=slo, seconds=seconds, ends_when_decided=True)


@pytest.mark.slow
def test_the_bracket_of_a_known_queue_holds_its_capacity_and_its_users(server: Address) -> None:
    async def run() -> tuple[FoundRate, dict[str, object], str]:
        async with Connections(server, stall_s=5.0) as connections:
            client = client_of(connections, "queue")
            run_of = partial(_decided, client, slo=parse_slo("latency=500ms@p90"))
            found = await found_capacity(
                client, run_of, arrivals=parse_arrivals("auto"), seconds=30.0
            )
            row, words = await users_columns(client, found, think_s=1.0)
            return found, dict(row), words

    found, row, words = asyncio.run(run())
    service_s = FIRST_S + (TOKENS - 1) * TOKEN_S + 0.002
    truth = deterministic_capacity(service_s, limit_s=0.5, at=0.9)
    holds, breaks = found.bracket.holds_per_s, found.bracket.breaks_per_s
    assert holds is not None and breaks is not None, found.words
    assert 0.9 * holds < truth < 1.1 * breaks, found.words
    assert isinstance(row["users"], float) and math.isfinite(row["users"]), words


def test_rates_that_bring_too_few_to_decide_are_not_tried(server: Address) -> None:
    async def run() -> FoundRate:
        async with Connections(server, stall_s=5.0) as connections:
            client = client_of(connections, "plain")
            # No answer is so soon, however few are asked for.
            run_of = partial(_decided, client, slo=parse_slo("latency=1ms@p90"))
            return await found_capacity(client, run_of, arrivals=parse_arrivals("auto"), seconds=3)

    found = asyncio.run(run())
    assert found.bracket.holds_per_s is None and found.words.count("/s breaks") == 1
    assert found.words.endswith("to be decided")


@pytest.mark.slow
def test_users_who_wait_come_to_the_rate_of_the_law(server: Address) -> None:
    async def run() -> float:
        async with Connections(server, stall_s=5.0) as connections:
            loop = ClosedLoop(client_of(connections, "plain"), think_s=0.5)
            latency_s = FIRST_S + TOKENS * TOKEN_S
            users = users_of(20.0, think_s=0.5, latency_s=latency_s)
            sent, _ = await loop.rate_per_s(round(users), expected_per_s=20.0, latency_s=latency_s)
            return sent

    assert asyncio.run(run()) == pytest.approx(20.0, rel=0.1)
