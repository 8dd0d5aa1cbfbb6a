"""One step of a decoder's training on a cluster that need not exist, by formula, in parts.

Each product takes as long as its padded tiles take at the rate that the chip reaches, or as its
bytes take; all else in a layer is bytes. Ranks lie as in Megatron-LM: tensor, then data, then
pipeline. A pipeline of one forward and one backward (arXiv 2006.09503), or interleaved (arXiv
2104.04473), is in closed form; a test holds it to the simulation of `bench.emulate`. Left out:
launches, imbalance between ranks, failures, input, and evaluation.
"""

from collections.abc import Sequence
from typing import Literal

from bench.hardware.costs.collectives import Op
from bench.hardware.costs.cost import CostModel
from bench.hardware.costs.training_jobs import ChipSpeed, TrainingJob, TrainingTime

Bound = Literal["low_s", "seconds", "high_s"]
VALUE_BYTES = 2
"""Weights and activations in bf16 or fp16."""
TILE = (256, 128)
"""Output tile that products are cut into, either way round: the fastest of cuBLAS on these chips.
https://docs.nvidia.com/deeplearning/performance/dl-performance-matrix-multiplication"""
LOSS_BYTES = 52
"""Per logit, counted in Megatron-LM's vocab_parallel_cross_entropy: cast to fp32 6, maximum 4,
subtract 8, exponent 8, sum 4, divide 8; backward 8, cast 6.
https://github.com/NVIDIA/Megatron-LM/blob/main/megatron/core/tensor_parallel/cross_entropy.py"""
SCORE_FORWARD_BYTES, SCORE_BACKWARD_BYTES = 9, 11
"""Per attention score beyond the products: masked softmax 4, dropout 5; back 5 and 6."""
REPLICATED_BYTES, SHARDED_STATE_BYTES = 16, 30
"""Per parameter and step. Gradient norm, clipping and zeroing, all of fp32 gradients; then Adam:
gradient, fp32 weight and two moments read, the latter three written, and the bf16 weight."""
ACCUMULATE_BYTES = 8
"""Per parameter and micro-batch: its fp32 gradient is read and written."""
WEIGHT_BYTES, STATE_BYTES = 2, 12
"""Per parameter in memory: its copy in bf16; fp32 weight and two moments."""


def product_s(m: int, n: int, k: int, *, chip: ChipSpeed, count: int = 1) -> float:
    """Time of `count` products of m x k by k x n: whole waves of whole tiles, or bytes."""
    flops = min(
        _padded(m, n, tile=tile, units=chip.compute_units, count=count)
        for tile in (TILE, TILE[::-1])
    ) * 2.0 * k  # fmt: skip
    num_bytes = float(count) * VALUE_BYTES * (m * k + k * n + m * n)
    return max(flops / chip.matrix_flops_per_s, num_bytes / chip.memory_bytes_per_s)


def _padded(m: int, n: int, *, tile: tuple[int, ...], units: int | None, count: int) -> float:
    """Elements of output that are computed, padding and idle units of the last wave included."""
    if units is None:
        return float(m) * n * count
    tiles = count * -(-m // tile[0]) * -(-n // tile[1])
    return float(-(-tiles // units) * units) * tile[0] * tile[1]


def layer_passes(
    job: TrainingJob, *, chip: ChipSpeed, model: CostModel | None, bound: Bound = "seconds"
) -> tuple[TrainingTime, TrainingTime]:
    """Forward and backward of one micro-batch through one layer, on one device."""
    net, tokens, tensor = job.net, job.tokens, job.layout.tensor
    first = (2 if net.is_gated else 1) * net.ffn
    widths = ((net.hidden + 2 * net.kv_width, net.hidden), (net.hidden, net.hidden),
              (first, net.hidden), (net.hidden, net.ffn))  # fmt: skip
    # Query, key, value and the first of the feed-forward are cut by columns, the others by rows.
    local = [
        (outputs // tensor, inputs) if is_column else (outputs, inputs // tensor)
        for (outputs, inputs), is_column in zip(widths, (True, False, True, False), strict=True)
    ]
    forward = sum(product_s(tokens, n, k, chip=chip) for n, k in local)
    backward = sum(
        product_s(tokens, k, n, chip=chip) + product_s(n, k, tokens, chip=chip) for n, k in local
    )
    attention = _attention(job, chip=chip)
    gather_s, scatter_s = _tensor_s(job, model=model, bound=bound)
    waited_s, hidden_s = 2 * (gather_s + scatter_s), 0.0
    if job.software.splits_sequence:
        # Gradients are gathered before row-cut products; what was kept in parts is gathered again.
        waited_s, hidden_s = 2 * gather_s, 2 * (gather_s + scatter_s)
        waited_s += _beside_s(hidden_s, backward, chip=chip, model=model)
    bytes_s = [one / chip.memory_bytes_per_s for one in _elementwise_bytes(job)]
    ahead = TrainingTime(
        products_s=forward, attention_s=attention[0], elementwise_s=bytes_s[0],
        tensor_s=2 * (gather_s + scatter_s),
    )  # fmt: skip
    back = TrainingTime(
        products_s=backward, attention_s=attention[1], elementwise_s=bytes_s[1], tensor_s=waited_s
    )
    if job.recompute == "selective":
        back += TrainingTime(attention_s=attention[0])
    return ahead, back + ahead if job.recompute == "full" else back


def _beside_s(
    hidden_s: float, compute_s: float, *, chip: ChipSpeed, model: CostModel | None
) -> float:
    """What collectives beside compute cost: units that they take, or what is waited for."""
    taken = (model.topology.inner.contention_units or 0) if model is not None else 0
    share = min(1.0, taken / chip.compute_units) if chip.compute_units else 0.0
    return max(share * hidden_s, hidden_s - compute_s)


def _attention(job: TrainingJob, *, chip: ChipSpeed) -> tuple[float, float]:
    net, heads = job.net, job.net.heads / job.layout.tensor
    width, pairs = net.hidden // net.heads, job.tokens * net.sequence * heads
    if net.is_fused:
        # Five products backward where forward has two; causal: half of the pairs.
        flops = 4.0 * width * pairs / 2
        return (
            flops / chip.attention_flops_per_s,
            2.5 * flops / chip.attention_backward_flops_per_s,
        )
    count = max(1, round(job.micro_batch * heads))
    scores = product_s(net.sequence, net.sequence, width, chip=chip, count=count)
    values = product_s(net.sequence, width, net.sequence, chip=chip, count=count)
    forward_s = scores + values + SCORE_FORWARD_BYTES * pairs / chip.memory_bytes_per_s
    backward_s = SCORE_BACKWARD_BYTES * pairs / chip.memory_bytes_per_s
    return forward_s, backward_s + 2 * (scores + values)


def _elementwise_bytes(job: TrainingJob) -> tuple[float, float]:
    """Bytes that all but products and attention move, forward and backward, counted by kernel.

    Two norms read and write; two residuals with dropout read two tensors, write one and a mask;
    an activation reads and writes; rotary embeddings do so to query and key. Backward each reads
    a gradient besides and writes one for each input.
    """
    net, tensor, spread = job.net, job.layout.tensor, job.sequence_ranks
    across = 2 * (2 * 2 * net.hidden) + 2 * (3 * 2 + 1) * net.hidden
    back = 2 * (3 * 2 * net.hidden) + 2 * ((2 * 2 + 1) + 3 * 2) * net.hidden
    rotary = 2 * 2 * (net.hidden + net.kv_width) if net.is_gated else 0
    inside = (3 if net.is_gated else 2) * 2 * net.ffn
    inside_back = (5 if net.is_gated else 3) * 2 * net.ffn
    accumulate = ACCUMULATE_BYTES * net.layer_parameters / tensor
    forward = job.tokens * (across / spread + (inside + rotary) / tensor)
    return forward, job.tokens * (back / spread + (inside_back + rotary) / tensor) + accumulate


def _tensor_s(job: TrainingJob, *, model: CostModel | None, bound: Bound) -> tuple[float, float]:
    """Gather and scatter activations of one pass; an all-reduce counts as half of it each."""
    num_bytes = job.tokens * job.net.hidden * VALUE_BYTES
    ranks = range(job.layout.tensor)
    if not job.software.splits_sequence:
        half_s = _price_s(model, "all_reduce", num_bytes, ranks=ranks, bound=bound) / 2
        return half_s, half_s
    return (
        _price_s(model, "all_gather", num_bytes, ranks=ranks, bound=bound),
        _price_s(model, "reduce_scatter", num_bytes, ranks=ranks, bound=bound),
    )


def _price_s(
    model: CostModel | None, op: Op, num_bytes: float, *, ranks: Sequence[int], bound: Bound
) -> float:
    if model is None or len(ranks) < 2:
        return 0.0
    cost = model.cost(op, num_bytes=round(num_bytes), group=model.group_of(ranks))
    return float(getattr(cost, bound))


def training_step(
    job: TrainingJob, *, chip: ChipSpeed, model: CostModel | None, bound: Bound = "seconds"
) -> TrainingTime:
    """Time one optimizer step; the stage with the logits decides, as the slowest one."""
    layout, net = job.layout, job.net
    tensor, stages, passes = layout.tensor, layout.pipeline, layout.grad_accum
    ahead, back = layer_passes(job, chip=chip, model=model, bound=bound)
    stage = (ahead + back) * (net.layers / stages)
    logits = net.vocab // tensor
    head = TrainingTime(
        products_s=product_s(job.tokens, logits, net.hidden, chip=chip)
        + product_s(job.tokens, net.hidden, logits, chip=chip)
        + product_s(logits, net.hidden, job.tokens, chip=chip),
        elementwise_s=job.tokens * logits * LOSS_BYTES / chip.memory_bytes_per_s,
        tensor_s=2 * sum(_tensor_s(job, model=model, bound=bound)),
    )
    step = (stage + head) * passes
    others_s = (stages - 1) * stage.seconds / job.chunks
    send_s = _send_s(job, model=model, bound=bound)
    # Megatron-LM waits for a message before it goes on: one each way for each pass and chunk.
    waited_s = send_s
    if job.chunks > 1 and job.software.hides_messages:
        waited_s = max(0.0, send_s - stage.seconds / (2 * job.chunks))
    messages_s = 2 * (passes * job.chunks * waited_s + (stages - 1) * send_s)
    data_s = _data_s(job, model=model, bound=bound)
    if job.software.shards_weights:
        data_s = _sharded_s(job, (ahead, back), chip=chip, model=model, bound=bound)
    waiting = TrainingTime(bubble_s=others_s, pipeline_s=messages_s, data_s=data_s)
    return step + waiting + TrainingTime(optimizer_s=_optimizer_s(job, chip=chip))


def _send_s(job: TrainingJob, *, model: CostModel | None, bound: Bound) -> float:
    """One message to the next stage: each tensor rank sends its part, which is gathered there."""
    layout, num_bytes = job.layout, job.tokens * job.net.hidden * VALUE_BYTES
    if layout.pipeline < 2:
        return 0.0
    apart = (0, layout.tensor * layout.data)
    sent = _price_s(model, "send", num_bytes / layout.tensor, ranks=apart, bound=bound)
    if job.software.splits_sequence or layout.tensor < 2:
        return sent
    ranks = range(layout.tensor)
    return sent + _price_s(model, "all_gather", num_bytes, ranks=ranks, bound=bound)


def _data_s(job: TrainingJob, *, model: CostModel | None, bound: Bound) -> float:
    """Gradients, not hidden beside backward, as Megatron-LM does unless asked."""
    layout, net = job.layout, job.net
    ranks = range(0, layout.tensor * layout.data, layout.tensor)
    share = stage_parameters(job)
    gradient_bytes = job.software.gradient_bytes * share
    total_s = _price_s(model, "all_reduce", gradient_bytes, ranks=ranks, bound=bound)
    if job.software.splits_optimizer:
        reduced = _price_s(model, "reduce_scatter", gradient_bytes, ranks=ranks, bound=bound)
        weight_bytes = WEIGHT_BYTES * share
        total_s = reduced + _price_s(model, "all_gather", weight_bytes, ranks=ranks, bound=bound)
    if net.is_tied and layout.pipeline > 1:
        ends = (0, layout.tensor * layout.data * (layout.pipeline - 1))
        shared = job.software.gradient_bytes * net.vocab * net.hidden / layout.tensor
        total_s += _price_s(model, "all_reduce", shared, ranks=ends, bound=bound)
    return total_s


def _sharded_s(
    job: TrainingJob, passes: tuple[TrainingTime, TrainingTime], *, chip: ChipSpeed,
    model: CostModel | None, bound: Bound,
) -> float:  # fmt: skip
    """Layers' weights gathered and gradients scattered in every pass, as PyTorch FSDP does.

    Those of a layer run beside the one before it (prefetch; arXiv 2304.11277, section 3.3).
    Nothing is beside the first gather and the last scatter, the last layer's weights stay for
    backward, and embedding and logits are one unit at both ends.
    """
    layout, net = job.layout, job.net
    ranks = range(0, layout.tensor * layout.data, layout.tensor)

    def moved_s(parameters: float) -> tuple[float, float]:
        share = parameters / layout.tensor
        sizes: dict[Op, int] = {
            "all_gather": WEIGHT_BYTES, "reduce_scatter": job.software.gradient_bytes
        }  # fmt: skip
        gather_s, scatter_s = (
            _price_s(model, op, width * share, ranks=ranks, bound=bound)
            for op, width in sizes.items()
        )
        return gather_s, scatter_s

    gather_s, scatter_s = moved_s(net.layer_parameters)
    ahead, back = (one.seconds for one in passes)
    each_s = _beside_s(gather_s, ahead, chip=chip, model=model)
    each_s += _beside_s(gather_s + scatter_s, back, chip=chip, model=model)
    alone_s = gather_s + scatter_s + sum(moved_s(net.vocabulary_parameters))
    return layout.grad_accum * ((net.layers - 1) * each_s + alone_s)


def stage_parameters(job: TrainingJob) -> float:
    """Parameters on one device of the first or last stage, which have the most."""
    net, layout = job.net, job.layout
    ends = net.vocab * net.hidden if layout.pipeline > 1 else net.vocabulary_parameters
    return (net.layers * net.layer_parameters / layout.pipeline + ends) / layout.tensor


def _optimizer_s(job: TrainingJob, *, chip: ChipSpeed) -> float:
    share = job.layout.data if job.software.splits_optimizer else 1
    num_bytes = REPLICATED_BYTES + SHARDED_STATE_BYTES / share
    if job.software.shards_weights:
        num_bytes = (REPLICATED_BYTES + SHARDED_STATE_BYTES) / share
    return stage_parameters(job) * num_bytes / chip.memory_bytes_per_s
