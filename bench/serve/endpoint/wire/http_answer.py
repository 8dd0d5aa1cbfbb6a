"""One answer in HTTP/1.1, read from bytes as they come: its head, then its body, also in chunks.

It knows no socket and no time. Left out: compression (none is asked for) and trailers' meaning.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MOST_HEAD_BYTES = 1 << 16


class RequestError(Exception):
    """What became of a request that has no whole answer: a short name, and words."""

    def __init__(self, name: str, words: str = "") -> None:
        super().__init__(words or name)
        self.name = name


@dataclass(kw_only=True)
class AnswerReader:
    """Reads one answer from bytes as they come: its head, then its body, which may be in chunks."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    is_whole: bool = False
    is_kept: bool = True
    """Whether the connection may be used again."""
    _buffer: bytes = b""
    _left: int | None = None
    """Bytes of the body that are to come, or of its chunk; None: until the connection ends."""
    _expects: str = "head"
    """head, body, and of chunks: size, chunk, line_end, trailer."""

    def feed(self, data: bytes) -> bytes:
        """Take bytes; returns those of the body."""
        self._buffer += data
        if self._expects == "head" and not self._read_head():
            return b""
        return self._plain() if self._expects == "body" else self._chunks()

    def end(self) -> None:
        """Take the connection's end; an error where more was to come."""
        if self._expects == "body" and self._left is None:
            self.is_whole = True
        self.is_kept = False
        if not self.is_whole:
            raise RequestError("cut", "the server ended the connection before its answer was whole")

    def _read_head(self) -> bool:
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            if len(self._buffer) > MOST_HEAD_BYTES or not b"HTTP/1."[: len(head)] == head[:7]:
                raise RequestError("not_http", "the server does not answer in HTTP/1.1")
            return False
        first, *lines = head.decode("latin-1").split("\r\n")
        version, _, status = first.partition(" ")
        if not version.startswith("HTTP/1.") or not status[:3].isdigit():
            raise RequestError("not_http", "the server does not answer in HTTP/1.1")
        if status.startswith("1"):  # 100 Continue: the answer is still to come
            self._buffer = rest
            return self._read_head()
        pairs = (line.partition(":") for line in lines)
        self.headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        self.status, self._buffer = int(status[:3]), rest
        is_chunked = self.headers.get("transfer-encoding", "").lower().endswith("chunked")
        self._expects = "size" if is_chunked else "body"
        length = self.headers.get("content-length", "")
        self._left = int(length) if length.isdigit() else None
        is_closed = self.headers.get("connection", "").lower() == "close"
        self.is_kept = version != "HTTP/1.0" and not is_closed
        return True

    def _plain(self) -> bytes:
        body, self._buffer = self._buffer, b""
        if self._left is not None:
            self._left -= len(body)
            self.is_whole = self._left <= 0
        return body

    def _chunks(self) -> bytes:
        """Take the bodies of chunks out of the buffer, also a part of one."""
        parts = []
        while not self.is_whole:
            if self._expects == "chunk":
                part, self._buffer = self._buffer[: self._left], self._buffer[self._left :]
                parts.append(part)
                self._left = (self._left or 0) - len(part)
                if self._left:
                    break
                self._expects = "line_end"
            line, end, rest = self._buffer.partition(b"\r\n")
            if not end:
                break
            self._buffer = rest
            if self._expects == "size":
                self._left = _chunk_size(line)
                self._expects = "chunk" if self._left else "trailer"
            elif self._expects == "line_end":
                self._expects = "size"
            else:
                self.is_whole = not line
        return b"".join(parts)


def _chunk_size(line: bytes) -> int:
    try:
        return int(line.partition(b";")[0], 16)
    except ValueError:
        raise RequestError("not_http", f"no size of a chunk: {line[:40]!r}") from None
