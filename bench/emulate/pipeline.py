"""A pipeline-parallel step, event by event, from the measured times of its stages.

One rank cannot know when upstream finishes, so a pipeline is never emulated, only simulated. After
a device's last backward its gradients are reduced over the replicas, beside nothing of its own, and
its optimizer steps. Ranks are numbered as in Megatron-LM: tensor, then data, then pipeline. Left
out: contention, that pairs and replicas may share a wire, differences between ranks, and the few
bytes of a gradient norm, for which all devices wait when `clips` is set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.core.nouns import Layout
from bench.emulate.pipeline_flow import Flow, Stage, Traffic, flow
from bench.emulate.schedules import device_tasks, parse_schedule
from bench.emulate.simulate import Bound, Prices
from bench.hardware.collectives import Method, Op


@dataclass(frozen=True, kw_only=True, slots=True)
class PipelineStep:
    """One simulated step."""

    step_s: float
    compute_step_s: float
    """The step on an infinite link: its bubbles stay."""
    bubble_frac: float
    """Share of the step that devices stand idle between the first forward and the last backward,
    waiting for messages included; mean over devices."""
    busy_s: tuple[float, ...]
    """Forward and backward passes of each device."""
    comm_total_s: float
    """What the device with the most sends and reduces, without queueing."""
    comm_exposed_s: float
    """`step_s - compute_step_s`."""
    comm_ops: int
    """Of the device that `comm_total_s` is about."""
    comm_bytes: int
    methods: tuple[Method, ...]
    """Where the prices of messages and reductions come from; each once, in order."""


def simulate_step(
    stages: Sequence[Stage],
    *,
    layout: Layout,
    model: Prices | None,
    bound: Bound = "seconds",
    passes: Sequence[Sequence[Stage]] = (),
    shared_bytes: int = 0,
    clips: bool = False,
) -> PipelineStep:
    """Simulate one step of `layout.grad_accum` micro-batches; model None is an infinite link.

    `stages` are in the net's order, `layout.pipeline` times the schedule's chunks of them; stage s
    lies on device s modulo `layout.pipeline`. Micro-batches take their times from `passes` in turn;
    without any, from `stages`. `shared_bytes` are gradients of a matrix that first and last stage
    share (tied embeddings), which their devices add up. Raises `UsageError` for an unknown schedule
    and ValueError for another number of stages.
    """
    num_devices = layout.pipeline
    schedule = parse_schedule(layout.schedule)
    if len(stages) != num_devices * schedule.chunks:
        raise ValueError(
            f"{layout.schedule} over {num_devices} devices has no {len(stages)} stages"
        )
    orders = [
        device_tasks(
            schedule, num_devices=num_devices, device=device, num_micro_batches=layout.grad_accum
        )
        for device in range(num_devices)
    ]
    links = _Links(layout, model=model, bound=bound)
    ending = _Ending(stages, links=links, shared_bytes=shared_bytes, clips=clips)
    passes = passes or [stages]
    free = flow(passes, orders=orders, send_s=lambda _from, _to, _bytes: 0.0)
    sent = free if model is None else flow(passes, orders=orders, send_s=links.send_s)
    step_s, compute_step_s = ending.end_s(sent), ending.end_s(free, is_priced=False)
    traffic = ending.traffic(sent)
    return PipelineStep(
        step_s=step_s,
        compute_step_s=compute_step_s,
        bubble_frac=_idle_s(sent) / (num_devices * step_s) if step_s else 0.0,
        busy_s=tuple(sent.busy_s),
        comm_total_s=traffic.seconds,
        comm_exposed_s=step_s - compute_step_s,
        comm_ops=traffic.ops,
        comm_bytes=traffic.num_bytes,
        methods=tuple(sorted(links.methods)),
    )


def _idle_s(passes: Flow) -> float:
    """Device seconds without work until the last backward is done."""
    return len(passes.end_s) * max(passes.end_s) - sum(passes.busy_s)


class _Links:
    """Prices of what the devices of one pipeline say to each other and to their replicas."""

    def __init__(self, layout: Layout, *, model: Prices | None, bound: Bound) -> None:
        self._layout = layout
        self._model = model
        self._bound = bound
        self.methods: set[Method] = set()
        self._send_cache: dict[tuple[int, int, int], float] = {}
        self.num_devices = layout.pipeline
        self.num_replicas = layout.data

    def send_s(self, device: int, to_device: int, num_bytes: int) -> float:
        key = (device, to_device, num_bytes)
        if key not in self._send_cache:
            ranks = [self._first_rank(device), self._first_rank(to_device)]
            self._send_cache[key] = self._price_s("send", num_bytes=num_bytes, ranks=ranks)
        return self._send_cache[key]

    def reduce_s(self, device: int, *, num_bytes: int) -> float:
        """Gradients of one device over its replicas."""
        first = self._first_rank(device)
        ranks = [first + replica * self._layout.tensor for replica in range(self._layout.data)]
        return self._price_s("all_reduce", num_bytes=num_bytes, ranks=ranks)

    def share_s(self, num_bytes: int) -> float:
        """Gradients of a matrix that first and last stage share."""
        ranks = sorted({self._first_rank(0), self._first_rank(self._layout.pipeline - 1)})
        return self._price_s("all_reduce", num_bytes=num_bytes, ranks=ranks)

    def _first_rank(self, device: int) -> int:
        return device * self._layout.tensor * self._layout.data

    def _price_s(self, op: Op, *, num_bytes: int, ranks: Sequence[int]) -> float:
        if self._model is None or num_bytes == 0 or len(ranks) == 1:
            return 0.0
        group = self._model.group_of(ranks)
        cost = self._model.cost(op, num_bytes=num_bytes, group=group)
        self.methods.add(cost.method)
        seconds: float = getattr(cost, self._bound)
        return seconds


class _Ending:
    """What follows a device's last backward: gradients reduced, a shared matrix, the optimizer."""

    def __init__(
        self, stages: Sequence[Stage], *, links: _Links, shared_bytes: int, clips: bool
    ) -> None:
        num_devices = links.num_devices
        on_device = [stages[device::num_devices] for device in range(num_devices)]
        self._gradient_bytes = [sum(one.gradient_bytes for one in some) for some in on_device]
        self._optimizer_s = [sum(one.optimizer_s for one in some) for some in on_device]
        self._reduce_s = [
            links.reduce_s(device, num_bytes=num_bytes)
            for device, num_bytes in enumerate(self._gradient_bytes)
        ]
        self._is_reduced = links.num_replicas > 1
        self._shared_bytes = shared_bytes if num_devices > 1 else 0
        self._share_s = links.share_s(self._shared_bytes)
        self._clips = clips

    def end_s(self, passes: Flow, *, is_priced: bool = True) -> float:
        """When the last device has stepped its optimizer; without prices on an infinite link."""
        ready_s = list(passes.end_s)
        if is_priced:
            ready_s = [end + own for end, own in zip(ready_s, self._reduce_s, strict=True)]
        if self._shared_bytes:
            both_s = max(ready_s[0], ready_s[-1]) + (self._share_s if is_priced else 0.0)
            ready_s[0] = ready_s[-1] = both_s
        if self._clips:
            ready_s = [max(ready_s)] * len(ready_s)
        return max(ready + own for ready, own in zip(ready_s, self._optimizer_s, strict=True))

    def traffic(self, passes: Flow) -> Traffic:
        """Messages and reductions of the device with the most."""
        most = Traffic()
        for device, sent in enumerate(passes.sent):
            mine = Traffic(seconds=sent.seconds, ops=sent.ops, num_bytes=sent.num_bytes)
            if self._is_reduced:
                mine.add(self._reduce_s[device], num_bytes=self._gradient_bytes[device])
            if self._shared_bytes and device in (0, len(passes.sent) - 1):
                mine.add(self._share_s, num_bytes=self._shared_bytes)
            if mine.seconds >= most.seconds:
                most = mine
        return most
