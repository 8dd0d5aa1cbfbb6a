"""What a video net amounts to, by formula: parameters, FLOPs, memory. Plain Python, no torch.

The net is Wan's transformer (https://arxiv.org/abs/2503.20314, section 4.2): D width, L layers, F
feed-forward, N latent tokens, M text tokens, p values of a patch of the latents. A layer has
attention of all latent tokens, attention to the text, and a feed-forward. Products are counted, 2
FLOP a multiply-add, as FlopCounterMode does.

Peaks of live storages (counted on a CPU, both phases) are 1.0 to 1.25 times below the estimates of
memory.
"""

import math
from dataclasses import dataclass
from typing import Any

from bench.core.nouns import DTYPE_BYTES, Dtype
from bench.workload import Phase
from workloads._costs.transformer_cost import (
    attention_flops,
    layer_norm_parameters,
    linear_parameters,
    projection_flops,
)
from workloads._video.decoder_cost import PixelDecoder

PATCH = (1, 2, 2)
"""Frames, rows and columns of the latents in a token."""


@dataclass(frozen=True, kw_only=True)
class VideoNet:
    """The parameters that fix the net's cost; the defaults are Wan 2.1 1.3B, 81 frames of 480p."""

    heads: int = 12
    head_dim: int = 128
    layers: int = 30
    feedforward: int = 8960
    channels: int = 16
    """Of the latents, in and out."""
    latent: tuple[int, ...] = (21, 60, 104)
    """Frames, rows and columns of the latents; a frame is four of the clip, a row eight pixels."""
    text_tokens: int = 512
    text_dim: int = 4096
    frequencies: int = 256
    """Sines and cosines that a time step is made of."""
    batch: int = 1
    steps: int = 20
    """Euler steps from noise to a clip."""
    guidance: bool = True
    """Whether each step also asks the net without the text (classifier-free guidance)."""
    decode: bool = False
    """Whether inference goes on to pixels, by a decoder that training leaves as it is."""
    decoder_width: int = 96
    """Channels of the decoder's last level."""
    learning_rate: float = 1e-4

    @property
    def hidden(self) -> int:
        """Width of a token."""
        return self.heads * self.head_dim

    @property
    def tokens(self) -> int:
        """Latent tokens of a clip."""
        return math.prod(size // part for size, part in zip(self.latent, PATCH, strict=True))

    @property
    def patch_values(self) -> int:
        """Values of the latents in a token."""
        return self.channels * math.prod(PATCH)

    @property
    def decoder(self) -> PixelDecoder | None:
        """What makes pixels of latents, if anything does."""
        if not self.decode:
            return None
        return PixelDecoder(width=self.decoder_width, channels=self.channels, latent=self.latent)

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if type(value) is int and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if self.text_tokens < 2 or self.text_dim < 9:
            raise ValueError("text_tokens must be at least 2 and text_dim at least 9")
        if self.head_dim % 2 or self.head_dim < 6:
            raise ValueError(f"head_dim must be even and at least 6, not {self.head_dim}")
        if self.decoder_width % 2:
            raise ValueError(f"decoder_width must be even, not {self.decoder_width}")
        is_whole = len(self.latent) == 3 and not any(
            size < 1 or size % part for size, part in zip(self.latent, PATCH, strict=True)
        )
        if not is_whole:
            raise ValueError(f"latent needs frames and even rows and columns, not {self.latent}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be greater than 0, not {self.learning_rate}")

    def num_parameters(self) -> int:
        """Return those of the transformer, and of the decoder where there is one."""
        decoder = self.decoder
        return self.transformer_parameters() + (decoder.num_parameters() if decoder else 0)

    def transformer_parameters(self) -> int:
        """Return those of layers, embeddings of patches, text and time, and of the output."""
        width = self.hidden
        square = linear_parameters(width, outputs=width)
        attention = 4 * square + 2 * width  # with root-mean-square norms of query and key
        layer = 2 * attention + layer_norm_parameters(width) + 6 * width
        layer += linear_parameters(width, outputs=self.feedforward)
        layer += linear_parameters(self.feedforward, outputs=width)
        patches = linear_parameters(self.patch_values, outputs=width)
        text = linear_parameters(self.text_dim, outputs=width) + square
        time = linear_parameters(self.frequencies, outputs=width) + square
        time += linear_parameters(width, outputs=6 * width)
        output = linear_parameters(width, outputs=self.patch_values) + 2 * width
        return self.layers * layer + patches + text + time + output

    def _first_flops(self) -> float:
        """Products whose other operand comes with the batch: it needs no gradient."""
        flops = projection_flops(self.patch_values * self.hidden, tokens=self.tokens)
        flops += projection_flops(self.text_dim * self.hidden, tokens=self.text_tokens)
        return flops + projection_flops(self.frequencies * self.hidden, tokens=1)

    def forward_flops(self) -> float:
        """FLOPs of the net for one clip at one time."""
        width, tokens, text = self.hidden, self.tokens, self.text_tokens
        square = width**2
        layer = projection_flops(6 * square + 2 * width * self.feedforward, tokens=tokens)
        layer += projection_flops(2 * square, tokens=text)
        layer += attention_flops(width, pairs=tokens * (tokens + text))
        rest = projection_flops(self.patch_values * width, tokens=tokens)
        rest += projection_flops(square, tokens=text) + projection_flops(7 * square, tokens=1)
        return self.layers * layer + rest + self._first_flops()

    def flops_per_item(self, phase: Phase, batch: Any = None) -> float:
        """FLOPs of a clip: a training step on it, or all steps of making it."""
        if phase.is_training:
            return 3 * self.forward_flops() - self._first_flops()
        steps = self.steps * (2 if self.guidance else 1) * self.forward_flops()
        return steps + (self.decoder.flops() if self.decoder else 0)

    def saved_token_bytes(self, *, element_bytes: int) -> int:
        """What one latent token keeps in one layer for backward.

        In fp32 what three norms and two gates take and give, and sums. In the compute dtype what
        the products take, queries and keys before and after their norms and rotation, and the
        feed-forward before and after its activation.
        """
        return 11 * self.hidden * 4 + (16 * self.hidden + 2 * self.feedforward) * element_bytes

    def memory_bytes(self, phase: Phase, *, dtype: Dtype) -> int:
        """Return the peak of a step.

        Training: weights, gradients and two moments in fp32, autocast's copy of the weights, what
        backward needs. Inference: weights, the clip and its changes, one layer or the decoder at
        work.
        """
        width = DTYPE_BYTES[dtype]
        clip = self.channels * math.prod(self.latent)
        text = self.text_tokens * (self.text_dim + 3 * self.hidden)
        if not phase.is_training:
            # Attention is at work, or the feed-forward.
            attention, inner = 6 * self.hidden, 2 * self.hidden + 2 * self.feedforward
            at_work = 4 * self.hidden * 4 + max(attention, inner) * width
            busy = self.tokens * at_work + clip * 4 * 6 + 2 * text * width
            if self.decoder:
                busy = max(busy, self.decoder.memory_bytes(element_bytes=width) + clip * 4)
            return self.num_parameters() * width + self.batch * int(busy)
        trained = self.transformer_parameters()
        state = trained * (16 + (width if width < 4 else 0))
        state += (self.num_parameters() - trained) * 4
        kept = self.tokens * self.saved_token_bytes(element_bytes=width)
        kept += self.text_tokens * 5 * self.hidden * width
        return state + self.batch * (self.layers * kept + clip * 4 * 6 + text * 4)
