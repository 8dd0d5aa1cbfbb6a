"""Faces to train on and to look for: generated, or pictures of a folder of identities.

A generated face is no face: each identity is one smooth random pattern, which a seed does not
change, and a picture of it adds a smooth pattern of its own, so that pictures of another seed are
unseen ones of the same people. A sample is a dict of `face` (3, side, side) about -1 to 1 and
`identity`; with Partial FC also `draw`, from which a batch's sampled identities come. It depends on
(seed, index) alone. Left out: augmentation beyond the mirror that insightface has.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate
from torch.utils.data import default_collate

from workloads._face.face_cost import FaceShape
from workloads._face.identities import faces_of
from workloads._pictures.picture_file import read_picture

NUM_GENERATED = 1 << 16
PEOPLE_SEED = 7
COARSE = 7
"""Side of the random grid that a smooth pattern is stretched from."""
NOISE = 1.0
"""Of a picture, beside its person's pattern: at it an untrained net confuses people."""

Sample = dict[str, torch.Tensor]


class GeneratedFaces(Sequence[Sample]):
    """Smooth patterns, each made on demand."""

    def __init__(self, shape: FaceShape, *, seed: int) -> None:
        self.shape, self.seed = shape, seed

    def __len__(self) -> int:
        return NUM_GENERATED

    def __getitem__(self, index: Any) -> Any:
        rng = np.random.default_rng((self.seed, range(len(self))[index]))
        identity = int(rng.integers(self.shape.identities))
        person = _grid(np.random.default_rng((PEOPLE_SEED, identity)))
        coarse = torch.from_numpy(person + NOISE * _grid(rng))[None]
        size = (self.shape.pixels, self.shape.pixels)
        (face,) = interpolate(coarse, size=size, mode="bilinear", align_corners=False)
        return _sample(face, identity=identity, rng=rng)


def _grid(rng: np.random.Generator) -> Any:
    return rng.standard_normal((3, COARSE, COARSE), dtype=np.float32)


class FolderFaces(Sequence[Sample]):
    """Pictures of a folder; those to train on are mirrored at random."""

    def __init__(self, root: Path, *, is_held_out: bool, seed: int) -> None:
        self.faces, self.seed = faces_of(root, is_held_out=is_held_out), seed
        self.mirrored_frac = 0.0 if is_held_out else 0.5

    def __len__(self) -> int:
        return len(self.faces)

    def __getitem__(self, index: Any) -> Any:
        rng = np.random.default_rng((self.seed, range(len(self))[index]))
        face = self.faces[index]
        picture = read_picture(face.path)
        picture = picture[:, ::-1].copy() if rng.random() < self.mirrored_frac else picture
        scaled = torch.from_numpy(picture).permute(2, 0, 1).contiguous().float() / 127.5 - 1.0
        return _sample(scaled, identity=face.identity, rng=rng)


def _sample(face: torch.Tensor, *, identity: int, rng: np.random.Generator) -> Sample:
    draw = torch.tensor(int(rng.integers(2**62)))
    return {"face": face, "identity": torch.tensor(identity), "draw": draw}


@dataclass(frozen=True, kw_only=True)
class SampledIdentities:
    """Collates a batch and draws which identities it is compared with: its own, and others.

    `rows` are those, in order, and `identity` becomes a place among them.
    """

    identities: int
    num_compared: int

    def __call__(self, samples: list[Sample]) -> Sample:
        """Return the batch; the draw is that of its first sample."""
        batch: Sample = default_collate(samples)
        generator = torch.Generator().manual_seed(int(batch.pop("draw")[0]))
        lot = torch.rand(self.identities, generator=generator)
        lot[batch["identity"]] = 2.0
        batch["rows"] = lot.topk(self.num_compared).indices.sort().values
        batch["identity"] = torch.searchsorted(batch["rows"], batch["identity"])
        return batch
