"""What a server takes: the fields of a request that it knows, and whether token ids are a prompt.

Learnt from its refusals by one request before the run, and the same for all of the run. Ids give a
prompt its exact length without a tokenizer; where they are refused it is made of words, each one
token where the server has /tokenize to tell them by. Prompts are random, so that no cache of
beginnings helps.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from bench.serve.endpoint.wire.connections import Connections
from bench.serve.endpoint.wire.http_answer import RequestError

IDS = range(256, 1000)
"""In the vocabulary of any language model, and above the bytes and marks that begin it."""
_TEXT = (
    "time year people way day man world life hand part place week case point number group fact "
    "water room money story month book word side kind head house power"
)
WORDS = tuple(_TEXT.split())
_OPTIONAL: dict[str, object] = {
    "ignore_eos": True,
    "stream_options": {"include_usage": True},
    "temperature": 0,
}
_LIMIT, _NEWER_LIMIT = "max_tokens", "max_completion_tokens"
_TOLD_BY = 8
"""Repeats of a word that show what one more of it adds."""


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How requests to one server are written."""

    model: str
    is_chat: bool
    takes_ids: bool = True
    fields: tuple[str, ...] = tuple(_OPTIONAL)
    limit: str = _LIMIT
    words: tuple[str, ...] = WORDS
    tokens_around: int = 0
    """That the server adds to words."""
    notes: tuple[str, ...] = ()
    """What it does not take, in words."""

    @property
    def method(self) -> str:
        """Path below the interface's."""
        return "/chat/completions" if self.is_chat else "/completions"

    def body(self, *, prompt_tokens: int, output_tokens: int, seed: str) -> bytes:
        """Write a request of such lengths, with a prompt that no other seed gives."""
        source = random.Random(seed)
        prompt: object
        if self.takes_ids and not self.is_chat:
            prompt = source.choices(IDS, k=prompt_tokens)
        else:
            num_words = max(1, prompt_tokens - self.tokens_around)
            prompt = " ".join(source.choices(self.words, k=num_words))
        asked: dict[str, Any] = {"model": self.model, "stream": True, self.limit: output_tokens}
        if self.is_chat:
            asked["messages"] = [{"role": "user", "content": prompt}]
        else:
            asked["prompt"] = prompt
        return msgspec.json.encode(asked | {name: _OPTIONAL[name] for name in self.fields})


async def after_refusal(
    dialect: Dialect, status: str, words: str, *, connections: Connections
) -> Dialect | None:
    """Return how to ask otherwise after a refusal in these words; None where there is no way."""
    if status not in ("http_400", "http_422"):
        return None
    for name in dialect.fields:
        if name in words:
            fields = tuple(one for one in dialect.fields if one != name)
            return _noted(replace(dialect, fields=fields), f"the server takes no {name}")
    if dialect.limit == _LIMIT and _NEWER_LIMIT in words:
        return replace(dialect, limit=_NEWER_LIMIT)
    if dialect.takes_ids and not dialect.is_chat:
        return await with_words(replace(dialect, takes_ids=False), connections=connections)
    return None


async def with_words(dialect: Dialect, *, connections: Connections) -> Dialect:
    """Find words that are one token each, where the server says how it divides text."""
    why = "as a chat is" if dialect.is_chat else "since the server takes no token ids"
    note = f"prompts are English words, {why}"
    known = []
    try:
        for word in WORDS:
            once = await _num_tokens(word, model=dialect.model, connections=connections)
            text = " ".join([word] * (1 + _TOLD_BY))
            often = await _num_tokens(text, model=dialect.model, connections=connections)
            if often - once == _TOLD_BY:
                known.append((once - 1, word))
    except (RequestError, msgspec.DecodeError, KeyError, TypeError):
        known = []
    if not known:
        return _noted(dialect, f"{note}; one is taken as one token, and usage has how many it was")
    around = min(extra for extra, _ in known)
    words = tuple(word for extra, word in known if extra == around)
    dialect = replace(dialect, words=words, tokens_around=around)
    return _noted(dialect, f"{note}; each is one token by its /tokenize")


async def _num_tokens(text: str, *, model: str, connections: Connections) -> int:
    """Ask how many tokens a text is: vLLM and SGLang read `prompt`, llama.cpp `content`."""
    body = msgspec.json.encode({"model": model, "prompt": text, "content": text})
    path = connections.address.path.removesuffix("/v1") + "/tokenize"
    found = msgspec.json.decode(await connections.asked("POST", path, body=body))
    return len(found["tokens"])


def _noted(dialect: Dialect, note: str) -> Dialect:
    return replace(dialect, notes=(*dialect.notes, note))
