"""A short training run at tiny raises Dice, on generated volumes and on NIfTI files."""

import itertools
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from tests.workloads.learning import dice_of
from workloads._phantom_folder import write
from workloads.imaging import Workload

STEPS = 250
TRAIN, INFER = Workload.phases


@pytest.fixture(autouse=True)
def one_thread() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("source", ["generated", "files"])
def test_short_training_lowers_loss_and_reaches_dice(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    workload = Workload(**Workload.sizes["tiny"])
    data = None
    if source == "files":
        data = tmp_path / "data"
        write(data, cases=16, seed=0, shape=workload.volume)
        workload.check_data(data)
    torch.manual_seed(0)
    net = workload.build_net().train()
    held_out = workload.dataset(INFER, data=data, seed=0)
    untrained = dice_of(workload, net=net, samples=held_out)
    losses = train(workload, net=net, data=data)
    for loss in losses:
        workload.check(TRAIN, loss)
    first, last = (torch.stack(part).mean() for part in (losses[:20], losses[-20:]))
    assert last < 0.5 * first
    assert net.training
    assert untrained < 0.3
    assert dice_of(workload, net=net, samples=held_out) >= 0.6


def train(workload: Workload, *, net: torch.nn.Module, data: Path | None) -> list[torch.Tensor]:
    optimizer = workload.optimizer(net)
    schedule = workload.schedule(optimizer)
    loader = DataLoader(
        workload.dataset(TRAIN, data=data, seed=0), batch_size=workload.batch_size(TRAIN)
    )
    losses = []
    for batch in itertools.islice(loader, STEPS):
        loss = workload.loss(net, batch)
        optimizer.zero_grad()
        loss.backward()
        assert workload.max_grad_norm is not None
        torch.nn.utils.clip_grad_norm_(net.parameters(), workload.max_grad_norm)
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
    return losses
