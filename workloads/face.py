"""Face recognition: an IResNet trained with ArcFace, and one face looked up among many.

`face-train` is one SGD step over all identities (--set sample_rate=0.1: over a sampled part);
`face-infer` makes embeddings and searches a gallery, as a camera's 1:N search does. Without --data:
generated patterns, no faces; with it a folder of aligned pictures, one folder a person.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bench.workload
from bench.workload import Phase, UsedData
from workloads._face.face_cost import FaceShape

TRAIN = Phase(name="train", item="face", is_training=True)
INFER = Phase(name="infer", item="face")


def _net() -> Any:
    """Return the module that imports torch."""
    from workloads._face import face_net

    return face_net


@dataclass(frozen=True, kw_only=True)
class Workload(FaceShape, bench.workload.Workload):
    """An IResNet of any shape; the defaults are iresnet50."""

    summary = "face recognition: IResNet with ArcFace, and a search among many (1:N)"
    phases = (TRAIN, INFER)
    domain = "vision"
    accepts_data = "a folder of aligned faces, one folder a person (LFW, CASIA-WebFace)"
    sizes = {
        "tiny": dict(depths=(1, 1, 1, 1), widths=(16, 32, 48, 64), pixels=56, embedding=64,
                     identities=20, gallery=1000, batch=16),
        "small": dict(depths=(2, 2, 2, 2), identities=1000, gallery=10_000, batch=32),
        "base": {},
        # Identities of WebFace12M (arxiv.org/abs/2103.04098).
        "large": dict(depths=(3, 13, 30, 3), identities=617_970, gallery=1_000_000),
    }  # fmt: skip

    def build_net(self) -> Any:
        """Return the net with the centres of all identities."""
        return _net().FaceNet(self)

    def loss(self, net: Any, batch: Any) -> Any:
        """Return ArcFace's loss over the identities that are compared with."""
        return _net().margin_loss(net(batch["face"], batch.get("rows")), batch["identity"])

    def optimizer(self, net: Any) -> Any:
        """Return insightface's SGD."""
        return _net().optimizer(self, net)

    def dataset(self, phase: Phase, *, data: Path | None, seed: int) -> Sequence[Any]:
        """Return faces with the numbers of their identities."""
        from workloads._face.face_data import FolderFaces, GeneratedFaces

        if data is None:
            return GeneratedFaces(self, seed=seed)
        return FolderFaces(data, is_held_out=not phase.is_training, seed=seed)

    def collate(self, phase: Phase) -> Any:
        """Return what draws the identities of a training step, where it takes not all."""
        from workloads._face.face_data import SampledIdentities

        if not phase.is_training or self.num_compared == self.identities:
            return None
        return SampledIdentities(identities=self.identities, num_compared=self.num_compared)

    def prepare(self, phase: Phase, net: Any, batch: Any) -> Any:
        """Lay the gallery beside the faces."""
        return {"face": batch["face"], "gallery": net.gallery(self)}

    def infer(self, net: Any, batch: Any) -> Any:
        """Return embeddings, and the nearest of the gallery with its cosine."""
        return _net().search(net, batch)

    def check_data(self, data: Path) -> None:
        """Refuse a folder with more people than identities, or a picture of another size."""
        from workloads._face.identities import check_folder

        check_folder(data, identities=self.identities, pixels=self.pixels)

    def data_used(self, phase: Phase, data: Path) -> UsedData:
        """Count faces and people."""
        from workloads._face.identities import faces_used

        return faces_used(data, is_held_out=not phase.is_training)

    def comparable(self, phase: Phase, output: Any) -> Any:
        """Return embeddings and cosines; rounding may flip which vector is nearest."""
        return {"embedding": output["embedding"], "cosine": output["cosine"]}

    def check(self, phase: Phase, output: Any) -> None:
        """Refuse what is not finite, a cosine over 1, and a place outside the gallery."""
        _net().check_output(output, gallery=self.gallery)
