"""How much device memory segmentation needs, estimated from the layers. Plain Python.

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

from __future__ import annotations

import math

from bench.core.nouns import Dtype
from workloads._imaging.imaging_cost import Layer, UNet

LOSS_TENSORS = 5
"""fp32 tensors of classes x voxels that DiceCE keeps per head, counted with saved-tensor hooks."""
BLEND_TENSORS = 2
"""fp32 tensors of classes x voxels in inference: the blended logits and their normalised copy."""


def train_bytes(unet: UNet, *, batch: int, dtype: Dtype) -> int:
    """Return the peak of a training step: state, what backward needs, the largest block at work."""
    element_bytes = _element_bytes(dtype)
    state = unet.num_parameters() * (3 * 4 + (element_bytes if element_bytes < 4 else 0))
    per_patch = saved_bytes(unet, element_bytes=element_bytes)
    per_patch += _block_bytes(unet, element_bytes=element_bytes)
    return state + batch * per_patch


def infer_bytes(unet: UNet, *, volume: tuple[int, ...], sw_batch_size: int, dtype: Dtype) -> int:
    """Return the peak of one volume's inference: weights, volume, logits, one batch of windows."""
    element_bytes = _element_bytes(dtype)
    state = unet.num_parameters() * (4 + (element_bytes if element_bytes < 4 else 0))
    voxels = math.prod(max(v, p) for v, p in zip(volume, unet.patch, strict=True))
    # The volume itself, how often each voxel was covered, and the logits.
    whole = voxels * 4 * (unet.channels + 1 + BLEND_TENSORS * unet.classes)
    # Skips of every stage wait while the block of the first stage runs.
    skips = sum(layer.channels_in // 2 * layer.voxels_out for layer in _joined(unet))
    window = skips * element_bytes + _block_bytes(unet, element_bytes=element_bytes)
    return state + whole + sw_batch_size * window


def saved_bytes(unet: UNet, *, element_bytes: int) -> int:
    """Return what one patch keeps for backward, the loss included."""
    kept = unet.channels * math.prod(unet.patch)
    kept += sum(
        2 * layer.channels_out * layer.voxels_out for layer in unet.layers() if layer.has_norm
    )
    kept += sum(layer.channels_in * layer.voxels_out for layer in _joined(unet))
    head_voxels = sum(math.prod(unet.patch) >> (3 * head) for head in range(unet.heads + 1))
    return kept * element_bytes + LOSS_TENSORS * unet.classes * head_voxels * 4


def _block_bytes(unet: UNet, *, element_bytes: int) -> int:
    """Return the working set of the first stage's last block for one patch.

    The two parts, their concatenation and the convolution's output are alive together: 5 widths.
    """
    return 5 * unet.filters[0] * math.prod(unet.patch) * element_bytes


def _joined(unet: UNet) -> list[Layer]:
    return [layer for layer in unet.layers() if layer.is_concatenated]


def _element_bytes(dtype: Dtype) -> int:
    return 2 if dtype in ("bf16", "fp16") else 4
