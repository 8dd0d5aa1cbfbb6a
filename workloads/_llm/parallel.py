"""How a Llama is spread over devices: which matrices tensor parallelism cuts. Torch-free.

As Megatron-LM (https://arxiv.org/abs/1909.08053 section 3): attention by heads, the MLP by its
width, embedding and head by vocabulary, so that a layer needs two all-reduces in each direction.
The plan of transformers gathers the logits, a far larger message than all the rest in training;
here the loss is computed on the cut logits. Left out: sequence parallelism, whose bytes are equal.
"""

from __future__ import annotations

from bench.workload import TensorPlan
from workloads._llm.llm_cost import LlamaShape

LAYER_STYLES = {
    "self_attn": "shared_input",
    "self_attn.q_proj": "colwise",
    "self_attn.k_proj": "colwise",
    "self_attn.v_proj": "colwise",
    "self_attn.o_proj": "rowwise",
    "mlp": "shared_input",
    "mlp.gate_proj": "colwise",
    "mlp.up_proj": "colwise",
    "mlp.down_proj": "rowwise",
}


def tensor_plan(llm: LlamaShape, *, is_training: bool) -> TensorPlan:
    """Return the plan; generation needs the logits of all tokens on every device."""
    return TensorPlan(
        styles={
            "model.embed_tokens": "embedding_rowwise",
            **{f"model.layers.*.{name}": style for name, style in LAYER_STYLES.items()},
            "lm_head": "colwise_logits" if is_training else "colwise_gather_output",
        },
        divides={
            "heads": llm.heads,
            "kv_heads": llm.kv_heads,
            "intermediate": llm.intermediate,
            "vocab": llm.vocab,
        },
    )
