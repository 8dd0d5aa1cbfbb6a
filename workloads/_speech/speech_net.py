"""Builds the Whisper of transformers, its loss, and greedy transcription with caches.

`generate` of transformers is not used: it warns, reads back to the host at every token and mixes
configurations. The attention is registered without a mask function: it is causal by itself in the
decoder, and no mask keeps the flash kernel out.
Letters: B utterances, M mel bins, N new tokens, S text tokens, T positions, V vocabulary.
"""

from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import AttentionInterface
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.whisper import WhisperConfig, WhisperForConditionalGeneration

from workloads._speech.speech_cost import WhisperShape
from workloads._speech.speech_text import END, NOT_PREDICTED, START

ATTENTION = "speech_sdpa_without_mask"


class Transcriber(nn.Module):
    """A Whisper that encodes, decodes, or does both, by one call."""

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        self.whisper = WhisperForConditionalGeneration(config)

    def forward(
        self,
        mel_bmt: torch.Tensor | None = None,
        ids_bs: torch.Tensor | None = None,
        encoded_btd: torch.Tensor | None = None,
        cache: EncoderDecoderCache | None = None,
    ) -> Any:
        """Return the encoder's states, or the logits of the ids (B, S, V)."""
        if encoded_btd is None:
            encoded_btd = self.whisper.model.encoder(mel_bmt).last_hidden_state
        if ids_bs is None:
            return encoded_btd
        return self.whisper(
            encoder_outputs=(encoded_btd,),
            decoder_input_ids=ids_bs,
            past_key_values=cache,
            use_cache=cache is not None,
        ).logits


def build(shape: WhisperShape) -> nn.Module:
    """Return the net with random weights."""
    AttentionInterface.register(ATTENTION, sdpa_attention_forward)
    config = WhisperConfig(
        vocab_size=shape.vocab,
        num_mel_bins=shape.mel_bins,
        d_model=shape.hidden,
        encoder_layers=shape.encoder_layers,
        decoder_layers=shape.decoder_layers,
        encoder_attention_heads=shape.heads,
        decoder_attention_heads=shape.heads,
        encoder_ffn_dim=shape.intermediate,
        decoder_ffn_dim=shape.intermediate,
        max_source_positions=shape.positions,
        max_target_positions=shape.text_positions,
        pad_token_id=END,
        bos_token_id=START,
        eos_token_id=END,
        decoder_start_token_id=START,
        suppress_tokens=None,
        begin_suppress_tokens=None,
        # The published 0.02 is for wide nets: in a narrow one the positions drown the sound.
        init_std=shape.hidden**-0.5,
        attn_implementation=ATTENTION,
    )
    return Transcriber(config)


def optimizer(shape: WhisperShape, net: nn.Module) -> torch.optim.Optimizer:
    """Return AdamW with Whisper's betas (https://arxiv.org/abs/2212.04356 table 17)."""
    trained = [one for one in net.parameters() if one.requires_grad]
    return torch.optim.AdamW(trained, lr=shape.learning_rate, betas=(0.9, 0.98), eps=1e-6)


def transcript_loss(net: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Cross-entropy in nats, in fp32: mean over a text's tokens and its end, then over texts.

    So an utterance counts the same in whatever batch it is, also where ranks share a batch.
    """
    logits_bsv, targets_bs = net(batch["mel"], batch["inputs"]), batch["targets"]
    flat = cross_entropy(
        logits_bsv.flatten(0, 1).float(),
        targets_bs.flatten(),
        ignore_index=NOT_PREDICTED,
        reduction="none",
    )
    num_b = (targets_bs != NOT_PREDICTED).sum(dim=1)
    return (flat.view_as(targets_bs).sum(dim=1) / num_b).mean()


def transcribe(
    net: nn.Module, mel_bmt: torch.Tensor, *, new_tokens: int
) -> dict[str, torch.Tensor]:
    """Encode and greedily generate N tokens: ids (B, N), first and last logits (B, V)."""
    encoded_btd = net(mel_bmt)
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    token_b1 = torch.full((len(mel_bmt), 1), START, device=mel_bmt.device)
    tokens: list[torch.Tensor] = []
    logits: list[torch.Tensor] = []
    for _ in range(new_tokens):
        last_bv = net(None, token_b1, encoded_btd, cache)[:, -1]
        logits = [*logits[:1], last_bv]
        token_b1 = last_bv.argmax(-1, keepdim=True)
        tokens.append(token_b1)
    return {"ids": torch.cat(tokens, dim=1), "first_logits": logits[0], "logits": logits[-1]}


def check(output: torch.Tensor | dict[str, torch.Tensor], *, vocab: int) -> None:
    """Raise ValueError for values that are not finite and ids outside the vocabulary."""
    for name, tensor in (output if isinstance(output, dict) else {"output": output}).items():
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"{name} is not finite")
        if name == "ids" and not bool(((tensor >= 0) & (tensor < vocab)).all()):
            raise ValueError(f"ids holds token ids outside 0 to {vocab - 1}")
