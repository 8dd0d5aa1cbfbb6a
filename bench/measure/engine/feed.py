"""Where a step's batch comes from: the loader, or batches that already lie on the device.

Training goes through torch's DataLoader, as it does in real use, unless the data is `resident`; the
time spent waiting for it is reported. Inference uses resident batches, prepared before timing.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from bench.workload import Phase, Workload

FORK_SAFE = ("cpu", "cuda")
"""Types whose loader workers may be forked before the context is made; others want fresh ones
(Enflame's documentation asks for it), and what is right for an unknown backend is the same."""


def make_loader(
    workload: Workload,
    phase: Phase,
    *,
    data: Path | None,
    seed: int,
    workers: int = 0,
    feeds: str | None = None,
) -> Any:
    """Return a DataLoader over the phase's samples, shuffled by `seed` for training.

    `feeds` is the type of the device that takes its batches step by step, if one does.
    """
    dataset = workload.dataset(phase, data=data, seed=seed)
    return DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_size=min(workload.batch_size(phase), len(dataset)),
        shuffle=phase.is_training,
        drop_last=phase.is_training,
        num_workers=workers,
        persistent_workers=workers > 0,
        prefetch_factor=2 if workers > 0 else None,
        pin_memory=feeds is not None and _can_pin(feeds),
        collate_fn=workload.collate(phase),
        generator=torch.Generator().manual_seed(seed),
        multiprocessing_context="spawn" if workers > 0 and feeds not in FORK_SAFE else None,
    )


class LoaderFeed:
    """Endless batches from a loader; each with what waiting for it took."""

    def __init__(self, loader: Any, *, move: Callable[[Any], Any]) -> None:
        self._move = move
        self._batches = itertools.chain(
            iter(loader), itertools.chain.from_iterable(itertools.repeat(loader))
        )

    def next(self) -> tuple[Any, Any, float]:
        """Return (batch on the device, batch as collated, seconds waited)."""
        start_s = time.perf_counter()
        batch = next(self._batches)
        waited_s = time.perf_counter() - start_s
        return self._move(batch), batch, waited_s


class ResidentFeed:
    """A few batches on the device, used in turn."""

    def __init__(self, batches: list[tuple[Any, Any]]) -> None:
        if not batches:
            raise ValueError("a feed needs at least one batch")
        self._batches = itertools.cycle(batches)

    def next(self) -> tuple[Any, Any, float]:
        """Return (batch on the device, batch as collated, 0.0: nothing is waited for)."""
        return *next(self._batches), 0.0


def _can_pin(device_type: str) -> bool:
    """Return whether host memory can be pinned; asked only where it cannot upset a later fork."""
    if device_type in FORK_SAFE:
        return device_type == "cuda"
    try:
        return torch.empty(1).pin_memory().is_pinned()
    except (RuntimeError, NotImplementedError, AssertionError):
        return False  # several vendors' backends lack it
