"""What decoding latents to pixels amounts to: the decoder of Wan 2.1's autoencoder, by formula.

The net is AutoencoderKLWan of diffusers (https://arxiv.org/abs/2503.20314, section 4.1). It takes
one frame of latents after the other. The first gives one frame of pixels and each other four, all
eight times as wide and high. Its convolutions keep the last two frames that they took.

W is its width: four levels have 4W, 4W, 2W and W channels, each twice as wide and high as the one
before. The first two levels double the frames, all but the first.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from workloads._costs.conv_cost import Conv
from workloads._costs.transformer_cost import attention_flops

COLOURS = 3
RESIDUAL_BLOCKS = 3
"""Of a level."""
AT_WORK = 8
"""Tensors of the last level that live at one time: fitted to peaks counted on a CPU, errs high."""
LEAST_BYTES = 16
"""Of an element of these in half precision: norms and enlarging compute in fp32."""


@dataclass(frozen=True, kw_only=True)
class PixelDecoder:
    """A decoder of clips of so many latents."""

    width: int
    channels: int
    """Of the latents."""
    latent: tuple[int, ...]
    """Frames, rows and columns of the latents."""

    @property
    def frames(self) -> tuple[int, int, int, int]:
        """Frames of each level; the last gives those of the clip."""
        first = self.latent[0]
        return first, 2 * first - 1, 4 * first - 3, 4 * first - 3

    def pixels(self, level: int) -> int:
        """Return the pixels of a frame of a level."""
        return self.latent[1] * self.latent[2] << 2 * level

    def _conv(self, channels_in: int, channels_out: int, *, level: int, kernel: int = 3) -> Conv:
        return Conv(
            channels_in=channels_in,
            channels_out=channels_out,
            kernel=(kernel, kernel, kernel),
            positions=self.frames[level] * self.pixels(level),
            has_bias=True,
        )

    def _residual(self, channels_in: int, channels_out: int, *, level: int) -> Iterator[Conv]:
        yield self._conv(channels_in, channels_out, level=level)
        yield self._conv(channels_out, channels_out, level=level)
        if channels_in != channels_out:
            yield self._conv(channels_in, channels_out, level=level, kernel=1)

    def _enlarging(self, channels: int, *, level: int) -> Iterator[Conv]:
        """Frames twice as wide and high with half the channels, and before that twice as many."""
        if level < 2:
            positions = (self.frames[level] - 1) * self.pixels(level)
            yield Conv(channels_in=channels, channels_out=2 * channels, kernel=(3, 1, 1),
                       positions=positions, has_bias=True)  # fmt: skip
        positions = self.frames[level + 1] * self.pixels(level + 1)
        yield Conv(channels_in=channels, channels_out=channels // 2, kernel=(3, 3),
                   positions=positions, has_bias=True)  # fmt: skip

    def _levels(self) -> Iterator[tuple[int, Conv]]:
        """Every convolution with its level."""
        width = 4 * self.width
        yield 0, self._conv(self.channels, self.channels, level=0, kernel=1)
        yield 0, self._conv(self.channels, width, level=0)
        yield 0, self._conv(width, 3 * width, level=0, kernel=1)
        yield 0, self._conv(width, width, level=0, kernel=1)
        for _ in range(2):
            yield from ((0, one) for one in self._residual(width, width, level=0))
        for level, (first, last) in enumerate(self._channels()):
            for number in range(RESIDUAL_BLOCKS):
                block = self._residual(last if number else first, last, level=level)
                yield from ((level, one) for one in block)
            if level < 3:
                yield from ((level, one) for one in self._enlarging(last, level=level))
        yield 3, self._conv(self.width, COLOURS, level=3)

    def _channels(self) -> tuple[tuple[int, int], ...]:
        """Channels that each level takes and has."""
        width = self.width
        return (
            (4 * width, 4 * width),
            (2 * width, 4 * width),
            (2 * width, 2 * width),
            (width, width),
        )

    def num_parameters(self) -> int:
        """Return convolutions, and a factor a channel of each norm."""
        norms = 5 * 4 * self.width + self.width  # two blocks and attention in the middle; the last
        norms += sum(first + (2 * RESIDUAL_BLOCKS - 1) * last for first, last in self._channels())
        return sum(one.num_weights for _, one in self._levels()) + norms

    def flops(self) -> float:
        """Return the FLOPs of a clip; pixels of a frame attend to each other on the first level."""
        pairs = self.latent[0] * self.pixels(0) ** 2
        attention = attention_flops(4 * self.width, pairs=pairs)
        return sum(one.flops for _, one in self._levels()) + attention

    def memory_bytes(self, *, element_bytes: int) -> int:
        """Return the peak of a clip: frames kept, the last level at work, and pixels twice."""
        kept = sum(
            min(2, self.frames[level]) * one.channels_in * self.pixels(level)
            for level, one in self._levels()
            if one.kernel[0] == 3 and len(one.kernel) == 3
        )
        at_once = min(4, self.frames[3]) * self.width * self.pixels(3)
        clip = 2 * COLOURS * self.frames[3] * self.pixels(3)
        at_work = at_once * max(AT_WORK * element_bytes, LEAST_BYTES)
        return at_work + (kept + clip) * element_bytes
