"""A server whose times are known, in a process of its own: what a client sees on top is the client.

`python -m bench.serve.endpoint.token_server FIRST_S TOKEN_S` prints its port, answers completions
and chats with tokens at those times after a request has come, and ends when its standard input
closes. With a first token at once it is the null server of `calibration`.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from bench.core.errors import MeasurementError
from bench.measure.asking import end_with_parent, same_modules
from bench.serve.endpoint.wire.connections import Address

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
END = b"0\r\n\r\n"
MOST_BYTES = 1 << 26


def chunk(data: bytes) -> bytes:
    """Frame bytes as one chunk."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def event(content: object) -> bytes:
    """Write one event; bytes as they are."""
    data = content if isinstance(content, bytes) else msgspec.json.encode(content)
    return b"data: " + data + b"\n\n"


class TokenServer:
    """Answers each request with as many tokens as it asks for."""

    def __init__(self, *, first_s: float, token_s: float) -> None:
        self.first_s, self.token_s = first_s, token_s

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection, one after the other."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                first, *lines = head.decode("latin-1").lower().split("\r\n")
                sizes = [one.partition(":")[2] for one in lines if one.startswith("content-length")]
                body = await reader.readexactly(int(sizes[0]) if sizes else 0)
                asked = msgspec.json.decode(body) if body else {}
                await self.answer(first.split()[1], asked, writer)
                await writer.drain()
        except (OSError, EOFError):
            pass
        finally:
            writer.close()

    async def answer(self, path: str, asked: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        """Send the head, a token at each of its times, and the usage."""
        due_s = asyncio.get_running_loop().time() + self.first_s
        num_tokens = int(asked["max_tokens"])
        writer.write(HEAD)
        for place in range(num_tokens):
            await self.until(due_s + place * self.token_s)
            writer.write(chunk(event(self.token(path))))
        writer.write(chunk(event(self.usage(asked, num_tokens))) + chunk(event(b"[DONE]")) + END)

    async def until(self, due_s: float) -> None:
        """Wait for a moment of the loop's clock."""
        left_s = due_s - asyncio.get_running_loop().time()
        if left_s > 0.0:
            await asyncio.sleep(left_s)

    def token(self, path: str) -> dict[str, Any]:
        """Return the event of one token."""
        is_chat = "chat" in path
        choice: dict[str, Any] = {"delta": {"content": " a"}} if is_chat else {"text": " a"}
        return {"choices": [{"index": 0, "finish_reason": None, **choice}]}

    def usage(self, asked: dict[str, Any], num_tokens: int) -> dict[str, Any]:
        """Return the last event, as vLLM has it: no choice."""
        usage = {"prompt_tokens": len(asked.get("prompt", "")), "completion_tokens": num_tokens}
        return {"choices": [], "usage": usage}


async def listen(server: TokenServer) -> None:
    """Serve on a free port of this machine alone, and print it."""
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, limit=MOST_BYTES)
    print(listening.sockets[0].getsockname()[1], flush=True)
    end_with_parent()
    await listening.serve_forever()


@contextmanager
def server_process(command: Sequence[str]) -> Iterator[Address]:
    """Start a server that prints its port; ends it after the block."""
    # A session of its own: Ctrl-C is for the client, which ends it.
    started = subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=same_modules(),
        start_new_session=True,
    )
    assert started.stdin is not None and started.stdout is not None
    try:
        line = started.stdout.readline()
        if not line.strip().isdigit():
            raise MeasurementError("the client's own server did not start")
        yield Address(host="127.0.0.1", port=int(line), path="/v1", is_encrypted=False)
    finally:
        started.kill()
        started.communicate()


if __name__ == "__main__":
    FIRST_S, TOKEN_S = (float(word) for word in sys.argv[1:])
    asyncio.run(listen(TokenServer(first_s=FIRST_S, token_s=TOKEN_S)))
