"""What fixes an RT-DETRv2: its parameters, which of them fit together, and its convolutions.

The net (arxiv.org/abs/2407.17140, as transformers builds it) is a ResNet, an encoder that attends
within the coarsest of three levels and mixes the levels by convolutions, and a decoder whose
queries attend to each other and sample the levels. Torch-free.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench.core.errors import UsageError, one_of
from bench.workload import Phase
from workloads._costs.conv_cost import Conv

STRIDES = (8, 16, 32)
"""Of the three levels that the decoder samples."""
POINTS = 4
"""That a head of a query samples on each level."""
HEADS = 8
_LEAST = {"stem": 2, "queries": 1, "denoising": 0, "classes": 1, "objects": 1, "batch": 1,
          "cameras": 1, "feedforward": 1}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class DetectorShape:
    """What fixes the cost; the defaults are RT-DETRv2-R50 (PekingU/rtdetr_v2_r50vd)."""

    block: str = "bottleneck"
    """Of the ResNet: bottleneck or basic."""
    depths: tuple[int, ...] = (3, 4, 6, 3)
    widths: tuple[int, ...] = (256, 512, 1024, 2048)
    stem: int = 64
    frozen_norms: bool = True
    """The ResNet's norms have neither statistics nor gradients, as published for R50."""
    hidden: int = 256
    """Width of encoder and decoder."""
    feedforward: int = 1024
    expansion: float = 1.0
    """Width of the encoder's convolutions over `hidden`; published for R18: 0.5."""
    decoder_layers: int = 6
    queries: int = 300
    denoising: int = 100
    """Noisy copies of the boxes that training decodes as well, as random draws on the device."""
    pixels: int = 640
    """Side of a frame."""
    classes: int = 80
    objects: int = 3
    """Boxes in a generated frame at most."""
    batch: int = 4
    cameras: int = 8
    """Frames that one step of inference looks at: one of each camera."""
    learning_rate: float = 1e-4

    def check_shape(self) -> None:
        """Raise UsageError if no such net exists."""
        if self.block not in ("basic", "bottleneck"):
            raise one_of("block", self.block, ["basic", "bottleneck"])
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise UsageError(f"{name} must be at least {least}, not {getattr(self, name)}")
        for name in ("depths", "widths"):
            values = getattr(self, name)
            if len(values) != 4 or min(values) < 1:
                raise UsageError(f"{name} needs four numbers such as 3x4x6x3, not {values}")
        if self.block == "bottleneck" and any(width % 4 for width in self.widths):
            raise UsageError(f"widths must be multiples of 4 for bottlenecks, not {self.widths}")
        if self.decoder_layers < 2:
            raise UsageError(f"decoder_layers must be at least 2, not {self.decoder_layers}")
        if self.hidden < 1 or self.hidden % (4 * HEADS):
            raise UsageError(f"hidden must be a multiple of {4 * HEADS}, not {self.hidden}")
        if not 0 < self.expansion <= 4 or self.inner < 1:
            raise UsageError(f"expansion must be over 0 and at most 4, not {self.expansion}")
        if self.pixels < 32 or self.pixels % 32:
            raise UsageError(f"pixels must be a multiple of 32, not {self.pixels}")
        if self.queries > self.places:
            raise UsageError(f"queries must be at most {self.places} here, not {self.queries}")
        if self.learning_rate <= 0:
            raise UsageError(f"learning_rate must be greater than 0, not {self.learning_rate}")

    def batch_size(self, phase: Phase) -> int:
        """Return a batch to train on, or a frame of each camera."""
        return self.batch if phase.is_training else self.cameras

    def items(self, phase: Phase, batch: Any) -> int:
        """Return the frames."""
        return self.batch_size(phase) if batch is None else len(batch["frames"])

    @property
    def inner(self) -> int:
        """Channels of the encoder's convolutions."""
        return int(self.hidden * self.expansion)

    @property
    def places(self) -> int:
        """Pixels of all levels, from which the queries are chosen."""
        return sum((self.pixels // stride) ** 2 for stride in STRIDES)

    def _conv(self, before: int, after: int, *, stride: int, kernel: int = 1) -> Conv:
        """Return a convolution without bias whose output is so many times smaller than a frame."""
        positions = (self.pixels // stride) ** 2
        return Conv(
            channels_in=before, channels_out=after, kernel=(kernel, kernel), positions=positions
        )

    def backbone(self) -> Iterator[Conv]:
        """Yield the ResNet's convolutions; the first sees the frame."""
        half, before = self.stem // 2, self.stem
        for channels_in, channels_out in ((3, half), (half, half), (half, self.stem)):
            yield self._conv(channels_in, channels_out, stride=2, kernel=3)
        for stage, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True)):
            stride = 4 * 2**stage
            for number in range(depth):
                first = 4 if stage == 0 else stride // 2 if number == 0 else stride
                yield from self._block(before, width, from_stride=first, stride=stride)
                is_same = before == width and first == stride
                if number == 0 and not (is_same and self.block == "bottleneck"):
                    yield self._conv(before, width, stride=stride)
                before = width

    def _block(self, before: int, width: int, *, from_stride: int, stride: int) -> Iterator[Conv]:
        if self.block == "basic":
            yield self._conv(before, width, stride=stride, kernel=3)
            yield self._conv(width, width, stride=stride, kernel=3)
            return
        yield self._conv(before, width // 4, stride=from_stride)
        yield self._conv(width // 4, width // 4, stride=stride, kernel=3)
        yield self._conv(width // 4, width, stride=stride)

    def neck(self) -> Iterator[Conv]:
        """Yield the convolutions between the ResNet and the decoder, each with a norm."""
        hidden, (_, middle, coarse) = self.hidden, STRIDES
        for width, stride in zip(self.widths[1:], STRIDES, strict=True):
            yield self._conv(width, hidden, stride=stride)
            yield self._conv(hidden, hidden, stride=stride)  # towards the decoder
        for stride in (coarse, middle):  # down to the finer levels
            yield self._conv(hidden, hidden, stride=stride)
            yield from self._mix(stride=stride // 2)
        for stride in (middle, coarse):  # and up again
            yield self._conv(hidden, hidden, stride=stride, kernel=3)
            yield from self._mix(stride=stride)

    def _mix(self, *, stride: int) -> Iterator[Conv]:
        """Yield the convolutions that join two levels (CSPRep)."""
        inner = self.inner
        yield from (self._conv(2 * self.hidden, inner, stride=stride) for _ in range(2))
        for kernel in (3, 1) * 3:
            yield self._conv(inner, inner, stride=stride, kernel=kernel)
        if inner != self.hidden:
            yield self._conv(inner, self.hidden, stride=stride)
