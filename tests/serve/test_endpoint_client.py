"""The client of an endpoint against a server with known times, and every fault, in real time."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.core.errors import MeasurementError, UsageError
from bench.core.statistics import median
from bench.serve.arrival_files import Arrival
from bench.serve.endpoint.open_loop import OpenLoop
from bench.serve.endpoint.opening import opened
from bench.serve.endpoint.token_server import server_process
from bench.serve.endpoint.wire.connections import Address, Connections, parse_address
from bench.serve.endpoint.wire.dialect import Dialect
from bench.serve.endpoint.wire.http_answer import AnswerReader, RequestError
from bench.serve.endpoint.wire.request_stream import Reply

SERVER = str(Path(__file__).with_name("faulty_server.py"))
FIRST_S, TOKEN_S, STALL_S = 0.05, 0.01, 0.5


@pytest.fixture(scope="module")
def server() -> Iterator[Address]:
    with server_process([SERVER, str(FIRST_S), str(TOKEN_S)]) as address:
        yield address


def replies_of(
    server: Address,
    model: str,
    *,
    num: int = 1,
    every_s: float = 0.0,
    tokens: int = 8,
    is_chat: bool = False,
) -> list[Reply]:
    async def run() -> list[Reply]:
        schedule = [
            Arrival(at_s=place * every_s, prompt_tokens=20, output_tokens=tokens)
            for place in range(num)
        ]
        async with Connections(server, stall_s=STALL_S) as connections:
            loop = OpenLoop(connections, Dialect(model=model, is_chat=is_chat), seed="0")
            await loop.run(schedule)
        return loop.replies

    return asyncio.run(run())


def dialect_of(server: Address, model: str, *, is_chat: bool = False) -> Dialect:
    async def run() -> Dialect:
        async with Connections(server, stall_s=STALL_S) as connections:
            return await opened(connections, model=model, is_chat=is_chat, prompt_tokens=20)

    return asyncio.run(run())


def tpot_ms(reply: Reply) -> float:
    served = reply.served
    assert served.last_token_s and served.first_token_s and served.tokens_got
    return 1e3 * (served.last_token_s - served.first_token_s) / (served.tokens_got - 1)


# What is in a stream -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("num", [1, 32])
def test_times_are_the_servers_at_one_request_and_at_many(server: Address, num: int) -> None:
    """Acceptance 9: TPOT within 2 %, TTFT within what the client adds and 2 ms."""
    latency_s = FIRST_S + 60 * TOKEN_S
    replies = replies_of(server, "plain", num=4 * num, every_s=latency_s / num, tokens=60)
    assert [one.served.status for one in replies] == ["ok"] * 4 * num
    assert median([tpot_ms(one) for one in replies]) == pytest.approx(1e3 * TOKEN_S, rel=0.02)
    ttft_s = [(one.served.first_token_s or 0.0) - one.served.scheduled_s for one in replies]
    assert FIRST_S <= median(ttft_s) <= FIRST_S + 0.005


def test_tokens_are_those_that_the_server_counts(server: Address) -> None:
    (reply,) = replies_of(server, "several")
    assert (reply.served.tokens_got, len(reply.gaps_s)) == (8, 1)
    assert reply.joins_tokens
    (reply,) = replies_of(server, "joined")
    assert (reply.served.tokens_got, len(reply.gaps_s)) == (8, 7)
    assert not reply.joins_tokens and sum(gap < 1e-4 for gap in reply.gaps_s) == 4
    (reply,) = replies_of(server, "no_usage")
    assert (reply.served.status, reply.served.tokens_got) == ("ok", None)
    (reply,) = replies_of(server, "early")
    assert (reply.served.tokens_got, reply.served.tokens_asked) == (5, 8)
    (reply,) = replies_of(server, "cached")
    assert (reply.cached_tokens, reply.served.tokens_sent) == (7, 20)


def test_a_role_is_no_token_and_what_a_model_thinks_is(server: Address) -> None:
    (reply,) = replies_of(server, "chat", is_chat=True)
    assert reply.served.status == "ok"
    assert len(reply.gaps_s) == 7
    first_s = reply.served.first_token_s
    assert first_s is not None and first_s - reply.served.sent_s > 1.9 * TOKEN_S


def test_a_stream_may_be_cut_anywhere(server: Address) -> None:
    (reply,) = replies_of(server, "cut_apart", tokens=2)
    assert (reply.served.status, reply.served.tokens_got, len(reply.gaps_s)) == ("ok", 2, 1)


# Faults ------------------------------------------------------------------------------------------

FAULTS = {
    "reset": "reset",
    "half_close": "cut",
    "stall": "stalled",
    "drip": "stalled",
    "endless": "never_ends",
    "malformed": "malformed",
    "error_event": "error_event",
    "no_end": "cut",
    "html": "not_events",
    "not_http": "not_http",
    "empty": "no_token",
    "429": "http_429",
    "500": "http_500",
    "503": "http_503",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_counted_and_ends(server: Address, fault: str) -> None:
    """Acceptance 10: within the stall and 5 s, and counts are exact."""
    start_s = time.monotonic()
    replies = replies_of(server, f"{fault}@3", num=9, every_s=0.02)
    assert time.monotonic() - start_s < STALL_S + 5.0
    assert Counter(one.served.status for one in replies) == {"ok": 6, FAULTS[fault]: 3}
    assert all(bool(one.words) != (one.served.status == "ok") for one in replies)


def test_a_finish_reason_stands_for_done(server: Address) -> None:
    (reply,) = replies_of(server, "no_done")
    assert reply.served.status == "ok"


def test_no_server_is_a_fault_as_well() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = Address(
            host="127.0.0.1", port=closed.getsockname()[1], path="/v1", is_encrypted=False
        )
        assert [one.served.status for one in replies_of(address, "plain", num=3)] == ["refused"] * 3
        with pytest.raises(MeasurementError, match="refused.*is it started"):
            dialect_of(address, "plain")


# What a server takes -----------------------------------------------------------------------------


def test_what_a_server_refuses_is_left_out_and_noted(server: Address) -> None:
    dialect = dialect_of(server, "strict")
    assert "ignore_eos" not in dialect.fields and "temperature" in dialect.fields
    assert not dialect.takes_ids and dialect.tokens_around == 1
    assert "water" not in dialect.words and "time" in dialect.words
    assert [note.split(",")[0] for note in dialect.notes] == [
        "the server takes no ignore_eos",
        "prompts are English words",
    ]


def test_a_refusal_that_repeats_the_request_names_no_field(server: Address) -> None:
    dialect = dialect_of(server, "wordy")
    assert "ignore_eos" in dialect.fields and not dialect.takes_ids
    assert "one is taken as one token" in dialect.notes[0]


def test_a_server_that_takes_everything_is_asked_as_it_is(server: Address) -> None:
    assert dialect_of(server, "plain") == Dialect(model="plain", is_chat=False)


@pytest.mark.parametrize("fault", ["html", "404", "drip", "endless", "not_http"])
def test_a_server_of_other_things_is_one_line(server: Address, fault: str) -> None:
    with pytest.raises(MeasurementError) as raised:
        dialect_of(server, fault)
    assert len(str(raised.value).splitlines()) == 1
    assert server.origin in str(raised.value)


def test_prompts_differ_and_have_their_length() -> None:
    dialect = Dialect(model="m", is_chat=False)
    bodies = {
        dialect.body(prompt_tokens=10, output_tokens=5, seed=f"0/{place}") for place in range(9)
    }
    assert len(bodies) == 9
    assert dialect.body(prompt_tokens=10, output_tokens=5, seed="0/0") in bodies


# Pure parts --------------------------------------------------------------------------------------


def test_an_address_is_read_or_refused_in_a_line() -> None:
    found = parse_address("https://host/v1/")
    assert (found.host, found.port, found.path, found.is_encrypted) == ("host", 443, "/v1", True)
    assert parse_address("http://[::1]:80/v1").origin == "[::1]:80"
    for wrong in ("host:8000", "http://", "ftp://host", "http://host:99999/v1", "http://a:b@host"):
        with pytest.raises(UsageError):
            parse_address(wrong)


def test_an_answer_is_read_however_it_is_cut() -> None:
    whole = b"HTTP/1.1 100 Go on\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    whole += b"3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nTrailer: 1\r\n\r\n"
    for size in (1, 2, 7, len(whole)):
        reader = AnswerReader()
        pieces = [whole[place : place + size] for place in range(0, len(whole), size)]
        assert b"".join(map(reader.feed, pieces)) == b"abc0123456789"
        assert reader.is_whole and reader.is_kept and reader.status == 200


def test_an_answer_that_ends_early_is_no_answer() -> None:
    reader = AnswerReader()
    reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
    with pytest.raises(RequestError, match="before its answer was whole"):
        reader.end()
    reader = AnswerReader()
    assert reader.feed(b"HTTP/1.0 200 OK\r\n\r\nabc") == b"abc"
    reader.end()
    assert reader.is_whole and not reader.is_kept
