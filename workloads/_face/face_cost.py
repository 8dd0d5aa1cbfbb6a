"""What an IResNet with an ArcFace head costs, by formula: parameters, FLOPs, traffic, memory.

The net is that of insightface's arcface_torch (backbones/iresnet.py): a 3 x 3 stem, four stages of
residual blocks that halve the picture, one linear layer to the embedding. Convolutions and matrix
products are counted, norms and activations are not. Training compares each face with the centre of
every identity, or with the sampled part of them (Partial FC, arxiv.org/abs/2203.15565); inference
looks for the nearest vector of a gallery. Both phases hold the centres, since both have one net.

Backward needs the inputs of all convolutions, norms and activations; of the head a few tensors of
batch x identities, and of the centres their normalised copy. Peaks of live storages were counted on
a CPU, and a test holds the estimate to them.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench.core.errors import UsageError
from bench.core.nouns import DTYPE_BYTES, Dtype
from bench.workload import Phase
from workloads._costs.conv_cost import Conv
from workloads._costs.transformer_cost import linear_parameters, projection_flops

LOGIT_TENSORS = 6
"""fp32 tensors of batch x identities alive at once in the loss and its backward."""
CENTRE_TENSORS = 3
"""fp32 tensors of the centres' size beside their state: normalised, and two gradients on the way
back through the norm."""


@dataclass(frozen=True, kw_only=True)
class FaceShape:
    """What fixes the cost; the defaults are iresnet50 on MS1MV3 (insightface's ms1mv3_r50)."""

    depths: tuple[int, ...] = (3, 4, 14, 3)
    """Residual blocks of the four stages."""
    widths: tuple[int, ...] = (64, 128, 256, 512)
    """Channels of the four stages; the stem has the first."""
    pixels: int = 112
    """Side of a face."""
    embedding: int = 512
    """Width of the vector that a face becomes."""
    identities: int = 93_431
    """People among whom training distinguishes."""
    sample_rate: float = 1.0
    """Part of the identities that a training step compares with (Partial FC)."""
    gallery: int = 100_000
    """Vectors that inference searches."""
    batch: int = 128
    learning_rate: float = 0.1

    def __post_init__(self) -> None:
        """Raise UsageError if no such net exists."""
        for name in ("pixels", "embedding", "identities", "gallery"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("depths", "widths"):
            values = getattr(self, name)
            if len(values) != 4 or min(values) < 1:
                raise UsageError(f"{name} needs four numbers such as 3x4x14x3, not {values}")
        if self.batch < 2:
            raise UsageError(f"batch must be at least 2, for batch norm, not {self.batch}")
        if not 0 < self.sample_rate <= 1:
            raise UsageError(f"sample_rate must be over 0 and at most 1, not {self.sample_rate}")
        if self.learning_rate <= 0:
            raise UsageError(f"learning_rate must be greater than 0, not {self.learning_rate}")

    @property
    def num_compared(self) -> int:
        """Identities that a training step compares with; those of its own faces are among them."""
        return min(max(round(self.sample_rate * self.identities), self.batch), self.identities)

    def convolutions(self) -> Iterator[Conv]:
        """Yield every convolution; the first sees the picture, 1 x 1 ones are shortcuts."""
        side = self.pixels
        yield self._conv(3, self.widths[0], side)
        before = self.widths[0]
        for depth, width in zip(self.depths, self.widths, strict=True):
            for block in range(depth):
                yield self._conv(before, width, side)
                if block == 0:
                    side = (side + 1) // 2
                    yield self._conv(before, width, side, kernel=1)
                yield self._conv(width, width, side)
                before = width

    def _conv(self, before: int, after: int, side: int, *, kernel: int = 3) -> Conv:
        return Conv(
            channels_in=before, channels_out=after, kernel=(kernel, kernel), positions=side**2
        )

    @property
    def last_side(self) -> int:
        """Side of the last stage's output."""
        return math.ceil(self.pixels / 16)

    @property
    def num_flat(self) -> int:
        """Inputs of the linear layer."""
        return self.widths[-1] * self.last_side**2

    def items(self, phase: Phase, batch: Any) -> int:
        """Return the faces."""
        return self.batch if batch is None else len(batch["face"])

    def num_parameters(self) -> int:
        """Return those of convolutions, norms, activations, the linear layer and the centres."""
        convolutions = list(self.convolutions())
        kernels = sum(one.num_weights for one in convolutions)
        norms = 2 * (sum(one.channels_out for one in convolutions) + self._block_norms())
        norms += 2 * (self.widths[-1] + self.embedding)
        slopes = self.widths[0] + sum(
            depth * width for depth, width in zip(self.depths, self.widths, strict=True)
        )
        linear = linear_parameters(self.num_flat, outputs=self.embedding)
        return kernels + norms + slopes + linear + self.identities * self.embedding

    def _block_norms(self) -> int:
        """Channels of the norms that blocks begin with."""
        before = (self.widths[0], *self.widths[:-1])
        stages = zip(before, self.widths, self.depths, strict=True)
        return sum(first + (depth - 1) * width for first, width, depth in stages)

    def flops_per_item(self, phase: Phase, batch: Any = None) -> float:
        """FLOPs of a face: forward and backward, or forward and search; a picture needs no
        gradient."""
        convolutions = [one.flops for one in self.convolutions()]
        forward = sum(convolutions) + projection_flops(self.num_flat * self.embedding, tokens=1)
        compared = self.num_compared if phase.is_training else self.gallery
        head = projection_flops(self.embedding * compared, tokens=1)
        if phase.is_training:
            return 3 * (forward + head) - convolutions[0]
        return forward + head

    def bytes_per_item(self, phase: Phase, *, dtype_bytes: int) -> float:
        """Return the least traffic: outputs of convolutions written and read, weights once a batch.

        Training moves activations three times (forward, and twice back), and SGD with momentum
        reads weight, gradient and momentum and writes weight and momentum, beside a read for each
        pass and a gradient written. Inference reads the gallery once a batch.
        """
        outputs = sum(one.num_outputs for one in self.convolutions()) + self.embedding
        moved = (3 * self.pixels**2 + 2 * outputs) * dtype_bytes
        weights = self.num_parameters()
        if phase.is_training:
            return 3 * (moved + 2 * self.num_compared * dtype_bytes) + 8 * 4 * weights / self.batch
        used = weights + (self.gallery - self.identities) * self.embedding
        return moved + used * dtype_bytes / self.batch

    def saved_elements(self) -> int:
        """Elements that one face keeps for backward, the head apart."""
        side, before = self.pixels, self.widths[0]
        kept = 3 * side**2 + 3 * before * side**2  # the picture; the stem's output, normed, active
        for depth, width in zip(self.depths, self.widths, strict=True):
            for block in range(depth):
                # Input and its norm; then convolved, normed and active.
                kept += (2 * before + 3 * width) * side**2
                side = (side + 1) // 2 if block == 0 else side
                kept += (2 if block == 0 else 1) * width * side**2
                before = width
            kept -= before * side**2  # the next stage's first input is its own
        return kept + 2 * self.num_flat + 2 * self.embedding

    def memory_bytes(self, phase: Phase, *, dtype: Dtype) -> int:
        """Return the peak of a step.

        Training: weights, gradients and momentum in fp32 with autocast's copies, what backward
        needs, the head. Inference: weights, the gallery, the widest block at work, the cosines.
        """
        width = DTYPE_BYTES[dtype]
        weights = self.num_parameters()
        widest = self.widths[0] * self.pixels**2
        faces = 4 * 3 * self.pixels**2 * width * self.batch  # as many batches as lie ready
        if phase.is_training:
            cast = width if width < 4 else 0
            centres = self.num_compared * self.embedding * (4 * CENTRE_TENSORS + cast)
            head = LOGIT_TENSORS * 4 * self.num_compared
            face = (self.saved_elements() + 3 * widest) * width + head
            return weights * (3 * 4 + cast) + centres + self.batch * face
        cosines = (self.gallery + 4 * widest) * width
        searched = self.gallery * self.embedding * width
        return weights * width + searched + faces + self.batch * cosines
