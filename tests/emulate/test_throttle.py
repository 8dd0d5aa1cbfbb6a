"""Real ranks held back to a modelled link: correct sums, none of them early."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODELLED_S = 0.05

RANK = """
import json
from time import perf_counter
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from bench.emulate.group import start_throttle
from bench.measure.asking import leave
from tests.emulate.fixed_model import FixedModel

store, rank, num_ranks = next(dist.rendezvous("env://"))
throttle = start_throttle(
    model=FixedModel(MODELLED_S),
    device=torch.device("cpu"),
    store=store,
    rank=rank,
    num_ranks=num_ranks,
)
rank = dist.get_rank()
assert dist.get_backend() == "throttled"
out = {"rank": rank}

throttle.begin_step()
start_s = perf_counter()

tensors = [torch.full((4,), float(rank + 1)) for _ in range(2)]
works = [dist.all_reduce(tensor, async_op=True) for tensor in tensors]
for work in works:
    work.wait()
out["two_s"] = perf_counter() - start_s
trace = throttle.end_step().trace
out["sums"] = [tensor.tolist() for tensor in tensors]
out["took_s"] = [one.end_s - one.start_s for one in trace.collectives]
out["kinds"] = [mark.kind for mark in trace.marks]

gathered = [torch.empty(1) for _ in range(2)]
dist.all_gather(gathered, torch.tensor([float(rank)]))
out["gathered"] = [tensor.item() for tensor in gathered]
output = torch.empty(1)
flat = torch.tensor([1.0 + rank, 10.0 + rank])
dist.reduce_scatter(output, list(flat.chunk(2)))
out["scattered"] = output.item()
objects = [None, None]
dist.all_gather_object(objects, {"rank": rank})
out["objects"] = objects

received = torch.zeros(1)
if rank == 0:
    dist.send(torch.tensor([7.0]), dst=1)
else:
    start_s = perf_counter()
    dist.recv(received, src=0)
    out["receive_s"] = perf_counter() - start_s
out["received"] = received.item()

both = dist.new_group([0, 1])
tensor = torch.tensor([float(rank)])
dist.all_reduce(tensor, group=both)
out["of_group"] = tensor.item()

torch.manual_seed(rank)
net = DistributedDataParallel(torch.nn.Linear(2, 2))
net(torch.full((1, 2), float(rank))).sum().backward()
out["gradient"] = net.module.weight.grad.tolist()
throttle.close()
print(json.dumps(out), flush=True)
leave(0)  # as trials do: a DDP's end may wait for gloo's threads
"""


def test_sums_are_those_of_all_ranks_and_nothing_is_earlier_than_modelled():
    code = RANK.replace("MODELLED_S", repr(MODELLED_S))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**shared, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    reported = [process.communicate(timeout=120) for process in started]
    for process, (_, errors) in zip(started, reported, strict=True):
        assert process.returncode == 0, errors
    ranks = [json.loads(output.splitlines()[-1]) for output, _ in reported]
    for rank in ranks:
        assert rank["sums"] == [[3.0] * 4] * 2
        assert rank["gathered"] == [0.0, 1.0]
        assert rank["scattered"] == [3.0, 21.0][rank["rank"]]
        assert rank["objects"] == [{"rank": 0}, {"rank": 1}]
        assert rank["of_group"] == 1.0
        assert rank["gradient"] == [[0.5, 0.5], [0.5, 0.5]]
        assert rank["two_s"] >= 2 * MODELLED_S
        assert all(took_s >= MODELLED_S - 1e-9 for took_s in rank["took_s"])
        assert rank["kinds"] == ["issue", "issue", "wait", "wait"]
    assert ranks[1]["received"] == 7.0
    assert ranks[1]["receive_s"] >= MODELLED_S
