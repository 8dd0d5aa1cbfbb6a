"""What a convolution costs, by formula: parameters and forward FLOPs. Torch-free.

One-, two- or three-dimensional by its kernel, grouped, or transposed. A multiply-add is 2 FLOP, as
torch's FlopCounterMode counts; norms, activations, pooling and a bias's addition are left out. The
backward of a convolution costs twice its forward, and once where its input needs no gradient.
FlopCounterMode counts the backward of a grouped one too high (torch 2.13: by the number of groups),
so hold such a net's forward to the counter and its backward to the formula.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Conv:
    """One convolution of one sample."""

    channels_in: int
    channels_out: int
    kernel: tuple[int, ...]
    """Its sizes: (3, 3) is two-dimensional."""
    positions: int
    """Where the kernel is applied: pixels of the output, or of the input if transposed."""
    groups: int = 1
    has_bias: bool = False
    is_transposed: bool = False
    """Its stride is its kernel, as upsampling has it: every output has one position."""

    @property
    def num_weights(self) -> int:
        """Parameters, the bias included."""
        kernels = self.channels_in // self.groups * self.channels_out * math.prod(self.kernel)
        return kernels + (self.channels_out if self.has_bias else 0)

    @property
    def flops(self) -> int:
        """Forward FLOPs."""
        kernels = self.channels_in // self.groups * self.channels_out * math.prod(self.kernel)
        return 2 * kernels * self.positions

    @property
    def num_outputs(self) -> int:
        """Elements of the output."""
        spread = math.prod(self.kernel) if self.is_transposed else 1
        return self.channels_out * self.positions * spread
