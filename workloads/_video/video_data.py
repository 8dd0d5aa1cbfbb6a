"""Clips as latents with their text: generated ones, and files of stored latents.

Letters: C channels, T frames, HW rows and columns, M text tokens, D their width. A generated clip
is a bar, light or dark, that begins in one of four columns and one of four rows and moves down a
row a frame; its text names all three. A sample has its noise and its time too: it depends on
(seed, index) alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.workload import Phase
from workloads._video.latent_files import TENSORS, check_finite, latent_files, opened
from workloads._video.video_cost import VideoNet

PLACES = 4
"""Columns and rows in which a bar may begin."""
LEVEL = 1.5
NUM_SAMPLES = 4096


@dataclass(frozen=True, kw_only=True)
class Clip(Sequence[Any]):
    """Samples of a phase: clips with noise and a time to train on, or noise to make clips from."""

    net: VideoNet
    is_training: bool
    files: Sequence[Path]
    seed: int

    def __len__(self) -> int:
        return NUM_SAMPLES

    def __getitem__(self, index: Any) -> Any:
        index = range(len(self))[index]
        generator = torch.Generator().manual_seed(self.seed * NUM_SAMPLES + index)
        if self.files:
            sample = self._read(self.files[index % len(self.files)])
        else:
            drawn = torch.randint(PLACES, (3,), generator=generator).tolist()
            sample = self.bar(drawn[0], row=drawn[1], sign=1 - drawn[2] % 2 * 2)
        sample["noise"] = torch.randn(sample["latents"].shape, generator=generator)
        if self.is_training:
            return {**sample, "time": torch.rand((), generator=generator)}
        return {name: sample[name] for name in ("noise", "text")}

    def _read(self, path: Path) -> dict[str, torch.Tensor]:
        text = torch.zeros(self.net.text_tokens, self.net.text_dim)
        with opened(path, framework="pt") as file:
            latents, stored = (file.get_tensor(name) for name in TENSORS)
        for name, tensor in zip(TENSORS, (latents, stored), strict=True):
            largest = tensor.abs().max().item() if tensor.numel() else 0.0
            check_finite(largest, name=name, path=path)
        text[: len(stored)] = stored
        return {"latents": latents.float(), "text": text}

    def bar(self, column: int, *, row: int, sign: int) -> dict[str, torch.Tensor]:
        """Return the clip of a bar that begins there, and its text."""
        frames, rows, columns = self.net.latent
        clip = torch.zeros(self.net.channels, frames, rows, columns)
        width, height = max(columns // PLACES, 1), max(rows // PLACES, 1)
        across = slice(column * width, (column + 1) * width)
        for frame in range(frames):
            of_bar = [(row * height + frame + one) % rows for one in range(height)]
            clip[::2, frame, of_bar, across] = LEVEL * sign
            clip[1::2, frame, of_bar, across] = -LEVEL * sign
        text = torch.zeros(self.net.text_tokens, self.net.text_dim)
        text[0, column] = text[1, PLACES + row] = 1.0
        text[:2, 2 * PLACES] = sign
        return {"latents": clip, "text": text}


def samples(net: VideoNet, phase: Phase, *, data: Path | None, seed: int) -> Sequence[Any]:
    """Return the samples of a phase, of generated clips or of a folder's."""
    files = [] if data is None else latent_files(data)
    return Clip(net=net, is_training=phase.is_training, files=files, seed=seed)
