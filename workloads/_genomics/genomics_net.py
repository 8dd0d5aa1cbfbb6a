"""Builds the ESM of transformers, its masked loss, and the score of a variant.

The head that predicts contacts of proteins is taken out: masked training gives it no gradient,
which ddp refuses. Casting the net to 16 bits would cast the rotary frequencies with it and turn far
positions by radians: they are made anew in fp32.
Letters: B windows, N tokens, V vocabulary.
"""

from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy, log_softmax
from transformers.models.esm import EsmConfig, EsmForMaskedLM
from transformers.models.esm.modeling_esm import EsmRotaryEmbedding

from workloads._genomics.genomics_cost import EsmShape
from workloads._genomics.kmers import MASK, NOT_PREDICTED, PADDING


class _ExactFrequencies(EsmRotaryEmbedding):  # type: ignore[misc]
    """Rotary frequencies that stay fp32 when the net is cast."""

    inv_freq: torch.Tensor

    def _apply(self, fn: Any, recurse: bool = True) -> nn.Module:
        super()._apply(fn, recurse)
        exact, _ = self.compute_default_rope_parameters(self.config)
        self.inv_freq = exact.to(self.inv_freq.device)
        return self


def build(shape: EsmShape) -> nn.Module:
    """Return the net with random weights."""
    config = EsmConfig(
        vocab_size=shape.vocab,
        mask_token_id=MASK,
        pad_token_id=PADDING,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.intermediate,
        max_position_embeddings=shape.num_positions or shape.window_tokens,
        position_embedding_type="rotary" if shape.is_rotary else "absolute",
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        token_dropout=False,
        emb_layer_norm_before=False,
        tie_word_embeddings=shape.is_tied,
        attn_implementation="sdpa",
    )
    net = EsmForMaskedLM(config)
    del net.esm.contact_head
    if shape.is_rotary:
        net.esm.rotary_embeddings = _ExactFrequencies(config)
    return net  # type: ignore[no-any-return]


def masked_loss(net: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Mean cross-entropy in nats, in fp32, of the tokens that were chosen."""
    logits_bnv = net(input_ids=batch["ids"]).logits
    targets = batch["targets"].flatten()
    return cross_entropy(logits_bnv.flatten(0, 1).float(), targets, ignore_index=NOT_PREDICTED)


def score(net: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Log-likelihood of the changed token in the alternative window less that in the reference.

    The token is seen, not masked: training also predicts tokens that it leaves or replaces, so the
    net gives a seen token the likelihood that its surroundings leave it.
    """
    ids_bn = torch.cat([batch["alternative"], batch["reference"]])
    position_b = batch["position"].repeat(2)
    row_b = torch.arange(len(ids_bn), device=ids_bn.device)
    logits_bv = net(input_ids=ids_bn).logits[row_b, position_b]
    token_b1 = ids_bn[row_b, position_b].unsqueeze(1)
    likelihood_b = log_softmax(logits_bv.float(), dim=-1).gather(1, token_b1).squeeze(1)
    alternative_b, reference_b = likelihood_b.chunk(2)
    return alternative_b - reference_b


def variant_auc(scores_b: torch.Tensor, is_breaking_b: torch.Tensor) -> float:
    """How often a variant that breaks the genome's order scores below one that keeps it.

    The area under the receiver's curve, as Mann and Whitney count it; 0.5 is chance.
    """
    breaking, keeping = scores_b[is_breaking_b], scores_b[~is_breaking_b]
    difference = keeping[:, None] - breaking[None]
    return float((difference > 0).float().mean() + (difference == 0).float().mean() / 2)
