"""Communication of a training step by formula: what tensor and data parallelism send.

For checking claims where nothing was traced; `bench.emulate` measures the same, and simulates
pipelines. Transformer formulas: Shoeybi et al. 2019 (https://arxiv.org/abs/1909.08053), four
all-reduces of activations a layer; Narayanan et al. 2021 (https://arxiv.org/abs/2104.04473), FLOP.
Optimizer, imbalance and recomputation are out.
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


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """One optimizer step, in parts that add up."""

    compute_s: float
    tensor_s: float = 0.0
    """All-reduces inside the layers, which compute waits for."""
    data_s: float = 0.0
    """Exposed part of the gradients' all-reduce."""

    @property
    def seconds(self) -> float:
        """All parts together."""
        return self.compute_s + self.tensor_s + self.data_s

    @property
    def communication_fraction(self) -> float:
        """Share of the step in which devices wait for the link."""
        return (self.tensor_s + self.data_s) / self.seconds


def transformer_step(
    net: Transformer, *, layout: Layout, num_tokens: int, flops_per_s: float, model: CostModel
) -> StepTime:
    """Time one micro-batch without overlap; `flops_per_s` is what one device achieves.

    Tensor ranks are neighbours, replicas lie apart by so many.
    """
    tensor, num_devices = layout.tensor, layout.tensor * layout.data
    activation_bytes = num_tokens * net.hidden * net.value_bytes
    inside = model.group_of(range(tensor))
    reduce_s = model.cost("all_reduce", num_bytes=activation_bytes, group=inside).seconds
    replicas = model.group_of(range(0, num_devices, tensor))
    shard_bytes = net.num_parameters * net.value_bytes // tensor
    return StepTime(
        compute_s=net.step_flops(num_tokens) / (tensor * flops_per_s),
        tensor_s=ALL_REDUCES_PER_LAYER * net.num_layers * reduce_s,
        data_s=model.cost("all_reduce", num_bytes=shard_bytes, group=replicas).seconds,
    )


def data_parallel_step(
    compute_s: float,
    *,
    gradient_bytes: int,
    num_devices: int,
    model: CostModel,
    is_overlapped: bool = True,
) -> StepTime:
    """Time a step of DDP whose compute takes `compute_s` on one device.

    Overlapped, buckets leave while backward runs: what does not fit beside it is exposed, and the
    last bucket always is, since nothing is left to hide it.
    """
    group = model.group_of(range(num_devices))
    sizes = [BUCKET_BYTES] * (gradient_bytes // BUCKET_BYTES)
    sizes += [rest_bytes] if (rest_bytes := gradient_bytes % BUCKET_BYTES) else []
    costs = [model.cost("all_reduce", num_bytes=size, group=group).seconds for size in sizes]
    total_s = sum(costs)
    if not is_overlapped or not costs:
        return StepTime(compute_s=compute_s, data_s=total_s)
    beyond_s = total_s - BACKWARD_FRACTION * compute_s
    return StepTime(compute_s=compute_s, data_s=max(beyond_s, costs[0]))
