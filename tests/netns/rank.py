"""One rank of the experiment against a real link: does as ordered, on one core.

Started as `python rank.py` with RANK in the environment, inside a network namespace. Each line on
standard input is one order as JSON; each answer is one line on standard output. The nets, the
steps and the groups are the product's own.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import torch.distributed as dist

from bench import discovery
from bench.core.nouns import Layout
from bench.emulate.group import start_emulation
from bench.hardware.costs.cost import CostModel
from bench.hardware.links.topology import parse_topology
from bench.measure.engine import feed as feeds
from bench.measure.engine.steps import TrainStep
from bench.parallel.laid_out import lay_out
from tests.netns.two_ranks import put_first

CPU = torch.device("cpu")
LIBRARIES = (
    "torch.nn.parallel.distributed",
    "transformers.models.llama",
    "workloads._imaging.imaging_net",
    "workloads._imaging.imaging_data",
    "workloads._llm.llm_net",
)
"""What the orders need, imported once; nothing may be computed before the fork."""


KEPT: list[Any] = []
"""What must not be destroyed: a DDP's end joins a thread of gloo that wants the interpreter."""


def open_group(order: dict[str, Any]) -> Any:
    """Make torch's default group in the mode asked for; return what emulates, or None."""
    mode = order["mode"]
    if mode == "emulated":
        model = CostModel(parse_topology(order["link"]))
        return start_emulation(num_ranks=2, model=model, device=CPU)
    os.environ |= {
        "MASTER_ADDR": order["address"],
        "MASTER_PORT": str(order["port"]),
        "WORLD_SIZE": "2",
        "GLOO_SOCKET_IFNAME": order["interface"],
    }
    group = None
    if mode == "throttled":
        store, rank, _ = next(dist.rendezvous("env://"))
        model = CostModel(parse_topology(order["link"]))
        group = start_emulation(num_ranks=2, model=model, device=CPU, store=store, rank=rank)
    else:
        dist.init_process_group("gloo")
    until_s = time.monotonic() + 2.0  # threads name themselves once they run
    while put_first(os.getpid()) < 3:
        if time.monotonic() > until_s:
            raise RuntimeError("gloo's threads are not found: their names or their number changed")
        time.sleep(0.01)
    return group


def measure_collectives(order: dict[str, Any]) -> dict[str, Any]:
    """Median seconds of an all-reduce by size, both ranks starting together."""
    open_group(order)
    answer: dict[str, float] = {}
    for num_bytes in order["sizes_bytes"]:
        tensor = torch.ones(num_bytes // 4)
        times_s = []
        for _ in range(order["repeats"] + 1):
            dist.barrier()
            start_s = time.perf_counter()
            dist.all_reduce(tensor)
            times_s.append(time.perf_counter() - start_s)
        answer[str(num_bytes)] = statistics.median_high(times_s[1:])
    dist.destroy_process_group()
    return {"median_s": answer}


def measure_steps(order: dict[str, Any]) -> dict[str, Any]:
    """Seconds of each data-parallel training step after warm-up; 'alone' has no group at all."""
    found = discovery.load(order["workload"])
    phase = found.phase("train")
    workload = discovery.instance(found, size="tiny", overrides={})
    torch.manual_seed(0)
    mode = order["mode"]
    group = None if mode == "alone" else open_group(order)
    net = spread = workload.build_net()
    loader = feeds.make_loader(workload, phase, data=None, seed=0)
    batches = list(itertools.islice(loader, workload.resident_batches(phase)))
    if mode != "alone":
        layout = Layout(mode=mode, strategy="ddp", data=2, bucket_bytes=order["bucket_bytes"])
        spread = lay_out(
            net, workload=workload, phase=phase, layout=layout, device=CPU, dtype="fp32"
        )
    step = TrainStep(workload, spread, device_type="cpu", dtype="fp32")
    KEPT.append((group, spread, step))
    times_s = []
    for index in range(order["warmup"] + order["steps"]):
        start_s = time.perf_counter()
        step(batches[index % len(batches)])
        times_s.append(time.perf_counter() - start_s)
    gradient_bytes = 4 * sum(parameter.numel() for parameter in net.parameters())
    return {"step_s": times_s[order["warmup"] :], "gradient_bytes": gradient_bytes}


ACTIONS = {"collectives": measure_collectives, "steps": measure_steps}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not look like an answer
    for library in LIBRARIES:
        importlib.import_module(library)
    for line in sys.stdin:
        # A process for each order, as a trial has: groups of an earlier one would linger in it.
        child = os.fork()
        if child == 0:
            torch.set_num_threads(1)
            order = json.loads(line)
            print(json.dumps(ACTIONS[order["do"]](order)), file=answers, flush=True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            raise SystemExit(f"the order ended with {os.waitstatus_to_exitcode(status)}: {line}")


if __name__ == "__main__":
    main()
