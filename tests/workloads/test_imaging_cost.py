"""The formulas of imaging against torch's own counts."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from workloads._imaging_cost import UNet, num_windows
from workloads.imaging import Workload

TINY = dict(Workload.sizes["tiny"])
CONFIGS: dict[str, dict[str, Any]] = {
    "tiny": TINY,
    "deep supervision": {
        "filters": (4, 8, 8, 12, 16),
        "patch": (32, 16, 32),
        "volume": (32, 40, 20),
        "batch": 1,
    },
    "one head in three stages": {**TINY, "deep_supervision": True},
    "four classes, two channels": {**TINY, "classes": 4, "channels": 2},
}
VOLUMES = {
    "smaller than the patch": (10, 12, 7),
    "as large as the patch": (24, 24, 16),
    "one voxel larger": (25, 24, 17),
    "larger": (50, 36, 40),
    "larger along one axis": (9, 61, 16),
}


def random_batch(workload: Workload, *, shape: tuple[int, ...], count: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    return {
        "image": torch.randn(count, workload.channels, *shape, generator=generator),
        "label": torch.randint(0, workload.classes, (count, 1, *shape), generator=generator).to(
            torch.uint8
        ),
    }


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS.keys())
def workload(request: pytest.FixtureRequest) -> Workload:
    return Workload(**request.param)


@pytest.mark.parametrize("shape", VOLUMES.values(), ids=VOLUMES.keys())
@pytest.mark.parametrize("sw_batch_size", [1, 3])
def test_inference_flops_follow_the_volume(shape: tuple[int, ...], sw_batch_size: int) -> None:
    workload = Workload(**{**TINY, "filters": (2, 2, 2), "sw_batch_size": sw_batch_size})
    net = workload.build_net().eval()
    batch = random_batch(workload, shape=shape, count=1)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        output = workload.infer(net, batch)
    assert output.shape == (1, 3, *shape)
    assert workload.flops_per_item(workload.phases[1], batch) == counter.get_total_flops()


def test_windows_of_a_hand_worked_volume() -> None:
    # 100 with a window of 40 and a step of 20: starts 0 20 40 60; 41: starts 0 and 1.
    assert num_windows((100, 41, 40), patch=(40, 40, 40)) == 4 * 2 * 1


def test_traffic_counts_each_activation_where_it_is_written_and_read() -> None:
    unet = UNet(channels=1, classes=3, filters=(2, 4, 8), heads=0, patch=(8, 8, 8))
    v0, v1, v2 = 512, 64, 8
    encoder = 2 * (2 * v0 + 4 * v1 + 8 * v2)  # two convolutions a stage
    decoder = (4 * v1) * 3 + (2 * v0) * 3  # one transposed and two plain convolutions a stage
    head = 3 * v0
    skips = 4 * v1 + 2 * v0
    assert unet.activation_traffic() == v0 + 2 * (encoder + decoder + head) + skips
