"""Communication of a training step by formula: what tensor, pipeline and data parallelism send.

For projecting and for checking claims where nothing was traced; `bench.emulate` measures the same.
Transformer formulas: Shoeybi et al. 2019 (https://arxiv.org/abs/1909.08053), four all-reduces of
activations a layer; Narayanan et al. 2021 (https://arxiv.org/abs/2104.04473), FLOP, and the
bubble of (stages - 1) / (micro-batches x chunks). Optimizer, imbalance and recomputation are out.
"""

from dataclasses import dataclass

from bench.core.nouns import Layout
from bench.hardware.costs.cost import CostModel

ALL_REDUCES_PER_LAYER = 4
"""Two forward (after attention and after the feed-forward net), two backward."""
BACKWARD_FRACTION = 2 / 3
"""Of a step's compute: gradients of activations and of weights, each as much as forward."""
BUCKET_BYTES = 25 * 2**20
"""Gradients that DDP sends together; torch's default."""


@dataclass(frozen=True, kw_only=True)
class Transformer:
    """A decoder as its sizes; the feed-forward net is four times as wide."""

    hidden: int
    num_layers: int
    sequence_length: int
    value_bytes: int = 2
    """bf16 activations and gradients."""

    @property
    def num_parameters(self) -> int:
        """Of the layers, without embeddings."""
        return 12 * self.num_layers * self.hidden**2

    def step_flops(self, num_tokens: int) -> float:
        """Forward and backward of the layers; equation 3 of Narayanan without recomputation."""
        per_token = 72.0 * self.num_layers * self.hidden**2
        return num_tokens * per_token * (1 + self.sequence_length / (6 * self.hidden))

    def activation_bytes(self, num_tokens: int) -> int:
        """What passes from one layer to the next."""
        return num_tokens * self.hidden * self.value_bytes


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """One optimizer step, in parts that add up."""

    compute_s: float
    tensor_s: float = 0.0
    """All-reduces inside the layers, which compute waits for."""
    pipeline_s: float = 0.0
    """Sends between stages."""
    bubble_s: float = 0.0
    """Stages that wait for the pipeline to fill and drain."""
    data_s: float = 0.0
    """Exposed part of the gradients' all-reduce."""

    @property
    def seconds(self) -> float:
        """All parts together."""
        return self.compute_s + self.tensor_s + self.pipeline_s + self.bubble_s + self.data_s

    @property
    def communication_fraction(self) -> float:
        """Share of the step in which devices wait for the link."""
        return (self.tensor_s + self.pipeline_s + self.data_s) / self.seconds


def transformer_step(
    net: Transformer,
    *,
    layout: Layout,
    tokens_per_micro_batch: int,
    num_micro_batches: int,
    flops_per_s: float,
    model: CostModel,
    chunks: int = 1,
) -> StepTime:
    """Time a step without overlap; `flops_per_s` is what one device achieves.

    Tensor ranks are neighbours, then data, then stages. `chunks` above 1 interleaves the stages.
    """
    stages, stride = layout.pipeline, layout.tensor * layout.data
    activation_bytes = net.activation_bytes(tokens_per_micro_batch)
    compute_s = net.step_flops(tokens_per_micro_batch) / (layout.tensor * stages * flops_per_s)
    reduce_s = model.cost(
        "all_reduce", num_bytes=activation_bytes, group=model.group_of(range(layout.tensor))
    ).seconds
    tensor_s = ALL_REDUCES_PER_LAYER * net.num_layers / stages * reduce_s
    send_s = 0.0
    if stages > 1:
        neighbours = model.group_of((0, stride))
        send_s = model.cost("send", num_bytes=activation_bytes, group=neighbours).seconds
    pipeline_s = 2 * chunks * send_s  # forward and back, at every chunk's end
    replicas = model.group_of(range(0, stride, layout.tensor))
    shard_bytes = net.num_parameters * net.value_bytes // (layout.tensor * stages)
    data_s = model.cost("all_reduce", num_bytes=shard_bytes, group=replicas).seconds
    micro_batch_s = compute_s + tensor_s + pipeline_s
    return StepTime(
        compute_s=num_micro_batches * compute_s,
        tensor_s=num_micro_batches * tensor_s,
        pipeline_s=num_micro_batches * pipeline_s,
        bubble_s=(stages - 1) / chunks * micro_batch_s,
        data_s=data_s,
    )


def data_parallel_step(
    compute_s: float,
    *,
    gradient_bytes: int,
    num_devices: int,
    model: CostModel,
    bucket_bytes: int = BUCKET_BYTES,
    is_overlapped: bool = True,
) -> StepTime:
    """Time a step of DDP whose compute takes `compute_s` on one device.

    Overlapped, buckets leave while backward runs: what does not fit beside it is exposed, and the
    last bucket always is, since nothing is left to hide it.
    """
    group = model.group_of(range(num_devices))
    sizes = [bucket_bytes] * (gradient_bytes // bucket_bytes)
    sizes += [gradient_bytes % bucket_bytes] if gradient_bytes % bucket_bytes else []
    costs = [model.cost("all_reduce", num_bytes=size, group=group).seconds for size in sizes]
    total_s = sum(costs)
    if not is_overlapped or not costs:
        return StepTime(compute_s=compute_s, data_s=total_s)
    beyond_s = total_s - BACKWARD_FRACTION * compute_s
    return StepTime(compute_s=compute_s, data_s=max(beyond_s, costs[0]))
