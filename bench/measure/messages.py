"""What a trial's process tells its parent: JSON lines through a file descriptor."""

from __future__ import annotations

import json
import os
from typing import Any


class Messages:
    """JSON lines to the parent."""

    def __init__(self, descriptor: int) -> None:
        self._stream = os.fdopen(descriptor, "wb", buffering=0)
        self.kept: Any = None
        """What must live as long as the process."""

    def send(self, event: str, **values: Any) -> None:
        """Write one message at once."""
        rest = memoryview(json.dumps({"event": event, **values}, allow_nan=False).encode() + b"\n")
        while rest:
            rest = rest[self._stream.write(rest) :]

    def stage(self, name: str) -> None:
        """Tell what is being done."""
        self.send("stage", name=name)


class Silence(Messages):
    """For ranks other than 0, whose parent hears rank 0."""

    def __init__(self) -> None:
        """There is nothing to write to."""

    def send(self, event: str, **values: Any) -> None:
        """Say nothing."""
