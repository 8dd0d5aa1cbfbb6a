"""The imaging workload as the harness uses it: parameters, loss, inference, checks, precision."""

import json
from pathlib import Path

import pytest
import torch
from monai.losses.dice import DiceCELoss

from bench.cli import main
from tests.workloads.steps_of_workloads import random_volumes
from workloads._imaging.decathlon import check_folder
from workloads._imaging.imaging_net import loss as loss_of
from workloads.imaging import Workload

TINY = dict(Workload.sizes["tiny"])
TRAIN, INFER = Workload.phases


def test_large_is_nnunets_full_resolution_plan() -> None:
    workload = Workload(**Workload.sizes["large"])
    assert workload.filters == (32, 64, 128, 256, 320, 320)
    assert workload.patch == (128, 128, 128)
    assert workload.batch == 2 and workload.deep_supervision and workload.heads == 3


def test_optimizer_and_schedule_are_nnunets() -> None:
    workload = Workload(**TINY)
    optimizer = workload.optimizer(workload.build_net())
    (group,) = optimizer.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (1e-2, 0.99, 3e-5)
    assert group["nesterov"]
    schedule = workload.schedule(optimizer)
    for _ in range(100):
        optimizer.step()
        schedule.step()
    assert group["lr"] == pytest.approx(1e-2 * (1 - 100 / 400) ** 0.9)


def test_loss_weighs_each_head_at_its_own_resolution() -> None:
    native = [torch.randn(2, 3, 8 // 2**head, 8 // 2**head, 8 // 2**head) for head in range(3)]
    label = torch.randint(0, 3, (2, 1, 8, 8, 8)).to(torch.uint8)
    stretched = torch.stack(
        [torch.nn.functional.interpolate(head, (8, 8, 8)) for head in native], dim=1
    )
    dice_ce = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)
    by_hand = [
        dice_ce(native[0], label),
        dice_ce(native[1], label[..., ::2, ::2, ::2]),
        dice_ce(native[2], label[..., ::4, ::4, ::4]),
    ]
    expected = (4 * by_hand[0] + 2 * by_hand[1] + by_hand[2]) / 7
    assert loss_of(stretched, label).item() == pytest.approx(expected.item(), rel=1e-6)
    assert loss_of(native[0], label).item() == pytest.approx(by_hand[0].item(), rel=1e-6)


@pytest.mark.parametrize("deep_supervision", [False, True])
def test_every_parameter_gets_a_gradient(deep_supervision: bool) -> None:
    workload = Workload(**{**TINY, "deep_supervision": deep_supervision})
    net = workload.build_net().train()
    workload.loss(net, random_volumes(workload, shape=workload.patch, count=2)).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in net.parameters())


def test_inference_gives_each_voxel_its_window_blend() -> None:
    class Identity(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image.repeat(1, 3, 1, 1, 1)

    workload = Workload(**TINY)
    for shape in ((10, 12, 7), (24, 24, 16), (37, 50, 29)):
        batch = random_volumes(workload, shape=shape, count=1)
        logits = workload.infer(Identity(), batch)
        assert logits.shape == (1, 3, *shape)
        torch.testing.assert_close(logits[:, :1], batch["image"])


def test_items_are_patches_or_volumes_and_elements_are_voxels() -> None:
    workload = Workload(**{**TINY, "channels": 2})
    train = random_volumes(workload, shape=workload.patch, count=2)
    assert workload.batch_size(TRAIN) == 2 and workload.batch_size(INFER) == 1
    assert workload.items(TRAIN, train) == 2
    assert workload.elements(TRAIN, train) == 2 * 24 * 24 * 16
    infer = random_volumes(workload, shape=(9, 10, 11), count=1)
    assert workload.items(INFER, infer) == 1
    assert workload.elements(INFER, infer) == 990


@pytest.mark.parametrize("deep_supervision", [False, True])
def test_bf16_and_channels_last_agree_with_fp32(deep_supervision: bool) -> None:
    workload = Workload(**{**TINY, "deep_supervision": deep_supervision})
    torch.manual_seed(0)
    net = workload.build_net().train()
    batch = random_volumes(workload, shape=workload.patch, count=2)
    expected = workload.loss(net, batch)
    volume = random_volumes(workload, shape=workload.volume, count=1)
    with torch.inference_mode():
        logits = workload.infer(net.eval(), volume)
    net = net.to(memory_format=torch.channels_last_3d).train()
    batch["image"] = batch["image"].to(memory_format=torch.channels_last_3d)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = workload.loss(net, batch)
    found.backward()
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=0.02)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        rough = workload.infer(net.eval(), volume)
    assert rough.dtype == torch.float32
    assert (rough - logits).abs().mean() < 0.02 * logits.abs().mean()


def test_compiled_graph_agrees_with_eager() -> None:
    # aot_eager traces forward and backward without needing a C++ compiler.
    workload = Workload(**{**TINY, "deep_supervision": True})
    torch.manual_seed(0)
    net = workload.build_net().train()
    batch = random_volumes(workload, shape=workload.patch, count=2)
    expected = workload.loss(net, batch)
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    found = workload.loss(compiled, batch)
    found.backward()
    torch.testing.assert_close(found, expected)
    volume = random_volumes(workload, shape=workload.volume, count=1)
    with torch.inference_mode():
        torch.testing.assert_close(
            workload.infer(compiled.eval(), volume), workload.infer(net.eval(), volume)
        )


def test_bench_data_phantom_writes_a_folder_that_passes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "phantoms"
    command = ["data", "phantom", str(out), "--cases", "2", "--shape", "16x16x12", "--json"]
    assert main(command) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == {"folder": str(out), "cases": 2, "seed": 0, "shape": [16, 16, 12]}
    check_folder(out, classes=3, channels=1, cases=8)
    assert main(command) == 2
    assert "not an empty folder" in capsys.readouterr().err
    assert main(["data", "phantom", str(tmp_path / "new"), "--shape", "big"]) == 2
    assert "--shape needs three sizes" in capsys.readouterr().err
