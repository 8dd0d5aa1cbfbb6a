"""How many items a batch holds, and by what dimension of what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

_DEPTH, _WIDTH = 4, 16
"""How far a batch is looked into: a list of ten thousand words has no tensor behind them."""


def leading(batch: Any, *, name: str = "batch", depth: int = _DEPTH) -> tuple[int, str] | None:
    """Return the first dimension of the first tensor in a batch and what it is called there."""
    shape = getattr(batch, "shape", None)
    if shape is not None:
        return (int(shape[0]), name) if len(shape) else None
    if not depth:
        return None
    if type(batch) in (list, tuple) and batch:  # of most loaders: a step's hooks take few us
        found = leading(batch[0], name=f"{name}[0]", depth=depth - 1)
        if found is not None:
            return found
    for step, part in islice(_parts(batch), _WIDTH):
        if (found := leading(part, name=f"{name}{step}", depth=depth - 1)) is not None:
            return found
    return None


def size_of_lists(batch: Any, *, size: int | None) -> int:
    """Return batch_size where a batch holds lists of samples: a first dimension is of one of them.

    As what `zip(*samples)` makes, or a list of them as they are; 0 where it holds none.
    """
    if size is None or size == 1:
        return 0
    parts = batch.values() if isinstance(batch, Mapping) else batch if _is_list(batch) else ()
    held = list(islice(parts, _WIDTH))
    is_list = any(_is_list(part) and len(part) == size for part in held) or (
        _is_list(batch) and len(batch) == size and not any(hasattr(one, "shape") for one in held)
    )
    return size if is_list else 0


def _is_list(batch: Any) -> bool:
    return isinstance(batch, list | tuple) and not hasattr(batch, "_fields")


def _parts(batch: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(batch, Mapping):  # also a BatchEncoding
        return ((f"[{key!r}]", part) for key, part in batch.items())
    if names := getattr(batch, "_fields", ()):  # a named tuple
        return ((f".{name}", getattr(batch, name)) for name in names)
    if isinstance(batch, list | tuple):
        return ((f"[{place}]", part) for place, part in enumerate(batch))
    return ((f".{name}", part) for name, part in getattr(batch, "__dict__", {}).items())
