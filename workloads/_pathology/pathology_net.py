"""A slide's net: DINOv2 over every tile, gated attention over the tiles, a linear classifier.

Letters: B bags, K tiles, C colours, XY pixels, D width of a feature. Pixels come as bytes and are
normalised on the device with ImageNet's mean and deviation, as the published encoders were trained.
Pooling is Ilse, Tomczak and Welling 2018 (https://arxiv.org/abs/1802.04712), equation 9. The mask
token is left out: it has no part in it, and a parameter without a gradient stops ddp.
"""

from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers.models.dinov2 import Dinov2Config, Dinov2Model
from transformers.models.dinov2_with_registers import (
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
)

from workloads._pathology.pathology_cost import SlideNet

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""https://docs.pytorch.org/vision/stable/models.html: ImageNet's, of pixels from 0 to 1."""


def encoder(shape: SlideNet) -> nn.Module:
    """Return the tile encoder with random weights."""
    same: dict[str, Any] = {
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "image_size": shape.tile,
        "patch_size": shape.patch,
        "use_swiglu_ffn": shape.is_gated,
        "attn_implementation": "sdpa",
    }
    if not shape.registers:
        return Dinov2Model(Dinov2Config(use_mask_token=False, **same))  # type: ignore[no-any-return]
    config = Dinov2WithRegistersConfig(num_register_tokens=shape.registers, **same)
    net = Dinov2WithRegistersModel(config)
    net.embeddings.mask_token = None
    return net  # type: ignore[no-any-return]


class Slides(nn.Module):
    """Logits of bags of tiles (BKCXY, bytes), or of their features (BKD), and what they rest on."""

    def __init__(self, shape: SlideNet) -> None:
        super().__init__()
        self.tile_batch = shape.tile_batch
        self.encoder = encoder(shape).requires_grad_(shape.train_encoder)
        self.value = nn.Linear(shape.hidden, shape.attention)
        self.gate = nn.Linear(shape.hidden, shape.attention)
        self.score = nn.Linear(shape.attention, 1)
        self.classifier = nn.Linear(shape.hidden, shape.classes)

    def forward(self, given: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return BN logits of N classes, and the attention BK of the tiles, which adds up to 1."""
        features = given if given.dim() == 3 else self._features(given)
        gated = self.value(features).tanh() * self.gate(features).sigmoid()
        weights = self.score(gated).softmax(1).transpose(1, 2)
        logits = self.classifier((weights @ features).squeeze(1))
        return {"logits": logits, "attention": weights.squeeze(1)}

    def _features(self, bags: torch.Tensor) -> torch.Tensor:
        tiles = bags.flatten(0, 1)
        chunks = [tiles] if self.training else torch.split(tiles, self.tile_batch)
        features = [self.encoder(self._normalised(one)).pooler_output for one in chunks]
        return torch.cat(features).view(*bags.shape[:2], -1)

    def _normalised(self, tiles: torch.Tensor) -> torch.Tensor:
        pixels = tiles.to(self.score.weight.dtype)
        mean, deviation = (pixels.new_tensor(one)[:, None, None] for one in (MEAN, DEVIATION))
        return (pixels / 255 - mean) / deviation


def loss(net: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the cross entropy of the bags' labels."""
    return cross_entropy(net(batch["tiles"])["logits"].float(), batch["label"])
