"""What a device holds in a decoder's training: weights, gradients, state, activations, logits.

Activations per token and layer are counted as in arXiv 2205.05198, section 4, for any number of
key heads, any width and a gated feed-forward. The first stage has as many micro-batches in flight
as there are stages, and more where the pipeline is interleaved; the last has the logits. Left out:
the allocator's and the driver's share.
"""

from bench.hardware.costs.training_jobs import TrainingJob
from bench.hardware.costs.training_step import (
    STATE_BYTES,
    VALUE_BYTES,
    WEIGHT_BYTES,
    stage_parameters,
)

LOGIT_BYTES = 2 + 4 + 4
"""Per logit: as computed, in fp32, and the gradient."""


def training_memory_bytes(job: TrainingJob) -> float:
    """Most that one device holds."""
    layout, net = job.layout, job.net
    share = layout.data if job.software.splits_optimizer else 1
    state = stage_parameters(job) * (
        WEIGHT_BYTES + job.software.gradient_bytes + STATE_BYTES / share
    )
    if job.software.shards_weights:
        # Beside the shares: weights of this layer, of the next, of embedding and logits, and a
        # unit's gradients.
        vocabulary = net.vocabulary_parameters
        whole = WEIGHT_BYTES * (2 * net.layer_parameters + vocabulary)
        whole += job.software.gradient_bytes * max(net.layer_parameters, vocabulary)
        shares = stage_parameters(job) * (job.software.gradient_bytes + STATE_BYTES) / share
        state = shares + whole / layout.tensor
    layers = net.layers / layout.pipeline
    kept = job.tokens * layer_token_bytes(job)
    working = job.tokens * _whole_layer_bytes(job) if job.recompute == "full" else 0.0
    # Passes of the first stage, one for each chunk, whose backward is still to come.
    ahead = layout.pipeline * job.chunks + (layout.pipeline - 1 if job.chunks > 1 else 0)
    first = min(layout.grad_accum * job.chunks, ahead) / job.chunks * layers * kept
    logits = LOGIT_BYTES * job.tokens * net.vocab / layout.tensor
    activations = max(first, layers * kept + logits) if layout.pipeline > 1 else first + logits
    return state + activations + working


def layer_token_bytes(job: TrainingJob) -> float:
    """What a layer keeps of one token until backward."""
    if job.recompute != "full":
        return _whole_layer_bytes(job)
    return VALUE_BYTES * job.net.hidden / job.sequence_ranks


def _whole_layer_bytes(job: TrainingJob) -> float:
    """Of a layer that computes nothing again, but the attention where that is asked for."""
    net, tensor = job.net, job.layout.tensor
    # Inputs of two norms, of two products behind them, and two masks.
    across = (4 + 4 + 2) * net.hidden
    query_key_value = VALUE_BYTES * (net.hidden + 2 * net.kv_width)
    inside = query_key_value + VALUE_BYTES * net.hidden
    inside += VALUE_BYTES * (3 if net.is_gated else 2) * net.ffn
    if not net.is_fused and job.recompute != "selective":
        inside += 5 * net.heads * net.sequence  # softmax, mask, and what dropout leaves of it
    return across / job.sequence_ranks + inside / tensor
