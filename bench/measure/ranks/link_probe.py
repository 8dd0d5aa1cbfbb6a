"""Times collectives between real ranks: what a link file is made of.

Each repetition starts behind a barrier and times enough calls, one after the other, for the clock;
its time is that of the slowest rank. Calls wait for each other by what they are, except a broadcast
(its root changes from call to call) and a send, which is half of there and back again. Tensors are
fp32 and fresh from the allocator; sizes are those of the full tensor, as nccl-tests counts them.
What is left out: several collectives at once, and a host that is busy meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import distributed

from bench.core.errors import MeasurementError
from bench.devices.host import cpu
from bench.devices.torch.detect import find
from bench.hardware.costs.collectives import Op
from bench.measure.asking import answer, pin
from bench.measure.messages import Devices, LinkPoint, LinkRequest, LinkResult, Messages
from bench.measure.timing.clock import Clock
from bench.parallel import ranks as rank_context
from bench.parallel.ranks import Ranks

MIN_REPETITION_S = 2e-3
"""So long that a clock of a microsecond and the end of the barrier count for little."""
MAX_CALLS = 1000
ELEMENT_BYTES = 4
Call = Callable[[int], object]
"""One call; the argument counts them, for ranks to take turns."""


def describe_device(label: str | None) -> Devices:
    """Return the kind of device that is meant, and how many there are."""
    device = find(label)
    count = 1 if device.type == "cpu" else torch.accelerator.device_count()
    return Devices(label=device.label, name=device.name, count=count)


def run(request: LinkRequest, *, ranks: Ranks, messages: Messages) -> None:
    """Measure what the request names; rank 0 sends the points as it goes and all in the end."""
    cpu_ids = ranks.share(cpu.usable_cpu_ids())
    pin(cpu_ids)
    torch.set_num_threads(max(1, len(cpu_ids)))
    label = rank_context.local_label(request.device, ranks=ranks)
    rank_context.bind_device(ranks, device=label)
    rank_context.start_group(ranks, device=label)
    device = torch.device(label)
    points: list[LinkPoint] = []
    missing: dict[str, str] = {}
    for op in request.ops:
        messages.stage(op)
        for num_bytes in request.sizes:
            try:
                points.append(_point(op, num_bytes, ranks=ranks, device=device, request=request))
            except RuntimeError as error:
                if points and points[-1].op == op or rank_context.is_lost_peer(error):
                    raise  # it worked at another size
                # The backend has no such operation, in all ranks alike.
                missing[op] = str(error).strip().splitlines()[0][:200]
                break
    backend = distributed.get_default_backend_for_device(device)
    messages.send(LinkResult(points=points, missing=missing, backend=backend))


def _point(
    op: Op, num_bytes: int, *, ranks: Ranks, device: torch.device, request: LinkRequest
) -> LinkPoint:
    elements = max(1, num_bytes // ELEMENT_BYTES // ranks.num_ranks)
    whole = torch.ones(elements * ranks.num_ranks, device=device)
    part = torch.ones(elements, device=device)
    call = _calls(whole, part, ranks=ranks)[op]
    # The first calls set up connections; the next shows how long one takes.
    _time(call, num_calls=2, device=device)
    once_s = _time(call, num_calls=2, device=device)
    num_calls = ranks.agree(max(2, min(MAX_CALLS, int(MIN_REPETITION_S / once_s) + 1)))
    seconds = [_time(call, num_calls=num_calls, device=device) for _ in range(request.repetitions)]
    every = ranks.gather(seconds)
    slowest = [max(values) for values in zip(*every, strict=True)] or seconds
    return LinkPoint(
        op=op,
        # A send is between two, however many stand by.
        num_ranks=2 if op == "send" else ranks.num_ranks,
        num_bytes=whole.numel() * ELEMENT_BYTES,
        seconds=tuple(slowest),
    )


def _time(call: Call, *, num_calls: int, device: torch.device) -> float:
    """Seconds of one call, from a barrier to the device's end."""
    clock = Clock()
    is_accelerator = device.type != "cpu"
    distributed.all_reduce(torch.zeros(1, device=device))
    if is_accelerator:
        torch.accelerator.synchronize()
    start_s = clock.now_s()
    for number in range(num_calls):
        if call(number) is not None:  # what a synchronous call returns
            raise MeasurementError("a collective came back before it was done")
    if is_accelerator:
        torch.accelerator.synchronize()
    return (clock.now_s() - start_s) / num_calls


def _calls(whole: torch.Tensor, part: torch.Tensor, *, ranks: Ranks) -> dict[str, Call]:
    """One call of each operation; in elements `whole` is as many parts as there are ranks."""
    other = torch.empty_like(whole)

    def send(number: int) -> None:
        """There on even calls, back again on odd ones, between ranks 0 and 1; others stand by."""
        source, target = (0, 1) if number % 2 == 0 else (1, 0)
        if ranks.rank == source:
            distributed.send(whole, dst=target)
        elif ranks.rank == target:
            distributed.recv(whole, src=source)

    return {
        # The maximum leaves ones: sums over thousands of calls would not stay finite.
        "all_reduce": lambda _: distributed.all_reduce(whole, distributed.ReduceOp.MAX),
        "all_gather": lambda _: distributed.all_gather_into_tensor(whole, part),
        "reduce_scatter": lambda _: distributed.reduce_scatter_tensor(part, whole),
        "all_to_all": lambda _: distributed.all_to_all_single(other, whole),
        # A root that stays would run ahead of the others.
        "broadcast": lambda number: distributed.broadcast(whole, src=number % ranks.num_ranks),
        "send": send,
    }


if __name__ == "__main__":
    answer(lambda question: describe_device(question["label"]), dict)
