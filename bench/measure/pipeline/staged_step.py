"""One micro-batch through the stages of a pipeline, all on one device, each timed by itself.

Forward through every stage, backward through every stage, one optimizer step: the arithmetic of
the whole net, cut at the stages. Between two stages nothing is copied; messages are simulated.
Differs from a real micro-batch: gradients are written, not added to those of the one before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.core.errors import MeasurementError
from bench.core.nouns import Dtype
from bench.emulate.pipeline.pipeline import PipelineStage
from bench.measure.engine.correctness import TOLERANCE_FRAC
from bench.measure.engine.precision import autocast
from bench.measure.engine.steps import TrainStep
from bench.measure.pipeline.stage_clock import StageClock
from bench.workload import Workload

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class StageFacts:
    """What does not change from pass to pass; lists are by stage."""

    output_bytes: tuple[int, ...]
    """Activation handed on by each stage but the last, as it was on this device and dtype."""
    gradient_bytes: tuple[int, ...]
    parameter_fracs: tuple[float, ...]
    """Share of the net's parameters, by which the optimizer step is divided."""
    shared_bytes: int
    """Gradients of parameters that more than one stage has (tied embeddings)."""


class StagedStep(TrainStep):
    """A training step over stages; `clock` has the intervals of every pass.

    A pass with S stages has 2 S + 1 intervals: forwards in order, backwards in reverse, optimizer.
    """

    def __init__(
        self,
        workload: Workload,
        net: nn.Module,
        *,
        device_type: str,
        dtype: Dtype,
        num_stages: int,
        clock: StageClock,
        is_compiled: bool = False,
    ) -> None:
        super().__init__(workload, net, device_type=device_type, dtype=dtype)
        self.clock = clock
        self._whole = net
        stages = workload.pipeline_stages(net, num_stages=num_stages)
        if len(stages) != num_stages:
            raise ValueError(f"pipeline_stages returned {len(stages)} stages, not {num_stages}")
        self._parts = list(stages)
        self._stages = _compiled(stages) if is_compiled else list(stages)
        self._output_bytes: tuple[int, ...] | None = None

    def __call__(self, *micro_batches: Any) -> None:
        """Queue one micro-batch, there is no second, and one optimizer step."""
        (batch,) = micro_batches
        if self.last_loss is None:
            self._check(batch)
        self.clock.mark()
        inputs, outputs = self._forward(batch)
        if self._output_bytes is None:
            self._output_bytes = tuple(o.numel() * o.element_size() for o in outputs[:-1])
        loss = outputs[-1].detach()
        self._go_back(inputs, outputs)
        self._update()
        self._optimizer.zero_grad(set_to_none=True)
        self.clock.mark()
        self.clock.end_pass()
        self.last_loss = loss
        if self.first_loss is None:
            self.first_loss = loss

    def _forward(self, batch: Any) -> tuple[list[torch.Tensor | None], list[torch.Tensor]]:
        """Return what each stage was given and what it returned."""
        inputs: list[torch.Tensor | None] = []
        outputs: list[torch.Tensor] = []
        value: torch.Tensor | None = None
        last = len(self._stages) - 1
        for index, stage in enumerate(self._stages):
            # One context for each stage, so that each casts its own weights.
            with autocast(self._device_type, self._dtype):
                output = stage(value, batch)
            inputs.append(value)
            outputs.append(output)
            self.clock.mark()
            value = output.detach().requires_grad_() if index < last else None
        return inputs, outputs

    def _go_back(self, inputs: list[torch.Tensor | None], outputs: list[torch.Tensor]) -> None:
        import torch

        loss = outputs.pop()
        torch.autograd.backward(loss if self._scaler is None else self._scaler.scale(loss))
        self.clock.mark()
        while outputs:
            value = inputs.pop()
            assert value is not None and value.grad is not None
            torch.autograd.backward(outputs.pop(), value.grad)
            self.clock.mark()

    def _check(self, batch: Any) -> None:
        """Raise `MeasurementError` unless the stages make the net's loss."""
        import torch

        losses = []
        for stages in ([], self._parts):
            with (
                torch.no_grad(),
                torch.random.fork_rng(devices=[]),
                autocast(self._device_type, self._dtype),
            ):
                torch.manual_seed(0)  # random masks must be the same ones
                value = None if stages else self._workload.loss(self._whole, batch)
                for stage in stages:
                    value = stage(value, batch)
            assert value is not None
            losses.append(float(value))
        whole, staged = losses
        if not abs(staged - whole) <= TOLERANCE_FRAC[self._dtype] * abs(whole):
            raise MeasurementError(
                f"the pipeline stages' loss {staged:.6g} is not the net's {whole:.6g}; "
                "correct the workload's pipeline_stages"
            )

    def facts(self) -> StageFacts:
        """Return what the simulation needs beside times; only after a pass."""
        assert self._output_bytes is not None, "asked before the first pass"
        by_stage = [list(stage.parameters()) for stage in self._parts]
        total = sum(p.numel() for p in self._whole.parameters())
        counts = Counter(p for own in by_stage for p in own)
        return StageFacts(
            output_bytes=self._output_bytes,
            gradient_bytes=tuple(_num_bytes(own) for own in by_stage),
            parameter_fracs=tuple(sum(p.numel() for p in own) / total for own in by_stage),
            shared_bytes=_num_bytes(p for p, count in counts.items() if count > 1),
        )


def stages_of(intervals_s: Sequence[float], *, facts: StageFacts) -> list[PipelineStage]:
    """Return the stages as one pass measured them; `intervals_s` as `StagedStep` has them."""
    count = len(facts.gradient_bytes)
    forwards_s, backwards_s = intervals_s[:count], intervals_s[count : 2 * count][::-1]
    return [
        PipelineStage(
            forward_s=forwards_s[index],
            backward_s=backwards_s[index],
            optimizer_s=intervals_s[-1] * facts.parameter_fracs[index],
            output_bytes=facts.output_bytes[index] if index < count - 1 else 0,
            gradient_bytes=facts.gradient_bytes[index],
        )
        for index in range(count)
    ]


def _num_bytes(parameters: Any) -> int:
    return sum(p.numel() * p.element_size() for p in parameters if p.requires_grad)


def _compiled(stages: Sequence[nn.Module]) -> list[Any]:
    """Compile each stage; they share their code, and torch counts graphs by code."""
    import torch

    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, 2 * len(stages))
    return [torch.compile(stage) for stage in stages]
