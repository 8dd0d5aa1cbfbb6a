"""Where a step's batch comes from: the loader, or batches that already lie on the device.

Training goes through torch's DataLoader, as it does in real use, unless the data is `resident`; the
time spent waiting for it is reported. Inference uses resident batches, prepared before timing.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from bench.measure.filled_batches import check_filled
from bench.workload import Phase, Workload

Feed = Iterator[tuple[Any, Any, float]]
"""Batches: each on the device, as collated, and the seconds that were waited for it."""
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
    """Return a DataLoader of whole batches of the phase's samples, shuffled for training.

    `feeds` is the type of the device that takes its batches step by step, if one does.
    """
    dataset = workload.dataset(phase, data=data, seed=seed)
    check_filled(workload, phase, number=len(dataset), source=str(data or "the workload"))
    return DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_size=workload.batch_size(phase),
        shuffle=phase.is_training,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        prefetch_factor=2 if workers > 0 else None,
        pin_memory=feeds is not None and _can_pin(feeds),
        collate_fn=workload.collate(phase),
        generator=torch.Generator().manual_seed(seed),
        multiprocessing_context="spawn" if workers > 0 and feeds not in FORK_SAFE else None,
    )


def loader_feed(loader: Any, *, move: Callable[[Any], Any]) -> Feed:
    """Yield batches of a loader for ever, each with the seconds that waiting for it took.

    The loader's workers start here, before the first batch is asked for.
    """
    first = iter(loader)
    batches = itertools.chain(first, itertools.chain.from_iterable(itertools.repeat(loader)))

    def waited() -> Feed:
        while True:
            start_s = time.perf_counter()
            batch = next(batches)
            waited_s = time.perf_counter() - start_s
            yield move(batch), batch, waited_s
            del batch  # not kept while the next one is made

    return waited()


def _can_pin(device_type: str) -> bool:
    """Return whether host memory can be pinned; asked only where it cannot upset a later fork."""
    if device_type in FORK_SAFE:
        return device_type == "cuda"
    try:
        return torch.empty(1).pin_memory().is_pinned()
    except (RuntimeError, NotImplementedError, AssertionError):
        return False  # several vendors' backends lack it
