"""A whole slide of tissue judged: a DINOv2 encodes every tile, attention over tiles judges them.

Training takes a bag of tiles and one label; inference a whole slide. With --set train_encoder=false
the head alone is trained, on features, as is usual with a published encoder: then training costs
almost nothing beside the inference of one slide.
Without --data: generated tissue. With it: a folder of tiles for each slide, and labels.csv.
Left out: finding tissue and cutting a slide into tiles.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import bench.workload
from bench.core.errors import UsageError
from bench.workload import Phase, UsedData
from workloads._pathology.pathology_cost import SlideNet

TRAIN = Phase(name="train", item="bag", element="tile", is_training=True)
INFER = Phase(name="infer", item="slide", element="tile")


@dataclass(frozen=True, kw_only=True)
class Workload(SlideNet, bench.workload.Workload):
    """A tile encoder of any shape; the defaults are UNI's and Phikon-v2's."""

    summary = "whole-slide pathology: DINOv2 over every tile, attention over the tiles"
    domain = "medical"
    phases = (TRAIN, INFER)
    accepts_data = "a folder of tiles (PNG, JPEG) for each slide, and labels.csv (slide_id,label)"
    libraries = ("workloads._pathology.pathology_net", "workloads._pathology.pathology_data")
    sizes = {
        "tiny": dict(hidden=48, layers=2, heads=3, patch=14, tile=56, attention=32, batch=8, bag=4,
                     slide_tiles=64, learning_rate=1e-3),
        "small": dict(hidden=384, layers=12, heads=6, patch=14, batch=1, bag=16, slide_tiles=256),
        "base": {},
        "large": dict(hidden=1536, layers=40, heads=24, patch=14, registers=4, is_gated=True,
                      bag=32, slide_tiles=10_000),
    }  # fmt: skip
    """ViT-S/14; UNI's ViT-L/16; the ViT-g/14 of H-optimus-0 and Prov-GigaPath."""

    def build_net(self) -> Any:
        """Return encoder, attention and classifier."""
        from workloads._pathology.pathology_net import Slides

        return Slides(self)

    def dataset(self, phase: Phase, *, data: Path | None, seed: int) -> Sequence[Any]:
        """Return bags or slides: {'tiles': (K, 3, X, Y) bytes, 'label': ()}."""
        from workloads._pathology.pathology_data import samples

        return samples(self, phase, data=data, seed=seed)

    def loss(self, net: Any, batch: Any) -> Any:
        """Return the cross entropy of the bags' labels."""
        from workloads._pathology.pathology_net import loss

        return loss(net, batch)

    def optimizer(self, net: Any) -> Any:
        """Return AdamW of what is trained."""
        from torch.optim import AdamW

        trained = [one for one in net.parameters() if one.requires_grad]
        return AdamW(trained, lr=self.learning_rate, weight_decay=0.05)

    def infer(self, net: Any, batch: Any) -> Any:
        """Return the logits of whole slides, and the attention of their tiles: a heat map."""
        return net(batch["tiles"])

    def sized_for(self, phase: Phase, data: Path) -> Self:
        """Return this net for a generated slide of as many tiles as the folder's largest."""
        from workloads._pathology.slide_folder import most_tiles

        most = min(self.slide_tiles, most_tiles(data, classes=self.classes))
        return self if phase.is_training else replace(self, slide_tiles=most)

    def data_used(self, phase: Phase, data: Path) -> UsedData:
        """Say how many slides are used, and how many tiles of each."""
        from workloads._pathology.slide_folder import used_words

        tiles = f"bags of {self.bag}" if phase.is_training else f"at most {self.slide_tiles}"
        slides = used_words(data, classes=self.classes, is_training=phase.is_training)
        return UsedData(words=f"{slides}, {tiles} tiles")

    def check_data(self, data: Path) -> None:
        """Read the labels, and a tile of each slide."""
        from workloads._pathology.slide_folder import check_slides

        if not self.train_encoder:
            raise UsageError("train_encoder=false trains on generated features, without --data")
        check_slides(data, classes=self.classes)
