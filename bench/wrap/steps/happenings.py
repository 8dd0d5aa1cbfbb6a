"""What a program does between two ends of steps, seen by wrapping functions of torch.

Each wrapper costs microseconds. What is noted: batches that loaders yield, how long they are waited
for, backward passes, and what makes a step unlike the others: an evaluation, a checkpoint, another
loader's batches.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter
from typing import Any

import torch
from torch import nn
from torch.utils.data import dataloader

from bench.wrap.steps.batches import leading, size_of_lists
from bench.wrap.steps.happened import Happened

_ORDINALS = ("first", "second", "third", "fourth")


def wrap(
    owner: Any,
    name: str,
    *,
    before: Callable[..., object] | None = None,
    after: Callable[..., object] | None = None,
) -> None:
    """Have this called with its arguments before, or after, each call of a function."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def watched(*args: Any, **kwargs: Any) -> Any:
        if before is not None:
            before(*args, **kwargs)
        result = original(*args, **kwargs)
        if after is not None:
            after(*args, **kwargs)
        return result

    setattr(owner, name, watched)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


class Happenings:
    """Wraps torch's functions once, and hands over what happened at each end of a step."""

    def __init__(self) -> None:
        self.now = Happened()
        self.on_batch: Callable[[], None] = lambda: None
        """Called before a loader's next batch is waited for, after one that came."""
        self.on_backward_end: Callable[[], None] = lambda: None
        self._items_of = ""
        """What of a batch has items as its first dimension, such as `batch['image']`."""
        self._sizes: dict[int, int] = {}
        """Of a loader's batches that are lists, 0 of others, by the identity of its data."""
        self.has_backward = False
        self.is_in_backward = False
        self._num_since_update = 0
        self._watch_loaders()
        self._watch_backward()
        wrap(nn.Module, "train", before=self._note_mode)
        self._watch_checkpoints()

    @property
    def items_of(self) -> str:
        """What says how many items a batch has."""
        name = self._items_of
        return f"the first dimension of {name}" if name else "batch_size of its loader"

    def take(self) -> Happened:
        """Return what happened since the last call."""
        happened, self.now = self.now, Happened()
        return happened

    def note_update(self) -> None:
        """Note that an optimizer has updated."""
        if self._num_since_update:
            known = self.now.accumulated or self._num_since_update
            self.now.accumulated = min(known, self._num_since_update)
        self._num_since_update = 0

    def _note_mode(self, _module: nn.Module, mode: bool = True) -> None:
        if not mode:
            self.now.kinds.add("an evaluation")

    def _watch_backward(self) -> None:
        original = torch.autograd.backward

        @functools.wraps(original)
        def watched(*args: Any, **kwargs: Any) -> None:
            if self.is_in_backward:  # activations are computed again
                return original(*args, **kwargs)
            self.has_backward = self.is_in_backward = True
            self._num_since_update += 1
            self.now.num_backward += 1
            try:
                original(*args, **kwargs)
            finally:
                self.is_in_backward = False
            return self.on_backward_end()

        torch.autograd.backward = watched

    def _watch_checkpoints(self) -> None:
        def note(*_: object, **__: object) -> None:
            self.now.kinds.add("a checkpoint")

        wrap(torch, "save", before=note)  # torch.distributed.checkpoint calls it as well
        with suppress(ImportError):
            import safetensors

            # What safetensors.torch saves with; it may be what imports torch at this moment.
            wrap(safetensors, "serialize_file", before=note)

    # Loaders -------------------------------------------------------------------------------------

    def _watch_loaders(self) -> None:
        """Count the time in a loader as waiting for data, where the program itself waits."""
        begin: Any = dataloader.DataLoader
        going_on: Any = dataloader._BaseDataLoaderIter
        to_begin, to_go_on = begin.__iter__, going_on.__next__

        @functools.wraps(to_begin)
        def watched_begin(loader: Any) -> Any:
            start_s = perf_counter()
            loading = to_begin(loader)
            if _is_main_thread():
                self.now.data_wait_s += perf_counter() - start_s
            return loading

        @functools.wraps(to_go_on)
        def watched(loading: Any) -> Any:
            is_main = _is_main_thread()
            if is_main and self.now.num_batches:
                self.on_batch()
            start_s = perf_counter()
            batch = to_go_on(loading)
            if is_main:
                self.now.data_wait_s += perf_counter() - start_s
            self._note_batch(batch, loading)
            return batch

        begin.__iter__, going_on.__next__ = watched_begin, watched

    def _note_batch(self, batch: Any, loading: Any) -> None:
        now, data = self.now, id(loading._dataset)
        size, name = leading(batch) or (0, "")
        known = self._sizes.get(data)
        if known is None:
            given = getattr(loading._index_sampler, "batch_size", None)
            known = 0 if size == given else size_of_lists(batch, size=given)
            self._sizes[data] = known
        if known:
            size, name = known, ""
        if not now.loaders:
            self._items_of = name
        now.items += size
        now.num_batches += 1
        if data not in now.loaders:
            now.loaders.add(data)
            if (number := len(now.loaders)) > 1:
                ordinal = _ORDINALS[number - 1] if number <= len(_ORDINALS) else f"{number}th"
                now.kinds.add(f"batches of a {ordinal} loader")
