"""Server-sent events of a stream of tokens, read from bytes as they come, and what each one says.

https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream; what is in
them is the form of OpenAI's completions and chat completions, as servers in the field send it: a
chat's first piece has a role and no token, the last may have usage and no choice, an error may come
under status 200, and what a model thinks comes beside its content.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from bench.serve.endpoint.wire.http_answer import RequestError

DONE = b"[DONE]"
_TEXTS = ("content", "reasoning_content", "reasoning")
_DECODER = msgspec.json.Decoder()


class EventReader:
    """Takes bytes of a stream, cut anywhere, and gives the data of its events."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, data: bytes) -> list[bytes]:
        """Return the data of the events that these bytes complete."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        events = []
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                events.append(b"\n".join(self._data))
                self._data = []
        return events  # comments and the fields of other uses are passed over

    def end(self) -> list[bytes]:
        """Return the last event where the stream ended without the empty line after it."""
        return self.feed(b"\n\n")


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What the server counted; tokens are never counted here."""

    prompt_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    """Of the prompt; None where the server does not say."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What one event says."""

    has_text: bool = False
    """At least one token is in it."""
    is_finished: bool = False
    """The server named a reason why it stopped."""
    is_done: bool = False
    usage: Usage | None = None


def read_piece(data: bytes) -> Piece:
    """Read one event's data; `RequestError` for an error in it, or for what is no event of ours."""
    if data.strip() == DONE:
        return Piece(is_done=True)
    try:
        event = _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError("malformed", f"an event is no JSON: {error}") from error
    if not isinstance(event, dict):
        raise RequestError("malformed", f"an event is no object: {data[:80]!r}")
    if event.get("error"):
        raise RequestError("error_event", error_words(event))
    choices = event.get("choices") or []
    if not (isinstance(choices, list) and all(isinstance(one, dict) for one in choices)):
        raise RequestError("malformed", f"an event has no list of choices: {data[:80]!r}")
    return Piece(
        has_text=any(map(_has_text, choices)),
        is_finished=any(one.get("finish_reason") for one in choices),
        usage=_usage(event.get("usage")),
    )


def _has_text(choice: dict[str, Any]) -> bool:
    delta = choice.get("delta")
    if isinstance(delta, dict):
        return any(delta.get(name) for name in _TEXTS) or bool(delta.get("tool_calls"))
    return bool(choice.get("text"))


def _usage(found: object) -> Usage | None:
    if not isinstance(found, dict):
        return None
    details = found.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    counts = found.get("prompt_tokens"), found.get("completion_tokens"), cached
    prompt, output, cached = (one if type(one) is int and one >= 0 else None for one in counts)
    return Usage(prompt_tokens=prompt, output_tokens=output, cached_tokens=cached)


def error_words(answer: object) -> str:
    """Return what a server says is wrong, from the forms that servers use."""
    said = answer
    for name in ("error", "message"):
        if isinstance(said, dict):
            said = said.get(name) or said.get("detail") or said
    if isinstance(said, list):  # FastAPI's, without what was sent, which names every field
        parts = [one for one in said if isinstance(one, dict)]
        said = "; ".join(f"{one.get('loc', '')} {one.get('msg', '')}" for one in parts)
    return (said if isinstance(said, str) else msgspec.json.encode(said).decode())[:300]


def refusal_of(status: int, body: bytes) -> RequestError:
    """Return the error of an answer that is not 200, with the server's words."""
    try:
        words = error_words(msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError):
        words = " ".join(body.decode("utf-8", "replace").split())[:200]
    return RequestError(f"http_{status}", words or "it says nothing more")
