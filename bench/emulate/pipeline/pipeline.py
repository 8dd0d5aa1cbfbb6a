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
from bench.emulate.pipeline.pipeline_flow import Flow, PipelineStage
from bench.emulate.pipeline.schedules import device_tasks, parse_schedule
from bench.emulate.replay.simulate import Bound, Prices
from bench.hardware.costs.collectives import Method, Op


@dataclass(frozen=True, kw_only=True, slots=True)
class PipelineStep:
    """One simulated step."""

    step_s: float
    compute_step_s: float
    """The step on an infinite link: its bubbles stay."""
    bubble_frac: float
    """Share of the step that devices stand idle between the first forward and the last backward,
    waiting for messages included; mean over devices."""
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
    stages: Sequence[PipelineStage],
    *,
    layout: Layout,
    model: Prices | None,
    bound: Bound = "seconds",
    passes: Sequence[Sequence[PipelineStage]] = (),
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
    free = Flow(passes, orders=orders, send_s=lambda _from, _to, _bytes: 0.0)
    sent = free if model is None else Flow(passes, orders=orders, send_s=links.send_s)
    step_s, compute_step_s = ending.end_s(sent), ending.end_s(free, is_priced=False)
    # Until the last backward is done.
    idle_s = num_devices * max(sent.end_s) - sum(sent.busy_s)
    comm_total_s, comm_ops, comm_bytes = ending.most_traffic(sent)
    return PipelineStep(
        step_s=step_s,
        compute_step_s=compute_step_s,
        bubble_frac=idle_s / (num_devices * step_s) if step_s else 0.0,
        comm_total_s=comm_total_s,
        comm_exposed_s=step_s - compute_step_s,
        comm_ops=comm_ops,
        comm_bytes=comm_bytes,
        methods=tuple(sorted(links.methods)),
    )


class _Links:
    """Prices of what the devices of one pipeline send to each other and to their replicas."""

    def __init__(self, layout: Layout, *, model: Prices | None, bound: Bound) -> None:
        self.layout = layout
        self._model = model
        self._bound = bound
        self.methods: set[Method] = set()
        self._known_s: dict[tuple[int, int, int], float] = {}

    def send_s(self, device: int, to_device: int, num_bytes: int) -> float:
        key = (device, to_device, num_bytes)
        if key not in self._known_s:
            ranks = [self.first_rank(device), self.first_rank(to_device)]
            self._known_s[key] = self.price_s("send", num_bytes=num_bytes, ranks=ranks)
        return self._known_s[key]

    def first_rank(self, device: int) -> int:
        return device * self.layout.tensor * self.layout.data

    def price_s(self, op: Op, *, num_bytes: int, ranks: Sequence[int]) -> float:
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
        self, stages: Sequence[PipelineStage], *, links: _Links, shared_bytes: int, clips: bool
    ) -> None:
        layout, num_devices = links.layout, links.layout.pipeline
        on_device = [stages[device::num_devices] for device in range(num_devices)]
        self._gradient_bytes = [sum(one.gradient_bytes for one in some) for some in on_device]
        self._optimizer_s = [sum(one.optimizer_s for one in some) for some in on_device]
        first_ranks = [links.first_rank(device) for device in range(num_devices)]
        self._reduce_s = [
            links.price_s(
                "all_reduce",
                num_bytes=num_bytes,
                ranks=range(first, first + layout.data * layout.tensor, layout.tensor),
            )
            for first, num_bytes in zip(first_ranks, self._gradient_bytes, strict=True)
        ]
        self._is_reduced = layout.data > 1
        self._shared_bytes = shared_bytes if num_devices > 1 else 0
        ends = sorted({first_ranks[0], first_ranks[-1]})
        self._share_s = links.price_s("all_reduce", num_bytes=self._shared_bytes, ranks=ends)
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

    def most_traffic(self, passes: Flow) -> tuple[float, int, int]:
        """Seconds, number and bytes of the messages and reductions of the device with the most."""
        totals = []
        for device, sent in enumerate(passes.sent):
            own = list(sent)
            if self._is_reduced:
                own.append((self._reduce_s[device], self._gradient_bytes[device]))
            if self._shared_bytes and device in (0, len(passes.sent) - 1):
                own.append((self._share_s, self._shared_bytes))
            totals.append((sum(one[0] for one in own), len(own), sum(one[1] for one in own)))
        return max(reversed(totals), key=lambda total: total[0])
