"""What a program does between two ends of steps, seen by wrapping functions of torch.

Each wrapper costs microseconds. What is noted: batches that loaders yield, how long they are waited
for, backward passes, and what makes a step unlike the others: an evaluation, a checkpoint, another
loader's batches.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
from torch import nn
from torch.utils.data import dataloader


@dataclass(kw_only=True, slots=True)
class Happened:
    """Since the last step ended."""

    items: int = 0
    """By the first dimension of what loaders yielded."""
    data_wait_s: float = 0.0
    num_backward: int = 0
    kinds: set[str] = field(default_factory=set)
    """What distinguishes a step from those of another kind."""


def leading_size(batch: Any) -> int | None:
    """Return the first dimension of the first tensor in a batch, None where it has none."""
    if isinstance(batch, torch.Tensor):
        return int(batch.shape[0]) if batch.dim() else None
    parts: Any = ()
    if isinstance(batch, Mapping):
        parts = batch.values()
    elif isinstance(batch, list | tuple):
        parts = batch
    sizes = (leading_size(part) for part in parts)
    return next((size for size in sizes if size is not None), None)


class Happenings:
    """Wraps torch's functions once, and hands over what happened at each end of a step."""

    def __init__(self) -> None:
        self.now = Happened()
        self.on_batch: Callable[[], None] = lambda: None
        """Called before a loader's next batch is waited for."""
        self._loaders: dict[int, str] = {}
        self._watch_loaders()
        self._watch("backward", torch.autograd, self._count_backward)
        self._watch("save", torch, self._note("a checkpoint"))
        self._watch("eval", nn.Module, self._note("an evaluation"))

    def take(self) -> Happened:
        """Return what happened since the last call."""
        happened, self.now = self.now, Happened()
        return happened

    def _count_backward(self) -> None:
        self.now.num_backward += 1

    def _note(self, kind: str) -> Callable[[], None]:
        return lambda: self.now.kinds.add(kind)

    def _watch(self, name: str, owner: Any, noted: Callable[[], None]) -> None:
        original = getattr(owner, name)

        @functools.wraps(original)
        def watched(*args: Any, **kwargs: Any) -> Any:
            noted()
            return original(*args, **kwargs)

        setattr(owner, name, watched)

    def _watch_loaders(self) -> None:
        kind: Any = dataloader._BaseDataLoaderIter
        original = kind.__next__
        happenings = self

        @functools.wraps(original)
        def watched(loading: Any) -> Any:
            happenings.on_batch()
            start_s = perf_counter()
            batch = original(loading)
            now = happenings.now
            now.data_wait_s += perf_counter() - start_s
            now.items += leading_size(batch) or 0
            now.kinds.add(happenings._name_of(loading))
            return batch

        kind.__next__ = watched

    def _name_of(self, loading: Any) -> str:
        number = len(self._loaders) + 1
        return self._loaders.setdefault(id(loading._dataset), f"batches of loader {number}")
