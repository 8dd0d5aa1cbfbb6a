"""A pipeline-parallel step, event by event, from the measured times of its stages.

A pass starts when its device is free and its input has arrived. A message leaves when its pass
ends, behind those that its device sent the same way before; the sender goes on computing. After a
device's last backward its gradients are reduced over the replicas and its optimizer steps. One rank
cannot know when upstream finishes, so a pipeline is only simulated. Ranks are numbered as in
Megatron-LM: tensor, then data, then pipeline. Left out: contention, that pairs and replicas may
share a wire, differences between ranks, and the few bytes of a gradient norm (see `clips`).

GPipe (arXiv 1811.06965) runs all forwards, then all backwards. 1F1B (arXiv 2006.09503) runs a
backward as soon as it can, which frees activations earlier and leaves the same bubble. Interleaved
(arXiv 2104.04473, section 2.2), each device has V chunks of the net, a bubble V times smaller and V
times the messages.
"""

import re
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from bench.core.errors import UsageError
from bench.core.nouns import Layout
from bench.emulate.replay import Bound
from bench.hardware.costs.collectives import Method, Op
from bench.hardware.costs.cost import CostModel


class Task(NamedTuple):
    """One pass of one micro-batch through one stage; stage s lies on device s modulo devices."""

    is_forward: bool
    micro_batch: int
    stage: int


def parse_schedule(text: str) -> tuple[str, int]:
    """Return kind and chunks of the net on one device: of 'gpipe', '1f1b' or 'interleaved-V'.

    Raises `UsageError` for anything else.
    """
    if text in ("gpipe", "1f1b"):
        return text, 1
    match = re.fullmatch(r"interleaved-([0-9]{1,3})", text)
    if match is None or int(match[1]) < 2:
        raise UsageError(
            f"schedule {text!r} is not one of gpipe, 1f1b, interleaved-V with V from 2 on, "
            "such as interleaved-2"
        )
    return "interleaved", int(match[1])


def check_pipeline(layout: Layout) -> None:
    """Raise `UsageError` in one line when this pipeline cannot be simulated from whole stages."""
    kind, _ = parse_schedule(layout.schedule)
    if layout.tensor > 1:
        raise UsageError(
            f"--tp {layout.tensor} inside --pp is not simulated: stages are measured whole on one "
            "device, and a part of one would be guessed; use --tp 1"
        )
    if kind == "interleaved" and layout.grad_accum % layout.pipeline:
        nearest = max(1, round(layout.grad_accum / layout.pipeline)) * layout.pipeline
        raise UsageError(
            f"the interleaved schedule needs micro-batches in multiples of the {layout.pipeline} "
            f"stages, not {layout.grad_accum}; use --grad-accum {nearest}"
        )


def pipeline_note(layout: Layout) -> str | None:
    """Return a line for the user when there are fewer micro-batches than stages."""
    if layout.grad_accum >= layout.pipeline:
        return None
    return (
        f"{layout.grad_accum} micro-batches cannot keep {layout.pipeline} stages busy: "
        f"most of the step is bubble; use --grad-accum {4 * layout.pipeline}"
    )


def num_stages(layout: Layout) -> int:
    """Return into how many stages the net is cut: devices times chunks."""
    return layout.pipeline * parse_schedule(layout.schedule)[1]


def device_tasks(layout: Layout, *, device: int) -> list[Task]:
    """Return what one device runs, in order; `check_pipeline` has passed."""
    num_devices = layout.pipeline
    kind, chunks = parse_schedule(layout.schedule)
    total = layout.grad_accum * chunks
    # Forwards before the first backward; interleaved as in Megatron-LM:
    # https://github.com/NVIDIA/Megatron-LM/blob/main/megatron/core/pipeline_parallel/schedules.py
    before = num_devices - device - 1
    if kind == "interleaved":
        before = 2 * before + (chunks - 1) * num_devices
    before = total if kind == "gpipe" else min(before, total)
    forwards, backwards = (
        [
            _task(index, is_forward=is_forward, chunks=chunks, of=(device, num_devices))
            for index in range(total)
        ]
        for is_forward in (True, False)
    )
    tasks = forwards[:before]
    for forward, backward in zip(forwards[before:], backwards, strict=False):
        tasks += (forward, backward)
    return tasks + backwards[total - before :]


def _task(index: int, *, is_forward: bool, chunks: int, of: tuple[int, int]) -> Task:
    """Return a device's pass number `index`: micro-batches go in rounds of as many as devices.

    A round runs through the first chunk, then through the second; backward from the last one.
    """
    device, num_devices = of
    if chunks == 1:
        return Task(is_forward, index, device)
    rounds, within = divmod(index, num_devices * chunks)
    chunk, member = divmod(within, num_devices)
    if not is_forward:
        chunk = chunks - 1 - chunk
    return Task(is_forward, rounds * num_devices + member, chunk * num_devices + device)


@dataclass(frozen=True, kw_only=True, slots=True)
class PipelineStage:
    """One stage for one micro-batch, in seconds, and what it hands on."""

    forward_s: float
    backward_s: float
    optimizer_s: float = 0.0
    """Its part of the optimizer step; once in a step."""
    output_bytes: int = 0
    """Activation handed to the next stage; a gradient of the same size comes back."""
    gradient_bytes: int = 0
    """Gradients of its parameters, reduced over replicas."""


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
    """Without queueing: what the device with the most sends and reduces, or all that is sent and
    reduced one after the other on the path that ends the step, whichever is more."""
    comm_exposed_s: float
    """`step_s - compute_step_s`: at most what is on that path, which passes several devices."""
    comm_ops: int
    """Of what `comm_total_s` is about."""
    comm_bytes: int
    methods: tuple[Method, ...]
    """Where the prices of messages and reductions come from; each once, in order."""


class Moment(NamedTuple):
    """A moment, and what was sent on the longest path to it, without queueing."""

    at_s: float = 0.0
    comm_s: float = 0.0
    comm_ops: int = 0
    comm_bytes: int = 0

    def sending(self, seconds: float, num_bytes: int) -> "Moment":
        """Return when a message is there that leaves now."""
        at_s, comm_s, comm_ops, comm_bytes = self
        return Moment(at_s + seconds, comm_s + seconds, comm_ops + 1, comm_bytes + num_bytes)

    def after(self, seconds: float) -> "Moment":
        """Return when so much more has been computed."""
        return self._replace(at_s=self.at_s + seconds)


class Flow:
    """All passes, from 0 to each device's last; `end`, `busy_s` and `sent` are by device.

    A pass is the stages as one micro-batch meets them; micro-batches take the passes in turn. Every
    device runs its tasks in its order; stage s lies on device s modulo the devices.
    """

    def __init__(
        self,
        passes: Sequence[Sequence[PipelineStage]],
        *,
        orders: Sequence[Sequence[Task]],
        send_s: Callable[[int, int, int], float],
    ) -> None:
        self._passes = passes
        self._send_s = send_s
        begins = (task for task in orders[0] if task.is_forward and task.stage == 0)
        self._arrival = dict.fromkeys(begins, Moment())
        self._link_free: dict[tuple[int, int], Moment] = defaultdict(Moment)
        self.end = [Moment()] * len(orders)
        self.busy_s = [0.0] * len(orders)
        self.sent = [Moment()] * len(orders)
        """Messages of each device, one after the other."""
        left = [deque(tasks) for tasks in orders]
        while num_left := sum(map(len, left)):
            for device, tasks in enumerate(left):
                while tasks and tasks[0] in self._arrival:
                    self._run(tasks.popleft(), device=device)
            assert sum(map(len, left)) < num_left, "devices wait for each other for ever"

    def _run(self, task: Task, *, device: int) -> None:
        """Run the device's next pass, whose input has been sent, and hand on what it makes."""
        stage = self._stage_of(task)
        seconds = stage.forward_s if task.is_forward else stage.backward_s
        end = max(self.end[device], self._arrival.pop(task)).after(seconds)
        self.end[device] = end
        self.busy_s[device] += seconds
        if task.is_forward and task.stage == len(self._passes[0]) - 1:
            self._arrival[task._replace(is_forward=False)] = end
            return
        to = task._replace(stage=task.stage + (1 if task.is_forward else -1))
        if to.stage >= 0:
            self._arrival[to] = self._arrive(task, to, device=device, end=end)

    def _stage_of(self, task: Task) -> PipelineStage:
        return self._passes[task.micro_batch % len(self._passes)][task.stage]

    def _arrive(self, task: Task, to: Task, *, device: int, end: Moment) -> Moment:
        """When the message of a pass that ended at `end` is where the next one runs."""
        to_device = to.stage % len(self.end)
        if to_device == device:
            return end
        # A gradient is as large as the activation that it belongs to.
        num_bytes = self._stage_of(min(task, to, key=lambda one: one.stage)).output_bytes
        seconds = self._send_s(device, to_device, num_bytes)
        self.sent[device] = self.sent[device].sending(seconds, num_bytes)
        pair = (device, to_device)
        self._link_free[pair] = max(end, self._link_free[pair]).sending(seconds, num_bytes)
        return self._link_free[pair]


def simulate_step(
    stages: Sequence[PipelineStage],
    *,
    layout: Layout,
    model: CostModel | None,
    bound: Bound = "seconds",
    passes: Sequence[Sequence[PipelineStage]] = (),
    shared_bytes: int = 0,
    clips: bool = False,
) -> PipelineStep:
    """Simulate one step of `layout.grad_accum` micro-batches; model None is an infinite link.

    `stages` are in the net's order, `layout.pipeline` times the schedule's chunks of them; stage s
    lies on device s modulo `layout.pipeline`. Micro-batches take their times from `passes` in turn;
    without any, from `stages`. `shared_bytes` are gradients of a matrix that first and last stage
    share (tied embeddings), which their devices add up.
    """
    num_devices = layout.pipeline
    assert len(stages) == num_stages(layout)
    orders = [device_tasks(layout, device=device) for device in range(num_devices)]
    links = _Links(layout, model=model, bound=bound)
    passes = passes or [stages]
    free = Flow(passes, orders=orders, send_s=lambda _from, _to, _bytes: 0.0)
    sent = free if model is None else Flow(passes, orders=orders, send_s=cache(links.send_s))
    # Until the last backward is done.
    idle_s = num_devices * max(sent.end).at_s - sum(sent.busy_s)
    on_device = [stages[device::num_devices] for device in range(num_devices)]
    reduced = [links.reduced(device, stages=some) for device, some in enumerate(on_device)]
    shared = links.shared(shared_bytes if num_devices > 1 else 0)
    optimizer_s = [sum(one.optimizer_s for one in some) for some in on_device]

    def ended(flow: Flow, *, is_free: bool) -> Moment:
        """When the last device has reduced its gradients, added up the shared matrix, stepped."""
        ready = list(flow.end)
        if layout.data > 1 and not is_free:
            ready = [end.sending(*own) for end, own in zip(ready, reduced, strict=True)]
        if shared[1]:
            both = max(ready[0], ready[-1])
            ready[0] = ready[-1] = both if is_free else both.sending(*shared)
        if clips:
            ready = [max(ready)] * num_devices
        return max(one.after(own) for one, own in zip(ready, optimizer_s, strict=True))

    step, compute_step_s = ended(sent, is_free=False), ended(free, is_free=True).at_s
    if layout.data > 1:
        sent.sent = [one.sending(*own) for one, own in zip(sent.sent, reduced, strict=True)]
    if shared[1]:
        sent.sent[0], sent.sent[-1] = (sent.sent[end].sending(*shared) for end in (0, -1))
    most = max(*reversed(sent.sent), step, key=lambda one: one.comm_s)
    return PipelineStep(
        step_s=step.at_s,
        compute_step_s=compute_step_s,
        bubble_frac=idle_s / (num_devices * step.at_s) if step.at_s else 0.0,
        comm_total_s=most.comm_s,
        comm_exposed_s=max(0.0, step.at_s - compute_step_s),
        comm_ops=most.comm_ops,
        comm_bytes=most.comm_bytes,
        methods=tuple(sorted(links.methods)),
    )


class _Links:
    """Prices of what the devices of one pipeline send to each other and to their replicas."""

    def __init__(self, layout: Layout, *, model: CostModel | None, bound: Bound) -> None:
        self._layout = layout
        self._model = model
        self._bound = bound
        self.methods: set[Method] = set()

    def send_s(self, device: int, to_device: int, num_bytes: int) -> float:
        ranks = [self._first_rank(device), self._first_rank(to_device)]
        return self._price_s("send", num_bytes=num_bytes, ranks=ranks)

    def reduced(self, device: int, *, stages: Sequence[PipelineStage]) -> tuple[float, int]:
        """Seconds and bytes of a device's gradients over its replicas."""
        num_bytes, first = sum(one.gradient_bytes for one in stages), self._first_rank(device)
        ranks = range(first, self._first_rank(device + 1), self._layout.tensor)
        return self._price_s("all_reduce", num_bytes=num_bytes, ranks=ranks), num_bytes

    def shared(self, num_bytes: int) -> tuple[float, int]:
        """Seconds and bytes of what the first and the last device add up."""
        ends = sorted({0, self._first_rank(self._layout.pipeline - 1)})
        return self._price_s("all_reduce", num_bytes=num_bytes, ranks=ends), num_bytes

    def _first_rank(self, device: int) -> int:
        return device * self._layout.tensor * self._layout.data

    def _price_s(self, op: Op, *, num_bytes: int, ranks: Sequence[int]) -> float:
        if self._model is None or num_bytes == 0 or len(ranks) == 1:
            return 0.0
        cost = self._model.cost(op, num_bytes=num_bytes, group=self._model.group_of(ranks))
        self.methods.add(cost.method)
        seconds: float = getattr(cost, self._bound)
        return seconds
