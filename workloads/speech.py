"""Speech to text: `speech-train`, `speech-encode` and `speech-transcribe` with a Whisper.

The net is Whisper (https://arxiv.org/abs/2212.04356) of transformers with random weights, as MLPerf
Inference has it. Without --data: generated mel features. With it: a folder as LibriSpeech's.
Transcribe encodes, then greedily decodes a fixed number of tokens, so that all steps do the same
work; audio-seconds over time is its RTFx.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bench.workload
from bench.workload import Phase, UsedData
from workloads._speech.speech_cost import WhisperShape

TRAIN = Phase(name="train", item="utterance", element="audio-second", is_training=True)
ENCODE = Phase(name="encode", item="utterance", element="audio-second")
TRANSCRIBE = Phase(name="transcribe", item="utterance", element="audio-second")


def _net() -> Any:
    """Return the module that imports torch and transformers."""
    from workloads._speech import speech_net

    return speech_net


@dataclass(frozen=True, kw_only=True)
class Workload(WhisperShape, bench.workload.Workload):
    """A Whisper of any shape; the defaults are Whisper small."""

    summary = "Whisper speech to text: training step, encoder, transcription with caches"
    domain = "medical"
    phases = (TRAIN, ENCODE, TRANSCRIBE)
    accepts_data = "a folder as LibriSpeech's: .trans.txt with .flac or .wav beside it"
    libraries = ("transformers.models.whisper",)
    max_grad_norm = 1.0
    sizes = {
        "tiny": dict(batch=32, encoder_layers=2, decoder_layers=2, hidden=64, heads=4,
                     intermediate=256, mel_bins=16, seconds=2, vocab=64, text_positions=16,
                     text_tokens=16, new_tokens=16, learning_rate=1e-3),
        # huggingface.co/openai/whisper-tiny.en
        "small": dict(batch=2, encoder_layers=4, decoder_layers=4, hidden=384, heads=6,
                      intermediate=1536, vocab=51_864, new_tokens=50, learning_rate=1e-3),
        "base": {},
        # huggingface.co/openai/whisper-large-v3
        "large": dict(encoder_layers=32, decoder_layers=32, hidden=1280, heads=20,
                      intermediate=5120, mel_bins=128, vocab=51_866),
    }  # fmt: skip

    def build_net(self) -> Any:
        """Return the net; the encoder's positions are fixed."""
        return _net().build(self)

    def loss(self, net: Any, batch: Any) -> Any:
        """Return the cross-entropy of the next token of the text, in nats."""
        return _net().transcript_loss(net, batch)

    def optimizer(self, net: Any) -> Any:
        """Return Whisper's AdamW."""
        return _net().optimizer(self, net)

    def encode(self, net: Any, batch: Any) -> Any:
        """Return the encoder's states, (B, T, D)."""
        return net(batch["mel"])

    def transcribe(self, net: Any, batch: Any) -> Any:
        """Encode and generate tokens one after the other: ids (B, N), first and last logits."""
        return _net().transcribe(net, batch["mel"], new_tokens=self.new_tokens)

    def dataset(self, phase: Phase, *, data: Path | None, seed: int) -> Sequence[Any]:
        """Return utterances: mel features, the text's tokens, and how long the audio is."""
        from workloads._speech.speech_data import utterances

        return utterances(self, data=data, seed=seed)

    def check_data(self, data: Path) -> None:
        """Read every text, how long every audio file is, and some files whole."""
        from workloads._speech.librispeech import check_folder

        check_folder(self, data)

    def data_used(self, phase: Phase, data: Path) -> UsedData:
        """Count the utterances that are used, and say why others are not."""
        from workloads._speech.librispeech import utterances_used

        return utterances_used(self, data, is_training=phase.is_training)

    def comparable(self, phase: Phase, output: Any) -> Any:
        """Return transcribe's first logits: rounding may flip a token and all that follow it."""
        return output["first_logits"] if phase == TRANSCRIBE else output

    def check(self, phase: Phase, output: Any) -> None:
        """Refuse values that are not finite and ids outside the vocabulary."""
        _net().check(output, vocab=self.vocab)
