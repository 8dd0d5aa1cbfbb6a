"""What a Whisper costs, by formula: parameters, FLOPs, traffic and peak of memory. Torch-free.

Letters: D hidden, F intermediate, T encoder positions (two frames each), S text tokens.
"""

from dataclasses import dataclass
from typing import Any

from bench.core.errors import UsageError
from bench.core.nouns import DTYPE_BYTES, Dtype
from bench.workload import RESIDENT_BATCHES, Phase
from workloads._costs.conv_cost import Conv
from workloads._costs.transformer_cost import (
    attention_flops,
    layer_flops,
    layer_norm_parameters,
    layer_weights,
    projection_flops,
)

FRAMES_PER_S = 100
"""A frame of mel features for every 10 ms (https://arxiv.org/abs/2212.04356 section 2.2)."""
FEWEST_IDS = 64
"""End, start, and the characters of `speech_text`."""
STATE_BYTES, FP32_BYTES = 16, 4
"""Of a trained parameter: weight, gradient and both AdamW moments in fp32; then of a number."""


@dataclass(frozen=True, kw_only=True)
class WhisperShape:
    """What fixes the cost. Defaults: Whisper small (huggingface.co/openai/whisper-small)."""

    batch: int = 16
    encoder_layers: int = 12
    decoder_layers: int = 12
    hidden: int = 768
    heads: int = 12
    intermediate: int = 3072
    mel_bins: int = 80
    seconds: int = 30
    """Of audio that the net reads; shorter utterances are padded."""
    vocab: int = 51_865
    """Token ids; a character is its own id, the others stay unused."""
    text_positions: int = 448
    """Tokens that the decoder has positions for."""
    text_tokens: int = 200
    """Tokens predicted of one utterance in training."""
    new_tokens: int = 200
    """Tokens that transcribe generates for each utterance."""

    learning_rate: float = 1e-4

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if type(value) is int and value < 1:
                raise UsageError(f"{name} must be at least 1, not {value}")
        if self.hidden % self.heads or self.hidden % 2:
            raise UsageError(f"hidden {self.hidden} must be even and a multiple of heads")
        if self.vocab < FEWEST_IDS:
            raise UsageError(f"vocab must be at least {FEWEST_IDS}, not {self.vocab}")
        if self.text_tokens < 2:
            raise UsageError("text_tokens must be at least 2: a letter and the end")
        if max(self.text_tokens, self.new_tokens) > self.text_positions:
            raise UsageError(
                f"text_tokens {self.text_tokens} and new_tokens {self.new_tokens} must be at most "
                f"text_positions {self.text_positions}"
            )
        if not self.learning_rate > 0:
            raise UsageError(f"learning_rate must be greater than 0, not {self.learning_rate}")

    @property
    def frames(self) -> int:
        """Mel frames of one utterance."""
        return self.seconds * FRAMES_PER_S

    @property
    def positions(self) -> int:
        """What the encoder attends over: the second convolution halves the frames."""
        return self.frames // 2

    def convolutions(self) -> tuple[Conv, Conv]:
        """The encoder's first layers, over frames."""

        def conv(channels_in: int, positions: int) -> Conv:
            return Conv(
                channels_in=channels_in,
                channels_out=self.hidden,
                kernel=(3,),
                positions=positions,
                has_bias=True,
            )

        return conv(self.mel_bins, self.frames), conv(self.hidden, self.positions)

    def encoder_parameters(self) -> int:
        """Convolutions, fixed positions, layers, last norm; keys have no bias."""
        width, forward = self.hidden, self.intermediate
        layer = layer_weights(width, feedforward=forward) + 4 * width + forward
        norms = (2 * self.encoder_layers + 1) * layer_norm_parameters(width)
        convolutions = sum(one.num_weights for one in self.convolutions())
        return convolutions + self.positions * width + self.encoder_layers * layer + norms

    def decoder_parameters(self) -> int:
        """Embedding, which is also the head, learned positions, layers with two attentions."""
        width, forward = self.hidden, self.intermediate
        matrices = layer_weights(width, feedforward=forward, num_attentions=2)
        layer = matrices + 7 * width + forward
        norms = (3 * self.decoder_layers + 1) * layer_norm_parameters(width)
        return (self.vocab + self.text_positions) * width + self.decoder_layers * layer + norms

    def num_parameters(self) -> int:
        """All, the encoder's fixed positions included, as torch counts them."""
        return self.encoder_parameters() + self.decoder_parameters()

    def _encoder_flops(self) -> float:
        layer = layer_flops(self.hidden, feedforward=self.intermediate, tokens=self.positions)
        return sum(one.flops for one in self.convolutions()) + self.encoder_layers * layer

    def _decoder_flops(self, *, tokens: int, pairs: float) -> float:
        """FLOPs of so many tokens; `pairs` of tokens attend to each other."""
        width, positions = self.hidden, self.positions
        # Of the second attention the keys and values are the encoder's.
        matrices = layer_weights(width, feedforward=self.intermediate, num_attentions=2)
        own = projection_flops(matrices - 2 * width**2, tokens=tokens)
        keys = projection_flops(2 * width**2, tokens=positions)
        attention = attention_flops(width, pairs=pairs + tokens * positions)
        head = projection_flops(width * self.vocab, tokens=tokens)
        return self.decoder_layers * (own + keys + attention) + head

    def flops_per_item(self, phase: Phase, batch: Any = None) -> float:
        """FLOPs of one utterance.

        train: a backward is two forwards, but the mel features need no gradient. transcribe: keys
        of the encoder once, and the j-th new token attends to j.
        """
        encoder = self._encoder_flops()
        if phase.is_training:
            tokens = self.text_tokens
            forward = encoder + self._decoder_flops(tokens=tokens, pairs=tokens**2)
            return 3 * forward - self.convolutions()[0].flops
        if phase.name == "encode":
            return encoder
        new = self.new_tokens
        return encoder + self._decoder_flops(tokens=new, pairs=new * (new + 1) / 2)

    def items(self, phase: Phase, batch: Any) -> int:
        """Return the utterances."""
        return self.batch if batch is None else len(batch["mel"])

    def elements(self, phase: Phase, batch: Any) -> int:
        """Return the seconds of audio, without what it is padded by."""
        generated_ms = 1000 * self.batch * self.seconds
        return round(int(generated_ms if batch is None else batch["milliseconds"].sum()) / 1000)

    def bytes_per_item(self, phase: Phase, *, dtype_bytes: int) -> float:
        """Least traffic of one utterance.

        Weights once a pass, of which transcribe has one of the encoder and one of the decoder for
        each token, and its keys and values of audio and text; in training also gradients and
        optimizer in fp32.
        """
        encoder, decoder = self.encoder_parameters(), self.decoder_parameters()
        if phase.is_training:
            state = (2 + 3 * 2) * FP32_BYTES * (encoder + decoder)
            return (2 * (encoder + decoder) * dtype_bytes + state) / self.batch
        if phase.name == "encode":
            return encoder * dtype_bytes / self.batch
        passes = encoder + self.new_tokens * decoder
        keys = self.positions + (self.new_tokens + 1) / 2
        cached = self.new_tokens * keys * 2 * self.decoder_layers * self.hidden
        return (passes / self.batch + cached) * dtype_bytes

    def memory_bytes(self, phase: Phase, *, dtype: Dtype) -> int:
        """Peak of one step, with flash attention; fitted to measured peaks, and errs high.

        train: weights and state, autocast's copies, what backward needs of every layer, and the
        loss with logits in both precisions. Else weights, the batches kept ready and an encoder's
        layer at work; transcribe: then the keys and values of audio and text.
        """
        width = DTYPE_BYTES[dtype]
        is_cast = width < FP32_BYTES
        parameters = self.num_parameters()
        mel = self.mel_bins * self.frames
        if phase.is_training:
            state = parameters * (STATE_BYTES + (width if is_cast else 0))
            token = 4 * self.hidden * FP32_BYTES + (7 * self.hidden + 3 * self.intermediate) * width
            convolutions = 4 * self.frames * self.hidden * width + mel * FP32_BYTES
            crossing = self.decoder_layers * 2 * self.positions * self.hidden * width
            encoded = self.encoder_layers * self.positions * token + convolutions + crossing
            loss = self.vocab * (3 * FP32_BYTES + (2 * width if is_cast else 0))
            text_token = self.decoder_layers * (token + 5 * self.hidden * width) + loss
            return state + self.batch * (encoded + self.text_tokens * text_token)
        widest = max(2 * self.intermediate, 4 * self.hidden)  # or the convolutions' outputs
        at_work = (6 * self.hidden + widest) * width * self.positions
        kept = RESIDENT_BATCHES * mel * width
        if phase.name == "transcribe":
            keys = self.positions + 2 * self.new_tokens
            cached = 2 * self.decoder_layers * keys * self.hidden * width
            at_work = max(at_work, cached + 2 * self.positions * self.hidden * width)
            kept += 4 * self.vocab * width
        return parameters * width + self.batch * (at_work + kept)
