"""The first request to a server: what it takes is learnt from what it refuses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping

import msgspec

from bench.core.errors import MeasurementError
from bench.serve.endpoint.wire.connections import Connections
from bench.serve.endpoint.wire.dialect import Dialect, after_refusal, with_words
from bench.serve.endpoint.wire.http_answer import RequestError
from bench.serve.endpoint.wire.request_stream import Reply, request_stream

KEY_VARIABLE = "BENCH_API_KEY"
"""Of the environment, since flags are seen by others and rows are kept."""
TOKENS = 8
LIST_S = 2.0
"""For its list of models, which it need not have."""
_ADVICE = {
    "refused": "is it started, and is this its address?",
    "not_http": "is it a server of tokens?",
    "not_events": "is it a server of tokens, and its interface below /v1?",
    "http_401": f"it wants a key: set {KEY_VARIABLE}",
    "http_403": f"it wants another key: {KEY_VARIABLE} has the one that is sent",
    "http_404": "--endpoint ends in /v1 for most servers, --chat is for one that only chats, and "
    "--model has to be one that it serves",
    "stalled": "--stall gives it longer",
}


class _Model(msgspec.Struct):
    id: str
    owned_by: str | None = None


class _Models(msgspec.Struct):
    data: list[_Model]


def key_of(environment: Mapping[str, str]) -> str:
    """Return the key that servers ask for; '' without one, `MeasurementError` for what is none."""
    key = environment.get(KEY_VARIABLE, "").strip()
    if key and not (key.isascii() and key.isprintable()):
        raise MeasurementError(f"{KEY_VARIABLE} is no key: it has characters that no header takes")
    return key


async def models_of(connections: Connections) -> dict[str, str | None]:
    """Return what the server says it serves, and who by its word owns each: often the engine."""
    try:
        async with asyncio.timeout(LIST_S):
            body = await connections.asked("GET", f"{connections.address.path}/models")
        found = msgspec.json.decode(body, type=_Models)
    except (RequestError, TimeoutError, msgspec.DecodeError):
        return {}
    return {one.id: one.owned_by for one in found.data}


async def opened(
    connections: Connections,
    *,
    model: str,
    is_chat: bool,
    prompt_tokens: int,
    models: Collection[str] = (),
) -> Dialect:
    """Return how to ask this server; `MeasurementError` with one line where nothing works."""
    dialect = Dialect(model=model, is_chat=is_chat)
    if is_chat:
        dialect = await with_words(dialect, connections=connections)
    while True:
        reply = await _ask(connections, dialect, prompt_tokens=prompt_tokens)
        if reply.served.status == "ok":
            return dialect
        status, words = reply.served.status, reply.words
        otherwise = await after_refusal(dialect, status, words, connections=connections)
        if otherwise is None:
            known = f"; it serves {', '.join(models)}" if models and model not in models else ""
            raise MeasurementError(what_went_wrong(reply, connections=connections) + known)
        dialect = otherwise


async def _ask(connections: Connections, dialect: Dialect, *, prompt_tokens: int) -> Reply:
    body = dialect.body(prompt_tokens=prompt_tokens, output_tokens=TOKENS, seed="opening")
    return await request_stream(
        connections,
        dialect,
        body=body,
        tokens_asked=TOKENS,
        scheduled_s=0.0,
        start_s=time.perf_counter(),
    )


def what_went_wrong(reply: Reply, *, connections: Connections) -> str:
    """Say in one line why a server cannot be measured."""
    status, advice = reply.served.status, _ADVICE.get(reply.served.status)
    name = status.replace("_", " ")
    line = f"{connections.address.origin}: {name}: {reply.words.strip()}"
    return f"{line}; {advice}" if advice else line
