"""What a DynUNet amounts to, by formula: parameters, FLOPs, windows, memory. Plain Python.

The net is the U-Net of nnU-Net (Isensee et al., Nature Methods 2021,
doi:10.1038/s41592-020-01008-z) as MONAI builds it: two 3x3x3 convolutions per stage, stride 2
between stages, a 2x2x2 transposed convolution on the way up, the skip joined by concatenation,
1x1x1 heads. Convolutions are all that is counted as FLOPs, with 2 per multiply-add, as torch's
FlopCounterMode does; normalisation, activation and loss are left out.

Training keeps weights, gradients and momentum in fp32 (autocast adds a half-precision copy of the
weights), and for each patch what backward needs. Derived from the operators' rules of what they
save, and held to torch's saved-tensor hooks by a test:

- a 3x3x3 convolution saves its input, the instance norm behind it saves the convolution's output;
  leaky ReLU works in place, so that its result is the next layer's input and is stored once;
- a concatenation is a new tensor, saved as its convolution's input;
- DiceCE works in fp32 on logits of classes x voxels, for each head at its own resolution.

Peaks of live storages (counted on a CPU, both phases, fp32 and bf16) are 1.05 to 1.3 times below
the estimate, which leaves room for the allocator's rounding and cuDNN's workspaces; the CUDA
context is left out.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench.core.nouns import DTYPE_BYTES, Dtype
from bench.workload import RESIDENT_BATCHES, Phase
from workloads._costs.conv_cost import Conv

OVERLAP = 0.5  # of neighbouring windows; nnU-Net's tile_step_size
LOSS_TENSORS = 5
"""fp32 tensors of classes x voxels that DiceCE keeps per head, counted with saved-tensor hooks."""
BLEND_TENSORS = 2
"""fp32 tensors of classes x voxels in inference: the blended logits and their normalised copy."""
CASES_PER_HELD_OUT = 4
"""Generated cases to train on for each that is inferred."""


@dataclass(frozen=True, kw_only=True)
class UNet:
    """The parameters that fix the net's cost; the defaults are nnU-Net's 3d_fullres."""

    channels: int = 1
    """Modalities of an image."""
    classes: int = 3
    """Background, organs, lesion."""
    filters: tuple[int, ...] = (32, 64, 128, 256, 320, 320)
    patch: tuple[int, ...] = (128, 128, 128)
    deep_supervision: bool = True
    batch: int = 2
    volume: tuple[int, ...] = (256, 256, 192)
    """Voxels of a generated volume; those of a --data folder have their own shapes."""
    sw_batch_size: int = 2
    """Windows that inference runs at once."""
    cases: int = 8
    """Cases trained on at most, and inferred at most; each is prepared once, before measuring."""

    @property
    def heads(self) -> int:
        """Deep-supervision heads besides the output: none at the two lowest resolutions."""
        return max(len(self.filters) - 3, 1) if self.deep_supervision else 0

    @property
    def held_out(self) -> int:
        """Generated volumes that are inferred; all of them lie on the device."""
        return max(self.cases // CASES_PER_HELD_OUT, 2)

    def check_shape(self) -> None:
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

    def layers(self) -> Iterator[Conv]:
        """Yield every convolution in order of execution; the first sees the image.

        Kernels of 3 have a norm behind them, transposed ones of 2 go up, those of 1 are heads.
        """
        voxels = [math.prod(self.patch) // 8**stage for stage in range(len(self.filters))]

        def layer(before: int, after: int, kernel: int, stage: int) -> Conv:
            return Conv(
                channels_in=before,
                channels_out=after,
                kernel=(kernel,) * 3,
                positions=voxels[stage],
                has_bias=kernel == 1,
                is_transposed=kernel == 2,
            )

        before = self.channels
        for stage, width in enumerate(self.filters):
            yield layer(before, width, 3, stage)
            yield layer(width, width, 3, stage)
            before = width
        for stage in reversed(range(len(self.filters) - 1)):
            width = self.filters[stage]
            yield layer(self.filters[stage + 1], width, 2, stage + 1)
            yield layer(2 * width, width, 3, stage)
            yield layer(width, width, 3, stage)
            if stage <= self.heads:
                yield layer(width, self.classes, 1, stage)

    def num_parameters(self) -> int:
        """Return the sum over layers; a norm has a scale and a shift."""
        norms = sum(2 * layer.channels_out for layer in self.layers() if layer.kernel[0] == 3)
        return norms + sum(layer.num_weights for layer in self.layers())

    def flops_per_item(self, phase: Phase, batch: Any = None) -> float:
        """FLOPs of a patch forward and backward, or of the forward of a volume's windows.

        The image needs no gradient; the heads are computed in inference too.
        """
        flops = [layer.flops for layer in self.layers()]
        if phase.is_training:
            return 3 * sum(flops) - flops[0]
        volume = self.volume if batch is None else batch["image"].shape[2:]
        return num_windows(volume, patch=self.patch) * sum(flops)

    def activation_traffic(self) -> int:
        """Elements that one forward pass moves at least: each output written once, and read once
        by whatever uses it (a skip twice); norm and activation ride along with the convolution."""
        outputs = sum(layer.num_outputs for layer in self.layers())
        return self.channels * math.prod(self.patch) + 2 * outputs + self.joined_elements() // 2

    def bytes_per_item(self, phase: Phase, *, dtype_bytes: int) -> float:
        """Return the least traffic: activations of each pass once, weights once a batch of patches.

        Training: the backward pass moves twice what the forward does (stored inputs and gradients
        in, gradients out), and SGD with momentum reads weight, gradient and momentum and writes
        weight and momentum, in fp32, beside one read for each pass and one gradient written.
        """
        activations = self.activation_traffic() * dtype_bytes
        weights = self.num_parameters()
        if phase.is_training:
            return 3 * activations + 8 * 4 * weights / self.batch
        windows = num_windows(self.volume, patch=self.patch)
        passes = math.ceil(windows / self.sw_batch_size)
        return windows * activations + passes * weights * dtype_bytes

    def joined_elements(self) -> int:
        """Elements of all concatenations for one patch, a copy each: half of them are skips."""
        skips = (layer for layer in self.layers() if layer.is_transposed)
        return sum(2 * layer.num_outputs for layer in skips)

    def saved_bytes(self, *, element_bytes: int) -> int:
        """Return what one patch keeps for backward, the loss included."""
        kept = self.channels * math.prod(self.patch) + self.joined_elements()
        kept += sum(2 * layer.num_outputs for layer in self.layers() if layer.kernel[0] == 3)
        head_voxels = sum(math.prod(self.patch) >> (3 * head) for head in range(self.heads + 1))
        return kept * element_bytes + LOSS_TENSORS * self.classes * head_voxels * 4

    def memory_bytes(self, phase: Phase, *, dtype: Dtype) -> int:
        """Return the peak of a step.

        Training: state, the batches, what backward needs, the largest block at work. Inference:
        weights, all volumes with their labels, the logits of one, one batch of its windows.
        """
        element_bytes = DTYPE_BYTES[dtype]
        weight_bytes = 4 * (3 if phase.is_training else 1)
        weight_bytes += element_bytes if element_bytes < 4 else 0
        state = self.num_parameters() * weight_bytes
        # At work in the first stage's last block, 5 widths: the two parts, their concatenation and
        # the convolution's output are alive together.
        block = 5 * self.filters[0] * math.prod(self.patch) * element_bytes
        if phase.is_training:
            ready = (RESIDENT_BATCHES - 1) * math.prod(self.patch) * (4 * self.channels + 1)
            kept = self.saved_bytes(element_bytes=element_bytes)
            return state + self.batch * (ready + kept + block)
        ready = self.held_out * math.prod(self.volume) * (element_bytes * self.channels + 1)
        # The volume at work once more where it is padded, how often each voxel was covered, and
        # the logits.
        padded = tuple(map(max, self.volume, self.patch))
        copied = self.channels if padded != self.volume else 0
        whole = math.prod(padded) * 4 * (copied + 1 + BLEND_TENSORS * self.classes)
        # Skips of every stage wait while the block of the first stage runs.
        at_work = self.joined_elements() // 2 * element_bytes + block
        at_once = min(self.sw_batch_size, num_windows(self.volume, patch=self.patch))
        return state + ready + whole + at_once * at_work


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
