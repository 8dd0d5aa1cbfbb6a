"""Connections to a server: one request a connection, which is kept once its answer is whole.

Plain asyncio streams, since each layer between the socket and the clock is in every time that is
measured. Left out: redirects, proxies and HTTP/2.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from dataclasses import dataclass
from urllib.parse import urlsplit

from bench.core.errors import UsageError
from bench.serve.endpoint.wire.events import refusal_of
from bench.serve.endpoint.wire.http_answer import AnswerReader, RequestError

READ_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a server is."""

    host: str
    port: int
    path: str
    """Of the interface, such as /v1; without a slash at its end."""
    is_encrypted: bool

    @property
    def origin(self) -> str:
        """Host and port, as the Host header has them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Read http://HOST:PORT/v1; `UsageError` for what is no address."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"--endpoint {text!r}: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(
            f"--endpoint {text!r} is no address; give the server's, such as http://HOST:8000/v1"
        )
    if parts.username or parts.password or parts.query:
        raise UsageError("--endpoint takes no user, password or query: its rows keep the address")
    is_encrypted = parts.scheme == "https"
    return Address(
        host=parts.hostname,
        port=port or (443 if is_encrypted else 80),
        path=parts.path.rstrip("/"),
        is_encrypted=is_encrypted,
    )


@dataclass(kw_only=True)
class Connection:
    """An open connection to the server."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    is_used: bool = False

    def close(self) -> None:
        """End it at once; the server sees that nobody waits for the rest."""
        self.writer.transport.abort()


class Connections:
    """Connections to one server, those at rest used again."""

    def __init__(self, address: Address, *, stall_s: float, key: str = "") -> None:
        self.address = address
        self.stall_s = stall_s
        self._encryption = ssl.create_default_context() if address.is_encrypted else None
        self._resting: deque[Connection] = deque()
        self._headers = f"Host: {address.origin}\r\nContent-Type: application/json\r\n"
        if key:
            self._headers += f"Authorization: Bearer {key}\r\n"

    async def ask(self, method: str, path: str, *, body: bytes = b"") -> Answer:
        """Send one request; returns its answer once its head is there.

        A connection that the server ended while it was at rest is no fault: another is opened.
        """
        head = f"{method} {path} HTTP/1.1\r\n{self._headers}Content-Length: {len(body)}\r\n\r\n"
        while True:
            connection = self._at_rest() or await self._opened()
            answer = Answer(connection, connections=self)
            try:
                connection.writer.write(head.encode("latin-1") + body)
                await answer.read_head()
            except RequestError as error:
                connection.close()
                if connection.is_used and not answer.has_begun and error.name in ("reset", "cut"):
                    continue
                raise
            except BaseException:
                connection.close()
                raise
            return answer

    async def asked(self, method: str, path: str, *, body: bytes = b"") -> bytes:
        """Send one request; returns the whole body of its answer, an error where it is not 200."""
        answer = await self.ask(method, path, body=body)
        try:
            found = await answer.whole()
        finally:
            answer.close()
        if answer.reader.status != 200:
            raise refusal_of(answer.reader.status, found)
        return found

    def _at_rest(self) -> Connection | None:
        while self._resting:
            connection = self._resting.pop()
            if not connection.reader.at_eof() and not connection.writer.is_closing():
                return connection
            connection.close()
        return None

    async def _opened(self) -> Connection:
        address = self.address
        try:
            async with asyncio.timeout(self.stall_s):
                reader, writer = await asyncio.open_connection(
                    address.host, address.port, ssl=self._encryption, limit=READ_BYTES
                )
        except TimeoutError:
            raise RequestError("stalled", f"no connection in {self.stall_s:g} s") from None
        except ssl.SSLError as error:
            raise RequestError("refused", f"no TLS: {error}") from error
        except ConnectionRefusedError as error:
            raise RequestError("refused", "nobody listens there") from error
        except OSError as error:
            raise RequestError("refused", error.strerror or str(error)) from error
        return Connection(reader=reader, writer=writer)

    def rest(self, connection: Connection) -> None:
        """Keep a connection whose answer is whole for another request."""
        connection.is_used = True
        self._resting.append(connection)

    async def __aenter__(self) -> Connections:
        """Nothing is opened before it is used."""
        return self

    async def __aexit__(self, *_raised: object) -> None:
        """End those at rest."""
        while self._resting:
            self._resting.pop().close()
        await asyncio.sleep(0)  # for the loop to see their ends


class Answer:
    """One answer as it comes."""

    def __init__(self, connection: Connection, *, connections: Connections) -> None:
        self.connection = connection
        self._connections = connections
        self.reader = AnswerReader()
        self.at_s = 0.0
        """When the latest bytes came, by `time.perf_counter`."""
        self.progressed()
        self.has_begun = False
        self._first = b""

    def progressed(self) -> None:
        """From here on the server may be silent for as long as it may."""
        self._stalls_at_s = asyncio.get_running_loop().time() + self._connections.stall_s

    async def read_head(self) -> None:
        """Wait for the status and the headers."""
        while not self.reader.status:
            self._first = await self._read()

    async def read(self) -> bytes:
        """Return what came of the body, perhaps nothing yet; ask only until it is whole."""
        first, self._first = self._first, b""
        return first or await self._read()

    @property
    def is_whole(self) -> bool:
        """Whether nothing more is to come, nor left to read."""
        return self.reader.is_whole and not self._first

    async def whole(self, *, most_bytes: int = 1 << 20) -> bytes:
        """Return the body, or its beginning where it is long."""
        parts = [await self.read()] if not self.is_whole else []
        while not self.is_whole and sum(map(len, parts)) < most_bytes:
            parts.append(await self.read())
        return b"".join(parts)

    def close(self) -> None:
        """Keep the connection for another request if this answer is whole, else end it."""
        if self.is_whole and self.reader.is_kept:
            self._connections.rest(self.connection)
        else:
            self.connection.close()

    async def _read(self) -> bytes:
        try:
            async with asyncio.timeout_at(self._stalls_at_s):
                data = await self.connection.reader.read(READ_BYTES)
        except TimeoutError:
            words = f"nothing came for {self._connections.stall_s:g} s"
            raise RequestError("stalled", words) from None
        except OSError as error:
            raise RequestError("reset", error.strerror or str(error)) from error
        self.at_s = time.perf_counter()
        self.has_begun = self.has_begun or bool(data)
        if not data:
            self.reader.end()
            return b""
        return self.reader.feed(data)
