"""A decoder's training as it is laid out: net, layout, program; and the parts of a step's time.

What a step takes is in `training_step`, what a device holds in `training_memory`.
"""

from dataclasses import dataclass, fields
from typing import Literal

from bench.core.nouns import Layout
from bench.hardware.costs.training_nets import DecoderNet

Recompute = Literal["none", "selective", "full"]
"""What backward computes again: nothing, attention (arXiv 2205.05198), or every layer."""


@dataclass(frozen=True, kw_only=True)
class Software:
    """What the training program does, where programs differ."""

    splits_sequence: bool
    """Norms and dropout are divided by the tensor ranks too (arXiv 2205.05198).

    Then half of what backward gathers and all that it scatters runs beside its products and takes
    some compute units: LinearWithGradAccumulationAndAsyncCommunication in
    https://github.com/NVIDIA/Megatron-LM/blob/main/megatron/core/tensor_parallel/layers.py
    """
    splits_optimizer: bool
    """Each replica keeps and steps its share of the optimizer's state (ZeRO 1)."""
    gradient_bytes: int
    """Per parameter, summed over replicas: fp32 under bf16, and the width of fp16 before."""
    hides_messages: bool
    """An interleaved pipeline sends beside its passes, as overlap_p2p_comm in
    https://github.com/NVIDIA/Megatron-LM/blob/main/megatron/training/arguments.py
    """
    shards_weights: bool = False
    """Each replica keeps its share of weights and gradients too, gathers a layer's weights before
    forward and again before backward, and scatters its gradients (ZeRO 3, arXiv 1910.02054)."""


SOFTWARE = {
    "today": Software(
        splits_sequence=True, splits_optimizer=True, gradient_bytes=4, hides_messages=True
    ),
    "2021": Software(
        splits_sequence=False, splits_optimizer=False, gradient_bytes=2, hides_messages=False
    ),
    "fsdp": Software(
        splits_sequence=True, splits_optimizer=True, gradient_bytes=4, hides_messages=False,
        shards_weights=True,
    ),
}  # fmt: skip
"""Megatron-LM with its usual flags, and as it was for arXiv 2104.04473; PyTorch's FSDP."""


@dataclass(frozen=True, kw_only=True)
class ChipSpeed:
    """What one device reaches."""

    matrix_flops_per_s: float
    memory_bytes_per_s: float
    attention_flops_per_s: float
    """Forward of a fused kernel that skips the masked half, and is credited with the other."""
    attention_backward_flops_per_s: float
    compute_units: int | None = None
    """None: no whole waves are asked for."""

    @classmethod
    def flat(cls, flops_per_s: float) -> "ChipSpeed":
        """All products at one rate, and all bytes for nothing."""
        return cls(
            matrix_flops_per_s=flops_per_s, memory_bytes_per_s=float("inf"),
            attention_flops_per_s=flops_per_s, attention_backward_flops_per_s=flops_per_s,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """What is trained, and how."""

    net: DecoderNet
    layout: Layout
    micro_batch: int
    """Sequences of one pass; the layout says how many passes in a step, and how many stages."""
    recompute: Recompute
    software: Software
    chunks: int = 1
    """Parts of the net on each device, of an interleaved pipeline."""

    @property
    def schedule(self) -> str:
        """Of the pipeline, as `--schedule` takes it."""
        return "1f1b" if self.chunks == 1 else f"interleaved-{self.chunks}"

    @property
    def sequence_ranks(self) -> int:
        """Ranks that norms and dropout are divided by."""
        return self.layout.tensor if self.software.splits_sequence else 1

    @property
    def tokens(self) -> int:
        """Tokens of one pass."""
        return self.micro_batch * self.net.sequence

    @property
    def step_tokens(self) -> int:
        """Tokens of a whole step."""
        return self.tokens * self.layout.grad_accum * self.layout.data


@dataclass(frozen=True, kw_only=True)
class TrainingTime:
    """One step in parts that add up, of the device that decides; seconds."""

    products_s: float = 0.0
    attention_s: float = 0.0
    elementwise_s: float = 0.0
    """All that is bytes alone: norms, activations, the loss, accumulated gradients."""
    tensor_s: float = 0.0
    """Collectives inside layers that compute waits for."""
    bubble_s: float = 0.0
    """Waiting for other stages, as the first and the last micro-batch come through."""
    pipeline_s: float = 0.0
    """Messages between stages."""
    data_s: float = 0.0
    """Gradients over replicas, and of a matrix that first and last stage share."""
    optimizer_s: float = 0.0

    @property
    def seconds(self) -> float:
        """The step."""
        return float(sum(getattr(self, one.name) for one in fields(self)))

    @property
    def communication_fraction(self) -> float:
        """Share of the step in which devices wait for the link."""
        return (self.tensor_s + self.pipeline_s + self.data_s) / self.seconds

    def __add__(self, other: "TrainingTime") -> "TrainingTime":
        """Part by part."""
        return TrainingTime(**{
            one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)
        })  # fmt: skip

    def __mul__(self, factor: float) -> "TrainingTime":
        """Part by part."""
        return TrainingTime(**{one.name: factor * getattr(self, one.name) for one in fields(self)})
