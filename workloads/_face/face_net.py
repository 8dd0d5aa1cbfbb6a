"""IResNet, the ArcFace loss, and the search of a gallery, in plain torch.

As insightface's arcface_torch has them (backbones/iresnet.py, losses.py; ArcFace is
arxiv.org/abs/1801.07698). Letters: B faces, E embedding, N identities, G gallery. The last norm's
scale stays 1 and takes no gradient, as there. Differs from it: the sine of an angle comes from its
cosine, not from arccos; the head is whole on every device, not cut by identity; and weights start
smaller: a net whose norms have seen no data yet would overflow in inference. A gallery is made of
random vectors, the same on every device, when inference first asks for it: a search costs the same
whoever is in it.
"""

import math
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy, linear, normalize

from workloads._face.face_cost import FaceShape

SCALE, MARGIN = 64.0, 0.5
"""ArcFace's s and m: arxiv.org/abs/1801.07698 section 3.1."""
GALLERY_SEED = 11
FIRST_SLOPE = 0.25
"""Of PReLU, as torch starts it."""
FIRST_SHARE = 0.2
"""Of what a block adds, at the start."""
LARGEST_COSINE = 1.02
"""Of two vectors whose length half precision rounded."""
BLOCK_VECTORS = 4096
"""Random vectors that a large gallery repeats, each time with its elements moved on by one."""


class Residual(nn.Module):
    """Norm, convolution, norm, PReLU, convolution (which may halve the picture), norm."""

    def __init__(self, before: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(before),
            nn.Conv2d(before, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.PReLU(width),
            nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.shortcut = nn.Sequential()
        if stride > 1:
            convolution = nn.Conv2d(before, width, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(width))

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """Return the sum of body and shortcut."""
        total: torch.Tensor = self.body(picture) + self.shortcut(picture)
        return total


class FaceNet(nn.Module):
    """Pictures to embeddings (B, E); in training to cosines with identities' centres (B, N)."""

    def __init__(self, shape: FaceShape) -> None:
        super().__init__()
        first = shape.widths[0]
        self.stem = nn.Sequential(
            nn.Conv2d(3, first, 3, padding=1, bias=False), nn.BatchNorm2d(first), nn.PReLU(first)
        )
        self.blocks = nn.ModuleList()
        before = first
        for depth, width in zip(shape.depths, shape.widths, strict=True):
            for block in range(depth):
                self.blocks.append(Residual(before, width, stride=2 if block == 0 else 1))
                before = width
        self.embed = nn.Sequential(
            nn.BatchNorm2d(before),
            nn.Flatten(),
            nn.Linear(shape.num_flat, shape.embedding),
            nn.BatchNorm1d(shape.embedding),
        )
        self.embed[3].weight.requires_grad = False
        self.centres = nn.Parameter(torch.randn(shape.identities, shape.embedding) * 0.01)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=FIRST_SLOPE)
            elif isinstance(module, Residual):
                nn.init.constant_(module.body.get_parameter("5.weight"), FIRST_SHARE)
        self._gallery: torch.Tensor | None = None

    def forward(self, picture: torch.Tensor, rows: torch.Tensor | None = None) -> torch.Tensor:
        """Return embeddings, or cosines with all centres or with those of `rows`."""
        found = self.stem(picture)
        for block in self.blocks:
            found = block(found)
        found = self.embed(found)
        if not self.training:
            return normalize(found)
        centres = self.centres if rows is None else self.centres[rows]
        return linear(normalize(found), normalize(centres))

    def gallery(self, shape: FaceShape) -> torch.Tensor:
        """Return the (G, E) vectors that are searched, made once, in the net's precision."""
        if self._gallery is None:
            self._gallery = _vectors(shape).to(self.centres)
        return self._gallery


def _vectors(shape: FaceShape) -> torch.Tensor:
    generator = torch.Generator().manual_seed(GALLERY_SEED)
    number = min(BLOCK_VECTORS, shape.gallery)
    block = normalize(torch.randn(number, shape.embedding, generator=generator))
    times = math.ceil(shape.gallery / number)
    return torch.cat([block.roll(moved, dims=1) for moved in range(times)])[: shape.gallery]


def optimizer(shape: FaceShape, net: nn.Module) -> torch.optim.Optimizer:
    """Return insightface's SGD; what is frozen is left out."""
    trained = [one for one in net.parameters() if one.requires_grad]
    return torch.optim.SGD(trained, lr=shape.learning_rate, momentum=0.9, weight_decay=5e-4)


def margin_loss(cosine_BN: torch.Tensor, identity_B: torch.Tensor) -> torch.Tensor:  # noqa: N803
    """Return ArcFace's cross entropy: the angle to the own identity is made larger by the margin.

    Where that would go beyond a half turn, the cosine is lowered instead, so that it stays monotone
    (insightface's easy_margin off). In fp32: a scale of 64 leaves half precision few digits.
    """
    cosine_BN = cosine_BN.float().clamp(-1.0, 1.0)  # noqa: N806
    own = cosine_BN.gather(1, identity_B[:, None])
    sine = (1.0 - own**2).clamp_min(1e-9).sqrt()
    turned = own * math.cos(MARGIN) - sine * math.sin(MARGIN)
    lowered = own - math.sin(MARGIN) * MARGIN
    harder = torch.where(own > -math.cos(MARGIN), turned, lowered)
    return cross_entropy(SCALE * cosine_BN.scatter(1, identity_B[:, None], harder), identity_B)


def search(net: Any, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return each face's embedding, and the nearest vector of the gallery with its cosine."""
    embedding = net(batch["face"])
    cosine, place = (embedding @ batch["gallery"].T).max(dim=1)
    return {"embedding": embedding, "cosine": cosine, "place": place}


def rank_one(net: nn.Module, *, enrolled: torch.Tensor, probes: torch.Tensor) -> float:
    """Return the part of the probes whose nearest enrolled face is the one in the same place."""
    net.eval()
    with torch.inference_mode():
        found = search(net, {"face": probes, "gallery": net(enrolled)})["place"]
    return float((found == torch.arange(len(probes))).double().mean())


def check_output(output: Any, *, gallery: int) -> None:
    """Raise ValueError for a loss or a search's answer that cannot be right."""
    is_loss = isinstance(output, torch.Tensor)
    values = output if is_loss else output["cosine"]
    if not bool(values.isfinite().all()):
        raise ValueError(f"{'loss' if is_loss else 'cosine'} is not finite")
    if not is_loss and float(values.abs().max()) > LARGEST_COSINE:
        raise ValueError(f"a cosine of {float(values.abs().max()):g} is impossible")
    if not is_loss and not bool((output["place"] < gallery).all()):
        raise ValueError(f"the nearest vector is outside the gallery of {gallery}")
    if not is_loss and not bool((output["embedding"].float().norm(dim=1) > 0.98).all()):
        raise ValueError("an embedding has no length of 1")
