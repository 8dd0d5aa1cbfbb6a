"""What a DynUNet amounts to, by formula: layers, parameters, FLOPs, windows. Plain Python.

The net is the U-Net of nnU-Net (Isensee et al., Nature Methods 2021,
doi:10.1038/s41592-020-01008-z) as MONAI builds it: two 3x3x3 convolutions per stage, stride 2
between stages, a 2x2x2 transposed convolution on the way up, the skip joined by concatenation,
1x1x1 heads. Convolutions are all that is counted as FLOPs, with 2 per multiply-add, as torch's
FlopCounterMode does; normalisation, activation and loss are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

OVERLAP = 0.5
"""Of neighbouring windows; nnU-Net's tile_step_size 0.5."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One convolution, for one patch."""

    channels_in: int
    channels_out: int
    kernel: int
    voxels: int
    """Positions where the kernel is applied: outputs, or inputs if transposed."""
    voxels_out: int
    has_norm: bool = False
    has_bias: bool = False
    is_concatenated: bool = False
    """Its input was joined from two tensors and is stored once more."""

    @property
    def num_weights(self) -> int:
        """Parameters of the convolution and of the instance norm (scale, shift) behind it."""
        extra = 2 * self.has_norm + self.has_bias
        return (
            self.channels_in * self.channels_out * math.prod([self.kernel] * 3)
            + extra * self.channels_out
        )

    @property
    def flops(self) -> int:
        """Forward FLOPs."""
        return 2 * self.channels_in * self.channels_out * math.prod([self.kernel] * 3) * self.voxels


@dataclass(frozen=True, kw_only=True)
class UNet:
    """The parameters that fix the net's cost."""

    channels: int
    classes: int
    filters: tuple[int, ...]
    heads: int
    """Deep-supervision heads besides the output."""
    patch: tuple[int, ...]

    def check(self) -> None:
        """Raise ValueError if no such net exists."""
        stages = len(self.filters)
        if stages < 3:
            raise ValueError(f"filters needs at least 3 numbers, not {stages}")
        if min(self.filters) < 1:
            raise ValueError(f"filters must be positive, not {self.filters}")
        halvings = 2 ** (stages - 1)
        if len(self.patch) != 3 or any(size < 1 or size % halvings for size in self.patch):
            raise ValueError(f"patch needs three multiples of {halvings}, not {self.patch}")
        if math.prod(self.patch) == halvings**3:
            raise ValueError(f"patch must be over {halvings} in one direction: {self.patch}")

    def layers(self) -> Iterator[Layer]:
        """Yield every convolution in order of execution; the first sees the image."""
        voxels = [math.prod(self.patch) // 8**stage for stage in range(len(self.filters))]
        before = self.channels
        for stage, width in enumerate(self.filters):
            yield from _block(before, width, voxels=voxels[stage])
            before = width
        for stage in reversed(range(len(self.filters) - 1)):
            width, below = self.filters[stage], self.filters[stage + 1]
            yield Layer(
                channels_in=below,
                channels_out=width,
                kernel=2,
                voxels=voxels[stage + 1],
                voxels_out=voxels[stage],
            )
            yield from _block(2 * width, width, voxels=voxels[stage], is_concatenated=True)
            if stage <= self.heads:
                yield Layer(
                    channels_in=width,
                    channels_out=self.classes,
                    kernel=1,
                    voxels=voxels[stage],
                    voxels_out=voxels[stage],
                    has_bias=True,
                )

    def num_parameters(self) -> int:
        """Parameters of the net."""
        return sum(layer.num_weights for layer in self.layers())

    def forward_flops(self) -> int:
        """FLOPs of one patch; the heads are computed in inference too."""
        return sum(layer.flops for layer in self.layers())

    def train_flops(self) -> int:
        """FLOPs of one patch forward and backward: the image needs no gradient."""
        first = next(self.layers())
        return 3 * self.forward_flops() - first.flops

    def activation_traffic(self) -> int:
        """Elements that one forward pass moves at least: each output written once, and read once
        by whatever uses it (a skip twice); norm and activation ride along with the convolution."""
        outputs = [layer.channels_out * layer.voxels_out for layer in self.layers()]
        skips = [
            layer.channels_in // 2 * layer.voxels
            for layer in self.layers()
            if layer.is_concatenated
        ]
        image = self.channels * math.prod(self.patch)
        return image + 2 * sum(outputs) + sum(skips)


def _block(
    before: int, width: int, *, voxels: int, is_concatenated: bool = False
) -> Iterator[Layer]:
    for channels_in, is_first in ((before, True), (width, False)):
        yield Layer(
            channels_in=channels_in,
            channels_out=width,
            kernel=3,
            voxels=voxels,
            voxels_out=voxels,
            has_norm=True,
            is_concatenated=is_first and is_concatenated,
        )


def num_windows(volume: tuple[int, ...], *, patch: tuple[int, ...]) -> int:
    """Windows that MONAI's sliding_window_inference runs on one volume.

    A volume smaller than the patch is padded to it. The step is int(patch * (1 - overlap)), and the
    last window is moved inwards; the last batch of windows is not padded.
    """
    count = 1
    for size, window in zip(volume, patch, strict=True):
        step = max(int(window * (1 - OVERLAP)), 1)
        count *= math.ceil(max(size - window, 0) / step) + 1
    return count
