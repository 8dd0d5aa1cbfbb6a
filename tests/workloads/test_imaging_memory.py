"""The memory estimates of imaging against storages counted on a CPU."""

import weakref
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from workloads._imaging_memory import saved_bytes
from workloads.imaging import Workload

CONFIGS: dict[str, dict[str, Any]] = {
    "tiny": dict(Workload.sizes["tiny"]),
    "deep supervision": {
        "filters": (4, 8, 8, 12, 16),
        "patch": (32, 16, 32),
        "volume": (32, 40, 20),
        "batch": 1,
    },
}


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS.keys())
def workload(request: pytest.FixtureRequest) -> Workload:
    return Workload(**request.param)


def random_batch(workload: Workload, *, shape: tuple[int, ...], count: int) -> dict[str, Any]:
    labels = torch.randint(0, workload.classes, (count, 1, *shape))
    return {
        "image": torch.randn(count, workload.channels, *shape),
        "label": labels.to(torch.uint8),
    }


def autocast(dtype: str) -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bf16")


def bytes_saved_for_backward(workload: Workload, *, dtype: str) -> int:
    """Unique storages that autograd keeps for one step, weights left out."""
    net = workload.build_net().train()
    batch = random_batch(workload, shape=workload.patch, count=workload.batch)
    weights = {p.untyped_storage().data_ptr() for p in net.parameters()}
    kept: dict[int, tuple[int, torch.Tensor]] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        autocast(dtype),
    ):
        loss = workload.loss(net, batch)
    assert loss.isfinite()
    return sum(nbytes for nbytes, _ in kept.values())


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_memory_kept_for_backward_is_within_a_third(workload: Workload, dtype: str) -> None:
    measured = bytes_saved_for_backward(workload, dtype=dtype)
    estimate = workload.batch * saved_bytes(
        workload.unet, element_bytes=2 if dtype == "bf16" else 4
    )
    assert 0.75 < estimate / measured < 1.33


class LiveBytes(TorchDispatchMode):
    """Counts the storages that operators return while they live, and keeps the peak."""

    def __init__(self) -> None:
        super().__init__()
        self._live: dict[int, int] = {}
        self._now_bytes = 0
        self.peak_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.add(leaf)
        return result

    def add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._live:
            self._live[key] = storage.nbytes()
            self._now_bytes += storage.nbytes()
            self.peak_bytes = max(self.peak_bytes, self._now_bytes)
            weakref.finalize(storage, self._remove, key)

    def _remove(self, key: int) -> None:
        self._now_bytes -= self._live.pop(key)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_estimate_of_a_training_step_covers_the_measured_peak(
    workload: Workload, dtype: str
) -> None:
    net = workload.build_net().train()
    optimizer = workload.optimizer(net)
    with LiveBytes() as live, autocast(dtype):
        for parameter in net.parameters():
            live.add(parameter)
        for _ in range(2):  # the second has momentum
            batch = random_batch(workload, shape=workload.patch, count=workload.batch)
            workload.loss(net, batch).backward()
            optimizer.step()
            optimizer.zero_grad()
    estimate = workload.memory_bytes(workload.phases[0], dtype=dtype)
    assert 1.0 < estimate / live.peak_bytes < 1.5


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_estimate_of_inference_covers_the_measured_peak(workload: Workload, dtype: str) -> None:
    net = workload.build_net().eval()
    with LiveBytes() as live, torch.no_grad(), autocast(dtype):
        for parameter in net.parameters():
            live.add(parameter)
        workload.infer(net, random_batch(workload, shape=workload.volume, count=1))
    estimate = workload.memory_bytes(workload.phases[1], dtype=dtype)
    assert 1.0 < estimate / live.peak_bytes < 1.5


def test_memory_grows_with_batch_and_shrinks_with_half_precision() -> None:
    train, infer = Workload.phases
    one, two = Workload(batch=1), Workload(batch=2)
    for phase in (train, infer):
        full = two.memory_bytes(phase, dtype="fp32")
        assert two.memory_bytes(phase, dtype="tf32") == full
        assert two.memory_bytes(phase, dtype="bf16") < full
    assert one.memory_bytes(train, dtype="fp32") < two.memory_bytes(train, dtype="fp32")
    assert one.memory_bytes(infer, dtype="fp32") == two.memory_bytes(infer, dtype="fp32")
    assert two.memory_bytes(infer, dtype="fp32") < two.memory_bytes(train, dtype="fp32")
