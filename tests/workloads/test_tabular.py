"""The tabular probe: its formulas, and that it learns."""

import pytest
import torch
from torch.utils.data import DataLoader

from workloads.tabular import Workload

TRAIN, INFER = Workload.phases
TINY = Workload(**Workload.sizes["tiny"])


def batch_of(tabular: Workload) -> dict[str, torch.Tensor]:
    found = next(iter(DataLoader(tabular.dataset(TRAIN, data=None, seed=0), batch_size=1)))
    assert isinstance(found, dict)
    return found


def test_a_step_holds_the_rows_of_one_table() -> None:
    batch = batch_of(TINY)
    assert TINY.items(TRAIN, batch) == TINY.batch == TINY.items(TRAIN, None)
    with torch.inference_mode():
        risk = TINY.infer(TINY.build_net(), batch)
    assert risk.shape == (TINY.batch,)
    TINY.check(INFER, risk)


def test_loss_falls() -> None:
    torch.manual_seed(0)
    net, batch = TINY.build_net(), batch_of(TINY)
    optimizer = TINY.optimizer(net)
    losses = []
    for _ in range(100):
        loss = TINY.loss(net, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


def test_an_impossible_risk_is_refused() -> None:
    with pytest.raises(ValueError, match="impossible"):
        TINY.check(INFER, torch.tensor([0.5, 1.5]))
