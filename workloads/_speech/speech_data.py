"""Utterances of the speech workload: generated mel features, or audio files and their texts.

Generated: each letter lights one mel band for ten frames over Gaussian noise, and the letters are
the text. From files the features are computed in the loader, as in practice.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workloads._speech.librispeech import SAMPLES_PER_S, read_audio, usable_utterances
from workloads._speech.speech_cost import FRAMES_PER_S, WhisperShape
from workloads._speech.speech_text import inputs_and_targets

NUM_GENERATED = 1 << 16
FRAMES_PER_LETTER = 10
FEWEST_LETTERS, MOST_LETTERS, NUM_LETTERS = 8, 40, 26
NOISE = 0.3


def _sample(mel: Any, text: str, *, shape: WhisperShape, seconds: float) -> dict[str, Any]:
    import torch

    inputs, targets = inputs_and_targets(text, tokens=shape.text_tokens)
    return {
        "mel": torch.as_tensor(mel, dtype=torch.float32),
        "inputs": torch.tensor(inputs),
        "targets": torch.tensor(targets),
        "milliseconds": torch.tensor(round(1000 * seconds)),
    }


class GeneratedUtterances(Sequence[Any]):
    """Utterances made on demand from (seed, index)."""

    def __init__(self, shape: WhisperShape, *, seed: int) -> None:
        self.shape, self.seed = shape, seed

    def __len__(self) -> int:
        return NUM_GENERATED

    def __getitem__(self, index: Any) -> Any:
        shape = self.shape
        rng = np.random.default_rng((self.seed, range(len(self))[index]))
        most = min(MOST_LETTERS, shape.frames // FRAMES_PER_LETTER, shape.text_tokens - 1)
        num_letters = min(NUM_LETTERS, shape.mel_bins)
        letters = rng.integers(num_letters, size=rng.integers(min(FEWEST_LETTERS, most), most + 1))
        mel = rng.standard_normal((shape.mel_bins, shape.frames), dtype=np.float32) * NOISE
        for place, letter in enumerate(letters * shape.mel_bins // num_letters):
            mel[letter, place * FRAMES_PER_LETTER : (place + 1) * FRAMES_PER_LETTER] += 1.0
        text = "".join(chr(ord("A") + letter) for letter in letters)
        return _sample(mel, text, shape=shape, seconds=shape.seconds)


class LibriSpeechUtterances(Sequence[Any]):
    """Utterances of a folder as LibriSpeech's, in an order shuffled by the seed."""

    def __init__(self, shape: WhisperShape, folder: Path, *, seed: int) -> None:
        self.shape = shape
        utterances, _ = usable_utterances(shape, folder)
        order = np.random.default_rng(seed).permutation(len(utterances))
        self.utterances = [utterances[place] for place in order]

    def __len__(self) -> int:
        return len(self.utterances)

    def __getitem__(self, index: Any) -> Any:
        from transformers.models.whisper import WhisperFeatureExtractor

        one, shape = self.utterances[index], self.shape
        audio = read_audio(one.path)
        extract = WhisperFeatureExtractor(feature_size=shape.mel_bins, chunk_length=shape.seconds)
        mel = extract(audio, sampling_rate=SAMPLES_PER_S).input_features[0]
        assert mel.shape[1] == shape.seconds * FRAMES_PER_S
        return _sample(mel, one.text, shape=shape, seconds=one.seconds)


def utterances(shape: WhisperShape, *, data: Path | None, seed: int) -> Sequence[Any]:
    """Return generated utterances, or those of a folder."""
    if data is None:
        return GeneratedUtterances(shape, seed=seed)
    return LibriSpeechUtterances(shape, data, seed=seed)
