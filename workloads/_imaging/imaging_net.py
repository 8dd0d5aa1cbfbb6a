"""DynUNet, its loss, and whole-volume inference, from MONAI's parts, as nnU-Net combines them.

Letters: B batch, H heads, K classes, C channels, XYZ space. Deep supervision follows nnU-Net
(Isensee et al. 2021): heads at all but the two lowest decoder resolutions, weights 1, 1/2, 1/4, ...
normalised to 1, each compared at its own resolution. MONAI's DynUNet returns all heads stretched
(nearest neighbour) to full size in one tensor; striding takes each back to what the head computed.
MONAI computes the heads in inference as well, and so they are counted there.
Differs from nnU-Net: no mirroring at test time.
"""

from typing import Any

import torch
from monai.inferers.utils import sliding_window_inference
from monai.losses.dice import DiceCELoss
from monai.networks.nets.dynunet import DynUNet
from torch import nn

from workloads._imaging.imaging_cost import OVERLAP, UNet
from workloads._imaging.imaging_data import PAD_VALUE

_LOSS = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)


def build(unet: UNet) -> nn.Module:
    """Return the DynUNet with instance norm and leaky ReLU."""
    stages = len(unet.filters)
    return DynUNet(  # type: ignore[no-any-return]
        spatial_dims=3,
        in_channels=unet.channels,
        out_channels=unet.classes,
        kernel_size=[3] * stages,
        strides=[1] + [2] * (stages - 1),
        upsample_kernel_size=[2] * (stages - 1),
        filters=list(unet.filters),
        norm_name=("INSTANCE", {"affine": True}),
        act_name=("leakyrelu", {"inplace": True, "negative_slope": 0.01}),
        deep_supervision=unet.heads > 0,
        deep_supr_num=max(unet.heads, 1),
    )


def loss(output: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Return DiceCE of BKXYZ logits and B1XYZ labels; of BHKXYZ the weighted mean over heads."""
    heads = output.unbind(1) if output.dim() == 6 else (output,)
    total = torch.zeros((), device=output.device)
    for head, stretched in enumerate(heads):
        stride = slice(None, None, 2**head)
        every = (..., stride, stride, stride)
        # The loss in fp32: half precision loses small Dice sums.
        total = total + 0.5**head * _LOSS(stretched[every].float(), label[every])
    return total / sum(0.5**head for head in range(len(heads)))


def segment(unet: UNet, net: Any, image: torch.Tensor) -> Any:
    """Return BKXYZ logits of BCXYZ volumes: half-overlapping windows, blended by a Gaussian."""
    blending = {"overlap": OVERLAP, "mode": "gaussian", "cval": PAD_VALUE}
    return sliding_window_inference(image, unet.patch, unet.sw_batch_size, net, **blending)
