"""The formulas of imaging against torch's counts: windows, FLOPs of a volume, memory on a CPU."""

import weakref
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from tests.workloads.steps_of_workloads import autocast, bytes_kept_for_backward, random_volumes
from workloads._imaging.imaging_cost import UNet, num_windows, saved_bytes
from workloads.imaging import Workload

TINY = dict(Workload.sizes["tiny"])
DEEP = {"filters": (4, 8, 8, 12, 16), "patch": (32, 16, 32), "volume": (32, 40, 20), "batch": 1}
VOLUMES = {
    "smaller than the patch": (10, 12, 7),
    "as large as the patch": (24, 24, 16),
    "one voxel larger": (25, 24, 17),
    "larger": (50, 36, 40),
    "larger along one axis": (9, 61, 16),
}


@pytest.mark.parametrize("shape", VOLUMES.values(), ids=VOLUMES.keys())
@pytest.mark.parametrize("sw_batch_size", [1, 3])
def test_inference_flops_follow_the_volume(shape: tuple[int, ...], sw_batch_size: int) -> None:
    workload = Workload(**{**TINY, "filters": (2, 2, 2), "sw_batch_size": sw_batch_size})
    net = workload.build_net().eval()
    batch = random_volumes(workload, shape=shape, count=1)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        output = workload.infer(net, batch)
    assert output.shape == (1, 3, *shape)
    assert workload.flops_per_item(workload.phases[1], batch) == counter.get_total_flops()


def test_windows_of_a_hand_worked_volume() -> None:
    # 100 with a window of 40 and a step of 20: starts 0 20 40 60; 41: starts 0 and 1.
    assert num_windows((100, 41, 40), patch=(40, 40, 40)) == 4 * 2 * 1


def test_traffic_counts_each_activation_where_it_is_written_and_read() -> None:
    unet = UNet(channels=1, classes=3, filters=(2, 4, 8), patch=(8, 8, 8), deep_supervision=False)
    v0, v1, v2 = 512, 64, 8
    encoder = 2 * (2 * v0 + 4 * v1 + 8 * v2)  # two convolutions a stage
    decoder = (4 * v1) * 3 + (2 * v0) * 3  # one transposed and two plain convolutions a stage
    head = 3 * v0
    skips = 4 * v1 + 2 * v0
    assert unet.activation_traffic() == v0 + 2 * (encoder + decoder + head) + skips


@pytest.fixture(params=[TINY, DEEP], ids=["tiny", "deep supervision"])
def workload(request: pytest.FixtureRequest) -> Workload:
    return Workload(**request.param)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_memory_kept_for_backward_is_within_a_third(workload: Workload, dtype: str) -> None:
    batch = random_volumes(workload, shape=workload.patch, count=workload.batch)
    measured = bytes_kept_for_backward(workload, batch, dtype=dtype)
    estimate = workload.batch * saved_bytes(workload, element_bytes=2 if dtype == "bf16" else 4)
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
            batch = random_volumes(workload, shape=workload.patch, count=workload.batch)
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
        workload.infer(net, random_volumes(workload, shape=workload.volume, count=1))
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
