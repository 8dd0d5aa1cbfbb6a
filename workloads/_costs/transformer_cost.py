"""What the parts of a transformer cost, by formula: parameters and forward FLOPs. Torch-free.

A multiply-add is 2 FLOP. Attention is counted in full, also where a causal kernel skips the masked
half, as FlopCounterMode does. Norms, softmax, activations and rotary embeddings are left out: none
of them is a matrix product. A backward costs twice the forward, unless an input needs no gradient.
"""


def linear_parameters(inputs: int, *, outputs: int, has_bias: bool = True) -> int:
    """Weights of a linear layer, and its biases."""
    return inputs * outputs + (outputs if has_bias else 0)


def layer_norm_parameters(width: int) -> int:
    """Scale and shift of a layer norm."""
    return 2 * width


def layer_weights(
    width: int, *, feedforward: int, num_attentions: int = 1, is_gated: bool = False
) -> int:
    """Weights of one layer's matrices: query, key, value and output, then the feed-forward's.

    A gated feed-forward (SwiGLU) has three matrices, another two; a decoder's layer that also
    attends to an encoder has two attentions.
    """
    return 4 * num_attentions * width**2 + (3 if is_gated else 2) * width * feedforward


def projection_flops(weights: int, *, tokens: float) -> float:
    """FLOPs of so many tokens through matrices of so many weights."""
    return 2.0 * weights * tokens


def attention_flops(width: int, *, pairs: float) -> float:
    """FLOPs of so many (query, key) pairs: a dot product and a weighted sum over the width."""
    return 4.0 * width * pairs


def layer_flops(width: int, *, feedforward: int, tokens: int, is_gated: bool = False) -> float:
    """Forward FLOPs of one layer in which every token attends to all."""
    weights = layer_weights(width, feedforward=feedforward, is_gated=is_gated)
    return projection_flops(weights, tokens=tokens) + attention_flops(width, pairs=tokens**2)
