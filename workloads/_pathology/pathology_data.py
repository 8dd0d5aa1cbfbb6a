"""Bags and slides of tiles: generated ones, and those of a folder of tiled slides.

Letters: K tiles, C colours, XY pixels, all bytes. A generated tile has the mean colour of a
haematoxylin and eosin stain, noise, and dark dots for nuclei; in half of the tiles of a slide with
a lesion there is a block of half a tile's side, dark purple. With a finished encoder a sample has
features (KD): noise, shifted in half of the tiles of a slide with a lesion.
A sample depends on (seed, index) alone, also in worker processes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.workload import Phase
from workloads._pathology.pathology_cost import COLOURS, SlideNet
from workloads._pathology.slide_folder import Slide, read_slides, split
from workloads._pictures.picture_file import read_picture

STAIN, NUCLEUS, LESION = (204, 153, 191), (110, 70, 150), (70, 30, 90)
NOISE = 64
"""Levels of grey that noise has."""
NUCLEI = 12
"""Dots of a tile."""
NUM_SAMPLES = 4096
SHIFT = 1.0
"""Of a lesion's features, in standard deviations."""


@dataclass(frozen=True, kw_only=True)
class Generated(Sequence[Any]):
    """Slides of so many tiles, made on demand from (seed, index)."""

    net: SlideNet
    tiles: int
    has_features: bool
    seed: int

    def __len__(self) -> int:
        return NUM_SAMPLES

    def __getitem__(self, index: Any) -> Any:
        rng = np.random.default_rng((self.seed, range(len(self))[index]))
        label = int(rng.integers(self.net.classes))
        lesion = rng.permutation(self.tiles)[: self.tiles // 2 if label else 0].tolist()
        if self.has_features:
            made = rng.standard_normal((self.tiles, self.net.hidden), dtype=np.float32)
            made[lesion] += SHIFT * label
        else:
            made = self._stained(rng)
            self._draw_lesion(made, label=label, tiles=lesion, rng=rng)
        return {"tiles": torch.from_numpy(made), "label": torch.tensor(label)}

    def _stained(self, rng: np.random.Generator) -> Any:
        side, count = self.net.tile, self.tiles
        made = rng.integers(NOISE, size=(count, COLOURS, side, side), dtype=np.uint8)
        made += np.array(STAIN, dtype=np.uint8)[:, None, None] - np.uint8(NOISE // 2)
        radius = max(side // 56, 1)
        places = rng.integers(side - 2 * radius, size=(2, count, NUCLEI))
        for x in range(2 * radius):
            for y in range(2 * radius):
                every = np.arange(count)[:, None]
                made[every, :, places[0] + x, places[1] + y] = NUCLEUS
        return made

    def _draw_lesion(
        self, made: Any, *, label: int, tiles: Sequence[int], rng: np.random.Generator
    ) -> None:
        """Write a block into these tiles; further classes have lighter ones."""
        side = self.net.tile // 2
        colour = np.array(LESION, dtype=np.uint8) + np.uint8(40 * (label - 1) % 160)
        for tile in tiles:
            x, y = rng.integers(self.net.tile - side + 1, size=2)
            made[tile, :, x : x + side, y : y + side] = colour[:, None, None]


@dataclass(frozen=True, kw_only=True)
class Tiled(Sequence[Any]):
    """Slides of a folder: a bag of tiles drawn anew for each index, or the first tiles in order."""

    slides: Sequence[Slide]
    net: SlideNet
    is_drawn: bool
    seed: int

    def __len__(self) -> int:
        return NUM_SAMPLES if self.is_drawn else len(self.slides)

    def __getitem__(self, index: Any) -> Any:
        index = range(len(self))[index]
        slide = self.slides[index % len(self.slides)]
        if self.is_drawn:
            rng = np.random.default_rng((self.seed, index))
            slide = self.slides[int(rng.integers(len(self.slides)))]
            num_tiles = len(slide.tiles)
            drawn = rng.choice(num_tiles, self.net.bag, replace=num_tiles < self.net.bag)
            paths = [slide.tiles[one] for one in drawn]
        else:
            paths = list(slide.tiles[: self.net.slide_tiles])
        side = self.net.tile
        pixels = [read_picture(path, size=(side, side)) for path in paths]
        made = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
        return {"tiles": made, "label": torch.tensor(slide.label)}


def samples(net: SlideNet, phase: Phase, *, data: Path | None, seed: int) -> Sequence[Any]:
    """Return bags or slides, generated or of a folder."""
    if data is None:
        has_features = phase.is_training and not net.train_encoder
        tiles = net.tiles_of(phase, None)
        return Generated(net=net, tiles=tiles, has_features=has_features, seed=seed)
    slides = split(read_slides(data, classes=net.classes), is_training=phase.is_training)
    return Tiled(slides=slides, net=net, is_drawn=phase.is_training, seed=seed)
