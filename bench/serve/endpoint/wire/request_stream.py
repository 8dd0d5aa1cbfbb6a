"""One request to a server of tokens, from the moment it should be sent to its last byte.

Every time is when bytes came, on this process's clock. Tokens are those that the server counts. A
request ends in bounded time whatever the server does: where no event comes for as long as a stall
may last, and where far more come than were asked for.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from contextlib import suppress
from dataclasses import dataclass, field

from bench.serve.endpoint.wire.connections import Answer, Connections
from bench.serve.endpoint.wire.dialect import Dialect
from bench.serve.endpoint.wire.events import EventReader, Piece, Usage, read_piece, refusal_of
from bench.serve.endpoint.wire.http_answer import RequestError
from bench.serve.tally import Served

MORE_EVENTS = 100
"""Than two for each token asked for: a stream of so many has no end."""
TAIL_S = 0.2
"""For the end of an answer after its last event, so that its connection can be used again."""
_JUST_ENDED = ("cut", "reset", "stalled")


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What became of one request."""

    served: Served
    words: str = ""
    """What was wrong, as the server or the system says it."""
    gaps_s: array[float]
    """Between pieces of text."""
    cached_tokens: int | None
    """Of the prompt, which the server had from before."""

    @property
    def joins_tokens(self) -> bool:
        """Whether a piece held two tokens; the last token may be an end without text."""
        got = self.served.tokens_got
        return got is not None and len(self.gaps_s) + 1 < got - 1


@dataclass(kw_only=True)
class _Seen:
    """What came of an answer so far."""

    num_events: int = 0
    first_s: float | None = None
    last_s: float | None = None
    """When text came."""
    end_s: float | None = None
    gaps_s: array[float] = field(default_factory=lambda: array("d"))
    usage: Usage | None = None
    is_finished: bool = False
    is_done: bool = False

    def take(self, piece: Piece, *, at_s: float) -> None:
        self.num_events += 1
        self.end_s = at_s
        if piece.has_text:
            if self.last_s is not None:
                self.gaps_s.append(at_s - self.last_s)
            self.first_s = at_s if self.first_s is None else self.first_s
            self.last_s = at_s
        self.usage = piece.usage or self.usage
        self.is_finished = self.is_finished or piece.is_finished
        self.is_done = self.is_done or piece.is_done


async def request_stream(
    connections: Connections,
    dialect: Dialect,
    *,
    body: bytes,
    tokens_asked: int,
    scheduled_s: float,
    start_s: float,
) -> Reply:
    """Send a request and read its answer; never raises for what the server does.

    Times of the reply are since `start_s`, which is by `time.perf_counter`.
    """
    seen, sent_s, status, words = _Seen(), time.perf_counter(), "ok", ""
    try:
        await _read(connections, dialect, body=body, seen=seen, most=2 * tokens_asked + MORE_EVENTS)
        if seen.first_s is None:
            raise RequestError("no_token", "the answer has no token")
    except RequestError as error:
        status, words = error.name, str(error)
    usage, end_s = seen.usage, seen.end_s
    if status != "ok" or end_s is None:
        end_s = time.perf_counter()
    served = Served(
        scheduled_s=scheduled_s,
        sent_s=sent_s - start_s,
        started_s=sent_s - start_s,
        ended_s=end_s - start_s,
        status=status,
        first_token_s=None if seen.first_s is None else seen.first_s - start_s,
        last_token_s=None if seen.last_s is None else seen.last_s - start_s,
        tokens_asked=tokens_asked,
        tokens_sent=usage.prompt_tokens if usage else None,
        tokens_got=usage.output_tokens if usage else None,
    )
    cached = usage.cached_tokens if usage else None
    return Reply(served=served, words=words, gaps_s=seen.gaps_s, cached_tokens=cached)


async def _read(
    connections: Connections, dialect: Dialect, *, body: bytes, seen: _Seen, most: int
) -> None:
    path = connections.address.path + dialect.method
    answer = await connections.ask("POST", path, body=body)
    try:
        await _check_head(answer)
        events = EventReader()
        while not (answer.is_whole or seen.is_done):
            _take(events.feed(await answer.read()), answer=answer, seen=seen, most=most)
        _take(events.end(), answer=answer, seen=seen, most=most)
        if not (seen.is_done or seen.is_finished):
            raise RequestError("cut", "the stream ended without [DONE] or a finish_reason")
        await _read_tail(answer)
    except RequestError as error:
        if not (seen.is_finished and error.name in _JUST_ENDED):
            raise
    finally:
        answer.close()


async def _check_head(answer: Answer) -> None:
    status, kind = answer.reader.status, answer.reader.headers.get("content-type", "")
    if status != 200:
        raise refusal_of(status, await answer.whole())
    if "html" in kind or "json" in kind:
        words = f"the answer is {kind.partition(';')[0]} and no stream of events"
        raise RequestError("not_events", words)


def _take(events: list[bytes], *, answer: Answer, seen: _Seen, most: int) -> None:
    for event in events:
        if seen.is_done:
            return
        seen.take(read_piece(event), at_s=answer.at_s)
        answer.progressed()
        if seen.num_events > most:
            raise RequestError("never_ends", f"over {most} events, far more than tokens asked for")


async def _read_tail(answer: Answer) -> None:
    with suppress(RequestError, TimeoutError):
        async with asyncio.timeout(TAIL_S):
            while not answer.is_whole:
                await answer.read()
