"""What the acceptance measures by itself, to hold against what `bench` says: one JSON line each.

`python -m scripts.gpu_probes roof|attention|delays --device cuda`. Each probe knows the answer in
another way than the code that it is held against: a plain product, the names of the kernels that
torch ran, and events around a held stream.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

DELAYS_S = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


def measure_product(device: torch.device, *, side: int, dtype: torch.dtype) -> float:
    """FLOP/s of a square product: the median of five batches of 0.2 s, after 0.5 s of warm-up."""
    left, right = (torch.randn(side, side).to(device, dtype) for _ in range(2))

    def batch_s(num_calls: int) -> float:
        _synchronize(device)
        begin_s = time.perf_counter()
        for _ in range(num_calls):
            left @ right
        _synchronize(device)
        return (time.perf_counter() - begin_s) / num_calls

    one_s = batch_s(1)
    start_s = time.perf_counter()
    while time.perf_counter() - start_s < 0.5:
        one_s = batch_s(max(1, round(0.05 / one_s)))
    num_calls = max(1, round(0.2 / one_s))
    return 2.0 * side**3 / statistics.median(batch_s(num_calls) for _ in range(5))


def probe_roof(device: torch.device) -> dict[str, Any]:
    """Roof as `bench run` measures it, and the same device's product before and after."""
    from bench.devices.torch.roof import measure_roof

    is_cpu = device.type == "cpu"
    name, dtype = ("fp32", torch.float32) if is_cpu else ("bf16", torch.bfloat16)
    side = 1024 if device.type in ("cpu", "simdev") else 8192
    before = measure_product(device, side=side, dtype=dtype)
    roof = measure_roof(str(device), dtypes=[name])
    after = measure_product(device, side=side, dtype=dtype)
    return {
        "dtype": name,
        "side": side,
        "roof_flops_per_s": roof.flops_per_s.get(name),
        "roof_sustained_flops_per_s": roof.sustained_flops_per_s.get(name),
        "roof_tried_flops_per_s": roof.tried.get(name),
        "product_flops_per_s": (before + after) / 2,
        "products_flops_per_s": [before, after],
        "roof_bytes_per_s": roof.bytes_per_s,
    }


def probe_attention(device: torch.device) -> dict[str, Any]:
    """Attention operators of one fp32 training step of the language model, with grouped heads."""
    from torch.utils.data import default_collate

    from bench.measure.engine.precision import move
    from bench.measure.engine.steps import TrainStep
    from workloads.llm import Workload

    size = "small" if device.type == "cuda" else "tiny"
    workload = Workload(**{**Workload.sizes[size], "heads": 8, "kv_heads": 2})
    train = workload.phases[0]
    net = workload.build_net().to(device).train()
    step = TrainStep(workload, net, device_type=device.type, dtype="fp32")
    samples = workload.dataset(train, data=None, seed=0)
    batch = default_collate([samples[index] for index in range(workload.batch)])
    batch = move(batch, device=device, half=None, channels_last=False)
    step(batch)
    _synchronize(device)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        step(batch)
        _synchronize(device)
    names = {str(event.key) for event in profiler.key_averages()}
    return {
        "size": size,
        "attention": sorted(
            name
            for name in names
            if name.startswith("aten::_") and "attention" in name and "backward" not in name
        ),
    }


class FixedCost:
    """A cost model whose every collective takes `seconds`."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def cost(self, op: Any, *, num_bytes: int, group: Any) -> Any:
        """Return the one time."""
        from bench.hardware.costs.collectives import Cost

        return Cost(self.seconds, self.seconds, self.seconds, "alpha-beta", "")

    def group_of(self, ranks: Sequence[int]) -> Any:
        """Return how the ranks lie: on one node."""
        from bench.hardware.costs.collectives import group_of

        return group_of(ranks, node_size=None)


def probe_delays(device: torch.device) -> dict[str, Any]:
    """Seconds that a collective held its stream, by events, idle and beside matrix products.

    A product before it on the same stream keeps the device behind the host, so that launching is
    not counted.
    """
    import torch.distributed as dist

    from bench.emulate.group import start_emulation

    left = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    busy = torch.cuda.Stream()
    tensor = torch.ones(2**18, device=device)
    delays = []
    for seconds in DELAYS_S:
        # Costs are remembered, so each time has a group of its own.
        model = FixedCost()
        model.seconds = seconds
        emulation = start_emulation(num_ranks=4, model=model, device=device)
        dist.all_reduce(tensor)
        torch.cuda.synchronize()
        for beside in ("nothing", "product"):

            def load(beside: str = beside, seconds: float = seconds) -> None:
                if beside == "product":
                    with torch.cuda.stream(busy):
                        for _ in range(4 + int(seconds / 1e-3)):
                            left @ left

            held = [
                _held_s(lambda: dist.all_reduce(tensor), before=lambda: left @ left, load=load)
                for _ in range(5)
            ]
            delays += [{"asked_s": seconds, "held_s": one, "beside": beside} for one in held]
        emulation.close()
    return {"delays": delays}


def _held_s(
    call: Callable[[], object], *, before: Callable[[], object], load: Callable[[], None]
) -> float:
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    load()
    before()
    begin.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end)) / 1e3


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize()


PROBES = {"roof": probe_roof, "attention": probe_attention, "delays": probe_delays}


def main() -> None:
    """Run one probe and print what it found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("probe", choices=sorted(PROBES))
    parser.add_argument("--device", required=True)
    asked = parser.parse_args()
    print(json.dumps(PROBES[asked.probe](torch.device(asked.device))))


if __name__ == "__main__":
    main()
