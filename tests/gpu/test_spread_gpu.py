"""Layouts on a CUDA device with virtual ranks: they run in every dtype and send what they must."""

import math
from dataclasses import replace

import pytest
import torch
from torch.utils.data import default_collate

from bench.core.nouns import Dtype, Layout
from bench.emulate.group import start_emulation
from bench.hardware.costs.cost import CostModel
from bench.hardware.links.topology import parse_topology
from bench.measure.engine.precision import move
from bench.measure.engine.steps import TrainStep
from bench.parallel.laid_out import lay_out
from workloads.llm import Workload

pytestmark = pytest.mark.timeout(600)

TINY = Workload(**Workload.sizes["tiny"])
TRAIN = TINY.phases[0]
DDP = Layout(mode="emulated", strategy="ddp", data=8)
GRADIENT_BYTES = 4 * TINY.num_parameters()


def sent_bytes(layout: Layout, *, dtype: Dtype, is_compiled: bool = False) -> dict[str, int]:
    """Return the bytes of each kind of collective in the fourth training step."""
    device = torch.device("cuda:0")
    model = CostModel(parse_topology("h100-nvlink"))
    emulation = start_emulation(num_ranks=layout.devices, model=model, device=device)
    try:
        torch.manual_seed(0)
        laid = lay_out(
            TINY.build_net().to(device).train(),
            workload=TINY,
            phase=TRAIN,
            layout=layout,
            device=device,
            dtype=dtype,
            is_compiled=is_compiled,
        )
        step = TrainStep(TINY, laid, device_type="cuda", dtype=dtype)
        samples = TINY.dataset(TRAIN, data=None, seed=0)
        batch = default_collate([samples[index] for index in range(TINY.batch)])
        batch = move(batch, device=device, half=None, channels_last=False)
        for _ in range(3):
            step(batch)
        torch.cuda.synchronize()
        emulation.begin_step()
        step(batch)
        trace = emulation.end_step().trace
        assert step.last_loss is not None and math.isfinite(float(step.last_loss))
    finally:
        emulation.close()
    found: dict[str, int] = {}
    for one in trace.collectives:
        found[one.op] = found.get(one.op, 0) + one.num_bytes
    return found


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_replicas_and_shards_send_fp32_gradients_and_a_cut_net_activations(dtype: Dtype) -> None:
    assert sent_bytes(DDP, dtype=dtype) == {"all_reduce": GRADIENT_BYTES}
    sharded = sent_bytes(Layout(mode="emulated", strategy="fsdp", data=2), dtype=dtype)
    assert sharded["reduce_scatter"] == GRADIENT_BYTES
    width = 4 if dtype == "fp32" else 2
    activations = width * TINY.batch * TINY.sequence_tokens * TINY.hidden
    for data in (1, 2):
        layout = Layout(mode="emulated", strategy="tp", tensor=2, data=data)
        assert sent_bytes(layout, dtype=dtype)["all_reduce"] >= 4 * TINY.layers * activations


def test_mitigations_send_their_part() -> None:
    for mitigate, least_frac, most_frac in (
        ("fp16", 0.5, 0.5),
        ("bf16", 0.5, 0.5),
        ("powersgd-2", 0.001, 0.25),
        ("postlocalsgd-4", 1.0, 1.0),
        ("diloco-4", 1.0, 1.0),
    ):
        found = sent_bytes(replace(DDP, mitigate=mitigate), dtype="fp32")
        assert least_frac <= found.pop("all_reduce") / GRADIENT_BYTES <= most_frac, mitigate
        assert found == {} or not mitigate.endswith("16")


@pytest.mark.parametrize("layout", [DDP, Layout(mode="emulated", strategy="tp", tensor=2)])
def test_compiled_nets_send_the_same(layout: Layout) -> None:
    eager = sent_bytes(layout, dtype="bf16")
    assert sent_bytes(layout, dtype="bf16", is_compiled=True) == eager
