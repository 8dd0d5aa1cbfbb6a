"""The passes of a pipeline's devices: who waits for whom, and when each is done.

A pass starts when its device is free and its input has arrived. A message leaves when its pass
ends, behind those that its device sent the same way before; the sender goes on computing. Since
every device's order is fixed, so is the order on each link, and no event queue is needed.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.emulate.pipeline.schedules import Task

Send = Callable[[int, int, int], float]
"""Seconds of a message: from device, to device, bytes."""


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


class Flow:
    """All passes, from 0 to each device's last; `end_s`, `busy_s` and `sent` are by device.

    A pass is the stages as one micro-batch meets them; micro-batches take the passes in turn. Every
    device runs its tasks in its order; stage s lies on device s modulo the devices. RuntimeError
    when the orders wait for each other for ever: such a schedule is wrong.
    """

    def __init__(
        self,
        passes: Sequence[Sequence[PipelineStage]],
        *,
        orders: Sequence[Sequence[Task]],
        send_s: Send,
    ) -> None:
        self._passes = passes
        self._send_s = send_s
        self._arrival_s: dict[Task, float] = {}
        self._link_free_s: dict[tuple[int, int], float] = defaultdict(float)
        self.end_s = [0.0] * len(orders)
        self.busy_s = [0.0] * len(orders)
        self.sent: list[list[tuple[float, int]]] = [[] for _ in orders]
        """Seconds on the link, without queueing, and bytes of each message."""
        left = [deque(tasks) for tasks in orders]
        has_moved = True
        while has_moved:
            has_moved = False
            for device, tasks in enumerate(left):
                while tasks and self._run(tasks[0], device=device):
                    tasks.popleft()
                    has_moved = True
        if any(left):
            raise RuntimeError("the schedule's devices wait for each other for ever")

    def _run(self, task: Task, *, device: int) -> bool:
        """Run the device's next pass; False when its input has not even been sent."""
        begins = task.is_forward and task.stage == 0
        arrival_s = 0.0 if begins else self._arrival_s.pop(task, None)
        if arrival_s is None:
            return False
        stage = self._stage_of(task)
        seconds = stage.forward_s if task.is_forward else stage.backward_s
        self.end_s[device] = max(self.end_s[device], arrival_s) + seconds
        self.busy_s[device] += seconds
        self._hand_on(task, device=device)
        return True

    def _stage_of(self, task: Task) -> PipelineStage:
        return self._passes[task.micro_batch % len(self._passes)][task.stage]

    def _hand_on(self, task: Task, *, device: int) -> None:
        if task.is_forward and task.stage == len(self._passes[0]) - 1:
            self._arrival_s[task._replace(is_forward=False)] = self.end_s[device]
            return
        to = task._replace(stage=task.stage + (1 if task.is_forward else -1))
        if to.stage < 0:
            return
        # A gradient is as large as the activation that it belongs to.
        num_bytes = self._stage_of(min(task, to, key=lambda one: one.stage)).output_bytes
        to_device = to.stage % len(self.end_s)
        arrival_s = self.end_s[device]
        if to_device != device:
            pair = (device, to_device)
            seconds = self._send_s(device, to_device, num_bytes)
            arrival_s = max(arrival_s, self._link_free_s[pair]) + seconds
            self._link_free_s[pair] = arrival_s
            self.sent[device].append((seconds, num_bytes))
        self._arrival_s[to] = arrival_s
