"""Batches of the shipped workloads, what backward keeps of them, and a short training."""

import itertools
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, default_collate

from bench import discovery
from bench.workload import Workload


def skip_without_libraries(name: str) -> None:
    """Skip the test, with the line that installs what the workload lacks here."""
    if lacking := discovery.load(name.partition(",")[0]).lacking:
        pytest.skip(lacking)


def generated_batch(workload: Any, phase: Any, *, seed: int = 0) -> Any:
    """Return the first batch of generated data, as the loader collates it."""
    samples = workload.dataset(phase, data=None, seed=seed)
    collate = workload.collate(phase) or default_collate
    return collate([samples[index] for index in range(workload.batch_size(phase))])


def random_volumes(workload: Any, *, shape: tuple[int, ...], count: int) -> dict[str, Any]:
    """Return noise with random labels, of any shape."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, workload.classes, (count, 1, *shape), generator=generator)
    image = torch.randn(count, workload.channels, *shape, generator=generator)
    return {"image": image, "label": labels.to(torch.uint8)}


def autocast(dtype: str) -> torch.autocast:
    """Return what the harness computes a step under."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bf16")


def bytes_kept_for_backward(workload: Workload, batch: Any, *, dtype: str) -> int:
    """Bytes of the distinct storages, weights apart, that one loss keeps."""
    net = workload.build_net().train()
    weights = {p.untyped_storage().data_ptr() for p in net.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast(dtype):
        assert workload.loss(net, batch).isfinite()
    return sum(storage.nbytes() for storage in kept.values())


def train(workload: Workload, *, net: torch.nn.Module, samples: Any, steps: int) -> list[Any]:
    """Train for so many steps; return the losses."""
    num_samples = workload.batch_size(workload.phases[0])
    loader = DataLoader(samples, batch_size=num_samples, drop_last=True, shuffle=True,
                        collate_fn=workload.collate(workload.phases[0]))  # fmt: skip
    return list(itertools.islice(training_steps(workload, net, loader), steps))


def training_steps(
    workload: Workload, net: torch.nn.Module, loader: Iterable[Any]
) -> Iterator[torch.Tensor]:
    """Train as the harness does, without it: a step and its loss for each value."""
    net.train()
    optimizer = workload.optimizer(net)
    schedule = workload.schedule(optimizer)
    for batch in itertools.chain.from_iterable(itertools.repeat(loader)):
        optimizer.zero_grad()
        loss = workload.loss(net, batch)
        loss.backward()
        if workload.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(net.parameters(), workload.max_grad_norm)
        optimizer.step()
        if schedule is not None:
            schedule.step()
        yield loss.detach()


class LiveBytes(TorchDispatchMode):
    """Counts a net's, a batch's and the operators' storages while they live, and keeps the peak."""

    def __init__(self, net: torch.nn.Module, batch: Any = None) -> None:
        super().__init__()
        self._live: dict[int, int] = {}
        self.peak_bytes = 0
        for tensor in (*net.parameters(), *net.buffers(), *tree_leaves(batch)):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._add(leaf)
        return result

    def _add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._live:
            self._live[key] = storage.nbytes()
            self.peak_bytes = max(self.peak_bytes, sum(self._live.values()))
            weakref.finalize(storage, self._live.pop, key)
