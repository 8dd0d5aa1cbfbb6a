"""A server with known times and one fault, by the model that is asked for: stall, or stall@5.

With @5 only every fifth request of that model meets it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
from collections import Counter
from itertools import count
from typing import Any

import msgspec

from bench.serve.endpoint.token_server import END, HEAD, TokenServer, chunk, event, listen

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: closing throws away what was not sent, and resets."""


def refusal(status: str, words: object, *, kind: str = "application/json") -> bytes:
    body = words.encode() if isinstance(words, str) else msgspec.json.encode(words)
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class FaultyServer(TokenServer):
    """Answers as the name of the model says."""

    def __init__(self, **times: float) -> None:
        super().__init__(**times)
        self._asked: Counter[str] = Counter()
        self._free = asyncio.Lock()
        self._readers: dict[asyncio.StreamWriter, asyncio.StreamReader] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._readers[writer] = reader
        await super().serve(reader, writer)

    async def answer(self, path: str, asked: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if path.endswith("/models"):
            models = {"data": [{"id": "plain", "owned_by": "known times"}]}
            writer.write(refusal("200 OK", models))
            return
        fault, _, every = asked["model"].partition("@")
        self._asked[asked["model"]] += 1
        if every and self._asked[asked["model"]] % int(every):
            fault = "plain"
        if path.endswith("/tokenize"):
            await self.tokenize(fault, asked, writer)
        elif fault.isdigit():
            writer.write(refusal(f"{fault} No", {"error": {"message": "not now"}}))
        else:
            await getattr(self, fault)(path, asked, writer)

    async def plain(self, path: str, asked: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        await super().answer(path, asked, writer)

    async def queue(self, path: str, asked: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        """One request at a time, in the order in which they come; none whose client is gone."""
        async with self._free:
            if not (self._readers[writer].at_eof() or writer.is_closing()):
                await self.plain(path, asked, writer)

    async def tokenize(
        self, fault: str, asked: dict[str, Any], writer: asyncio.StreamWriter
    ) -> None:
        """One token begins each text; "water" is two, the other words one."""
        if fault != "strict":
            writer.write(refusal("404 Not Found", "no such path", kind="text/plain"))
            return
        words = asked["prompt"].split()
        tokens = [1] * (1 + len(words) + words.count("water"))
        writer.write(refusal("200 OK", {"tokens": tokens}))

    # What is in a stream -------------------------------------------------------------------------

    async def _pieces(self, writer: asyncio.StreamWriter, *pieces: bytes) -> None:
        writer.write(HEAD)
        for piece in pieces:
            await asyncio.sleep(self.token_s)
            writer.write(chunk(piece))

    async def chat(self, path: str, asked: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        """A role first, then thoughts, comments between, and a usage without choices."""
        deltas = [{"role": "assistant", "content": ""}]
        deltas += [{"reasoning_content": "hm"}] * 2 + [{"content": "a"}] * (asked["max_tokens"] - 2)
        pieces = [b": comment\n\n" + event({"choices": [{"delta": one}]}) for one in deltas]
        pieces.append(event({"choices": [{"delta": {}, "finish_reason": "length"}]}))
        usage = event(self.usage(asked, asked["max_tokens"]))
        await self._pieces(writer, *pieces, usage, event(b"[DONE]"))
        writer.write(END)

    async def several(self, path: str, asked: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        """Four tokens in a piece."""
        num_tokens = asked["max_tokens"]
        pieces = [event(self.token(path))] * (num_tokens // 4)
        await self._pieces(writer, *pieces, event(self.usage(asked, num_tokens)), event(b"[DONE]"))
        writer.write(END)

    async def joined(self, path: str, asked: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        """Two events in a write."""
        num_tokens = asked["max_tokens"]
        pieces = [event(self.token(path)) * 2] * (num_tokens // 2)
        await self._pieces(writer, *pieces, event(self.usage(asked, num_tokens)), event(b"[DONE]"))
        writer.write(END)

    async def no_usage(
        self, path: str, asked: dict[str, Any], writer: asyncio.StreamWriter
    ) -> None:
        pieces = [event(self.token(path))] * asked["max_tokens"]
        await self._pieces(writer, *pieces, event(b"[DONE]"))
        writer.write(END)

    async def cut_apart(
        self, path: str, asked: dict[str, Any], writer: asyncio.StreamWriter
    ) -> None:
        """Each byte in a chunk and a write of its own, letters of three bytes among them."""
        token = event({"choices": [{"text": "\u20ac"}]})
        tail = event(self.usage(asked, 2)) + event(b"[DONE]")
        writer.write(HEAD)
        for place in (token * 2 + tail)[:-2]:
            writer.write(chunk(bytes([place])))
            await asyncio.sleep(0)
        writer.write(END)

    async def early(self, path: str, asked: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        """The model ends by itself after five tokens."""
        last = {"choices": [{"text": "", "finish_reason": "stop"}]} | {
            "usage": self.usage(asked, 5)["usage"]
        }
        await self._pieces(writer, *[event(self.token(path))] * 5, event(last))
        writer.write(END)

    async def cached(self, path: str, asked: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        usage = self.usage(asked, 1)
        usage["usage"]["prompt_tokens_details"] = {"cached_tokens": 7}
        await self._pieces(writer, event(self.token(path)), event(usage), event(b"[DONE]"))
        writer.write(END)

    # What is refused -----------------------------------------------------------------------------

    async def strict(self, path: str, asked: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        """As transformers serve: no field it does not know, no token ids."""
        if "ignore_eos" in asked:
            words = {"detail": "Unexpected fields: {'ignore_eos'}"}
            writer.write(refusal("422 Unprocessable Entity", words))
        elif not isinstance(asked.get("prompt", ""), str):
            writer.write(refusal("400 Bad Request", {"detail": "prompt must be a string"}))
        else:
            await self.plain(path, asked, writer)

    async def wordy(self, path: str, asked: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        """As FastAPI: the refusal repeats what was sent; and without /tokenize."""
        if not isinstance(asked["prompt"], str):
            words = {"detail": [{"loc": ["body", "prompt"], "msg": "not a text", "input": asked}]}
            writer.write(refusal("422 Unprocessable Entity", words))
        else:
            await self.plain(path, asked, writer)

    async def html(self, path: str, asked: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        writer.write(refusal("200 OK", "<html>hello</html>", kind="text/html"))

    async def leave(self, path: str, asked: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        """The whole server ends."""
        os._exit(1)

    # Faults --------------------------------------------------------------------------------------

    async def reset(self, path: str, asked: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        await self._pieces(writer, event(self.token(path)))
        await asyncio.sleep(0.05)
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        writer.transport.abort()

    async def half_close(
        self, path: str, asked: dict[str, Any], writer: asyncio.StreamWriter
    ) -> None:
        await self._pieces(writer, event(self.token(path)))
        writer.write_eof()
        await asyncio.sleep(60.0)

    async def stall(self, path: str, asked: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        await self._pieces(writer, event(self.token(path)))
        await asyncio.sleep(60.0)

    async def drip(self, path: str, asked: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        """Comments for ever."""
        writer.write(HEAD)
        for _ in count():
            writer.write(chunk(b": still here\n\n"))
            await writer.drain()
            await asyncio.sleep(0.1)

    async def endless(self, path: str, asked: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        for _ in count():
            writer.write(chunk(event(self.token(path))))
            await writer.drain()
            await asyncio.sleep(0.001)

    async def malformed(
        self, path: str, asked: dict[str, Any], writer: asyncio.StreamWriter
    ) -> None:
        await self._pieces(writer, event(self.token(path)), event(b'{"choices": [{"te'))
        writer.write(END)

    async def error_event(
        self, path: str, asked: dict[str, Any], writer: asyncio.StreamWriter
    ) -> None:
        fault = event({"error": {"message": "engine died", "code": 500}})
        await self._pieces(writer, event(self.token(path)), fault, event(b"[DONE]"))
        writer.write(END)

    async def no_done(self, path: str, asked: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        last = {"choices": [{"text": "", "finish_reason": "length"}]}
        await self._pieces(writer, event(self.token(path)), event(last))
        writer.write(END)

    async def no_end(self, path: str, asked: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        await self._pieces(writer, event(self.token(path)))
        writer.write(END)

    async def not_http(
        self, path: str, asked: dict[str, Any], writer: asyncio.StreamWriter
    ) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")

    async def empty(self, path: str, asked: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        await self._pieces(writer, event(b"[DONE]"))
        writer.write(END)


if __name__ == "__main__":
    FIRST_S, TOKEN_S = (float(word) for word in sys.argv[1:])
    asyncio.run(listen(FaultyServer(first_s=FIRST_S, token_s=TOKEN_S)))
