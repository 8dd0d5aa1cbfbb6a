"""The simulation of what an emulated link really recorded, on this machine.

How late this machine wakes a thread is not tested here: being late only makes a recorded step
longer, so the simulation may never exceed it, and must meet it when all goes well.
"""

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from bench.emulate.group import Emulation
from bench.emulate.replay.recording import StepTrace
from bench.emulate.replay.simulate import replay
from tests.emulate.fixed_model import FixedModel, emulated

NUM_STEPS = 12


@pytest.fixture
def emulation(request: pytest.FixtureRequest) -> Iterator[Emulation]:
    seconds: float = request.param
    with emulated(FixedModel(seconds), num_ranks=8) as running:
        yield running


def trained(emulation: Emulation) -> list[StepTrace]:
    """Return steps of a DDP net with four buckets or so."""
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(256, 256), nn.ReLU()) for _ in range(8)]
    net = DistributedDataParallel(nn.Sequential(*layers), bucket_cap_mb=0.5)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    batch = torch.randn(64, 256)
    traces = []
    for index in range(NUM_STEPS + 2):
        emulation.begin_step()
        optimizer.zero_grad()
        net(batch).square().mean().backward()
        optimizer.step()
        trace = emulation.end_step().trace
        if index >= 2:  # DDP settles its buckets in the first
            traces.append(trace)
    return traces


@pytest.mark.parametrize("emulation", [0.02], indirect=True)
def test_recorded_and_simulated_steps_agree(emulation: Emulation) -> None:
    errors_frac = []
    for trace in trained(emulation):
        assert len(trace.collectives) >= 3
        simulated = replay(trace)
        assert simulated.comm_total_s == pytest.approx(0.02 * len(trace.collectives))
        # The last bucket has nothing to hide behind but what the call that issued it takes.
        assert simulated.comm_exposed_s > 0.015
        assert simulated.step_s <= trace.duration_s + 1e-6
        errors_frac.append(1 - simulated.step_s / trace.duration_s)
    assert min(errors_frac) < 0.03


@pytest.mark.parametrize("emulation", [0.0], indirect=True)
def test_a_step_recorded_without_a_link_is_simulated_on_one(emulation: Emulation) -> None:
    for trace in trained(emulation):
        slow = replay(trace, model=FixedModel(0.02))
        in_line_s = 0.02 * len(trace.collectives)
        assert in_line_s < slow.step_s <= slow.compute_s + in_line_s + 1e-9
        assert slow.compute_s == pytest.approx(replay(trace).step_s)
