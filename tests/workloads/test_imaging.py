"""Imaging as the harness uses it: loss, inference, precision, and its formulas against counts."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from monai.losses.dice import DiceCELoss
from torch.utils.flop_counter import FlopCounterMode

from bench.cli import main
from bench.core.nouns import Dtype
from bench.measure.engine.engine import counted, summed
from tests.workloads.steps_of_workloads import (
    LiveBytes,
    autocast,
    bytes_kept_for_backward,
    random_volumes,
)
from workloads._imaging.decathlon import check_folder
from workloads._imaging.imaging_cost import UNet, num_windows
from workloads._imaging.imaging_net import loss as loss_of
from workloads._imaging.phantom import write
from workloads.imaging import Workload

TRAIN, INFER = Workload.phases
TINY = Workload(**Workload.sizes["tiny"])
SMALL = replace(TINY, filters=(4, 8, 8), patch=(16, 16, 8), volume=(20, 24, 12))
DEEP = Workload(filters=(4, 8, 8, 12, 16), patch=(32, 16, 16), volume=(32, 20, 24), batch=1)


def test_plan_optimizer_and_schedule_are_nnunets() -> None:
    large = Workload(**Workload.sizes["large"])
    assert large.filters == (32, 64, 128, 256, 320, 320) and large.patch == (128, 128, 128)
    assert large.batch == 2 and large.deep_supervision and large.heads == 3
    optimizer = TINY.optimizer(SMALL.build_net())
    (group,) = optimizer.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (1e-2, 0.99, 3e-5)
    assert group["nesterov"]
    schedule = TINY.schedule(optimizer)
    for _ in range(100):
        optimizer.step()
        schedule.step()
    assert group["lr"] == pytest.approx(1e-2 * (1 - 100 / 400) ** 0.9)


def test_loss_weighs_each_head_at_its_own_resolution() -> None:
    native = [torch.randn(2, 3, 8 // 2**head, 8 // 2**head, 8 // 2**head) for head in range(3)]
    label = torch.randint(0, 3, (2, 1, 8, 8, 8)).to(torch.uint8)
    interpolate = torch.nn.functional.interpolate
    stretched = torch.stack([interpolate(head, (8, 8, 8)) for head in native], dim=1)
    dice_ce = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)
    by_hand = [dice_ce(native[i], label[..., :: 2**i, :: 2**i, :: 2**i]) for i in range(3)]
    expected = (4 * by_hand[0] + 2 * by_hand[1] + by_hand[2]) / 7
    assert loss_of(stretched, label).item() == pytest.approx(expected.item(), rel=1e-6)
    assert loss_of(native[0], label).item() == pytest.approx(by_hand[0].item(), rel=1e-6)


class Repeated(torch.nn.Module):
    """The image as the logits of every class."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.repeat(1, 3, 1, 1, 1)


def test_a_volume_is_blended_from_windows_and_counted_by_its_shape() -> None:
    net = SMALL.build_net().eval()
    # Smaller than the patch, as large, one voxel larger, larger, and so along one axis.
    shapes = [(7, 8, 5), (16, 16, 8), (17, 16, 9), (34, 24, 20), (6, 41, 8)]
    for shape, windows in zip(shapes, (1, 3, 1, 3, 2), strict=True):
        batch = random_volumes(SMALL, shape=shape, count=1)
        assert SMALL.batch_size(INFER) == SMALL.items(INFER, batch) == 1
        assert SMALL.elements(INFER, batch) == math.prod(shape)
        logits = SMALL.infer(Repeated(), batch)
        torch.testing.assert_close(logits, batch["image"].repeat(1, 3, 1, 1, 1))
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            logits = replace(SMALL, sw_batch_size=windows).infer(net, batch)
        assert logits.shape == (1, 3, *shape)
        assert SMALL.flops_per_item(INFER, batch) == counter.get_total_flops()
    # 100 with a window of 40 and a step of 20: starts 0 20 40 60; 41: starts 0 and 1.
    assert num_windows((100, 41, 40), patch=(40, 40, 40)) == 4 * 2 * 1
    two = random_volumes(replace(SMALL, channels=2), shape=SMALL.patch, count=2)
    assert SMALL.batch_size(TRAIN) == SMALL.items(TRAIN, two) == 2
    assert SMALL.elements(TRAIN, two) == 2 * math.prod(SMALL.patch), "whatever the channels"


def test_bf16_channels_last_and_a_compiled_graph_agree_with_fp32() -> None:
    workload = replace(SMALL, deep_supervision=True)
    torch.manual_seed(0)
    net = workload.build_net().train()
    batch = random_volumes(workload, shape=workload.patch, count=2)
    expected = workload.loss(net, batch)
    volume = random_volumes(workload, shape=workload.volume, count=1)
    with torch.inference_mode():
        logits = workload.infer(net.eval(), volume)
    # aot_eager traces forward and backward without needing a C++ compiler.
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    found = workload.loss(compiled.train(), batch)
    found.backward()
    torch.testing.assert_close(found, expected)
    with torch.inference_mode():
        torch.testing.assert_close(workload.infer(compiled.eval(), volume), logits)
    net.zero_grad()
    net = net.to(memory_format=torch.channels_last_3d).train()
    batch["image"] = batch["image"].to(memory_format=torch.channels_last_3d)
    with autocast("bf16"):
        found = workload.loss(net, batch)
    found.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in net.parameters())
    assert found.item() == pytest.approx(expected.item(), rel=0.02)
    with torch.inference_mode(), autocast("bf16"):
        rough = workload.infer(net.eval(), volume)
    assert found.dtype == rough.dtype == torch.float32
    assert (rough - logits).abs().mean() < 0.02 * logits.abs().mean()


def test_bench_data_phantom_writes_a_folder_that_passes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "phantoms"
    command = ["data", "phantom", str(out), "--cases", "2", "--shape", "16x16x12", "--json"]
    assert main(command) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == {"folder": str(out), "cases": 2, "seed": 0, "shape": [16, 16, 12]}
    check_folder(out, classes=3, channels=1, cases=8)
    before = (out / "dataset.json").read_bytes()
    assert main(["data", "phantom", str(out), "--cases", "1"]) == 2
    assert "not an empty folder" in capsys.readouterr().err
    assert (out / "dataset.json").read_bytes() == before


def test_memory_is_that_of_as_many_volumes_as_a_folder_holds_out(tmp_path: Path) -> None:
    write(tmp_path / "some", cases=11, seed=0, shape=(40, 30, 20))
    sized = TINY.sized_for(INFER, tmp_path / "some")
    assert sized.held_out == 3
    assert TINY.sized_for(TRAIN, tmp_path / "some") == TINY
    one_more = replace(sized, cases=16)
    more = one_more.memory_bytes(INFER, dtype="bf16") - sized.memory_bytes(INFER, dtype="bf16")
    assert more == math.prod(sized.volume) * (2 + 1), "an image in bf16 and its label"


def test_bytes_and_memory_follow_the_volume_as_flops_do() -> None:
    volume = random_volumes(TINY, shape=(96, 96, 40), count=1)
    sized = TINY.sized_as(INFER, volume)
    # Windows of 24 x 24 x 16 in steps of half that: 7 x 7 x 4 instead of 2 x 2 x 2.
    for dtype in (2, 4):
        own, generated = (one.bytes_per_item(INFER, dtype_bytes=dtype) for one in (sized, TINY))
        assert own / generated == pytest.approx(196 / 8)
    flops = TINY.flops_per_item(INFER, volume)
    assert flops / sized.bytes_per_item(INFER, dtype_bytes=4) == pytest.approx(48.05, abs=0.05)
    # An fp32 value a voxel of cover and twice each of three classes; of each of four volumes that
    # lie ready one of the image, and a byte of the label.
    more = sized.memory_bytes(INFER, dtype="fp32") - TINY.memory_bytes(INFER, dtype="fp32")
    assert more == (96 * 96 * 40 - 36 * 36 * 24) * (4 * (1 + 2 * 3) + 4 * (4 + 1))
    assert TINY.sized_as(TRAIN, volume) == TINY, "a patch is a patch"
    counts = [counted(TINY, INFER, one, dtype="fp32") for one in (None, volume)]
    total = summed(counts)
    assert total.least_bytes == pytest.approx((8 + 196) / 196 * counts[1].least_bytes)
    # Each activation is counted where it is written and where it is read.
    unet = UNet(channels=1, classes=3, filters=(2, 4, 8), patch=(8, 8, 8), deep_supervision=False)
    v0, v1, v2 = 512, 64, 8
    encoder = 2 * (2 * v0 + 4 * v1 + 8 * v2)  # two convolutions a stage
    decoder = (4 * v1) * 3 + (2 * v0) * 3  # one transposed and two plain convolutions a stage
    head, skips = 3 * v0, 4 * v1 + 2 * v0
    assert unet.activation_traffic() == v0 + 2 * (encoder + decoder + head) + skips


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("workload", [SMALL, DEEP], ids=["small", "deep supervision"])
def test_estimates_cover_the_measured_peak_and_what_is_kept_for_backward(
    workload: Workload, dtype: Dtype
) -> None:
    batch = random_volumes(workload, shape=workload.patch, count=workload.batch)
    kept = bytes_kept_for_backward(workload, batch, dtype=dtype)
    saved = workload.saved_bytes(element_bytes=2 if dtype == "bf16" else 4)
    assert 0.75 < workload.batch * saved / kept < 1.33
    net = workload.build_net().train()
    optimizer = workload.optimizer(net)
    with LiveBytes(net) as live, autocast(dtype):
        for _ in range(2):  # the second has momentum
            workload.loss(net, batch).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert 1.0 < workload.memory_bytes(TRAIN, dtype=dtype) / live.peak_bytes < 1.5
    volume = random_volumes(workload, shape=workload.volume, count=1)
    net = workload.build_net().eval()
    others = [volume["image"].clone() for _ in range(workload.held_out - 1)]
    with LiveBytes(net, [volume, others]) as live, torch.no_grad(), autocast(dtype):
        workload.infer(net, volume)
    assert 1.0 < workload.memory_bytes(INFER, dtype=dtype) / live.peak_bytes < 1.5
    larger = replace(workload, batch=3)
    assert larger.memory_bytes(TRAIN, dtype=dtype) > workload.memory_bytes(TRAIN, dtype=dtype)
    # A volume is one at any batch.
    assert larger.memory_bytes(INFER, dtype=dtype) == workload.memory_bytes(INFER, dtype=dtype)
    for phase in Workload.phases:
        assert larger.memory_bytes(phase, dtype="bf16") < larger.memory_bytes(phase, dtype="tf32")
