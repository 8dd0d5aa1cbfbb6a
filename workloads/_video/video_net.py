"""Wan's transformer trained by flow matching, and clips made with it by Euler steps.

Letters: B clips, C channels, T frames, HW rows and columns of latents, M text tokens, D their
width. A clip z and noise e are mixed at a time s in 0..1 to (1 - s) z + s e, and the net predicts
e - z (Lipman et al. 2023, https://arxiv.org/abs/2210.02747); from noise, each step goes against it.
Differs from Wan: times are uniform, in training and in steps; guidance has the weight 5 that Wan
publishes, and an empty text is zeros. Decoding takes latents as they are, without Wan's factor and
offset of each channel.
"""

from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import nn
from torch.nn.functional import mse_loss

from workloads._video.video_cost import PATCH, VideoNet

TIMES = 1000
"""The net is asked for times from 0 to this."""
GUIDANCE = 5.0
"""https://huggingface.co/Wan-AI/Wan2.1-T2V-1.3B-Diffusers: guidance_scale."""


class Clips(nn.Module):
    """The net as a function of mixed latents, times and text, or of latents to decode alone."""

    def __init__(self, shape: VideoNet) -> None:
        super().__init__()
        self.transformer = WanTransformer3DModel(
            patch_size=PATCH,
            num_attention_heads=shape.heads,
            attention_head_dim=shape.head_dim,
            in_channels=shape.channels,
            out_channels=shape.channels,
            text_dim=shape.text_dim,
            freq_dim=shape.frequencies,
            ffn_dim=shape.feedforward,
            num_layers=shape.layers,
            cross_attn_norm=True,
            qk_norm="rms_norm_across_heads",
            rope_max_seq_len=max(shape.latent),
        )
        if shape.decode:
            self.decoder = AutoencoderKLWan(base_dim=shape.decoder_width, z_dim=shape.channels)
            del self.decoder.encoder, self.decoder.quant_conv
            self.decoder.requires_grad_(False)

    def forward(
        self, latents: torch.Tensor, time: torch.Tensor | None = None, text: Any = None
    ) -> Any:
        """Return the velocity BCTHW of latents BCTHW at times B with text BMD.

        Without a time: the pixels of these latents, three colours, from -1 to 1.
        """
        if time is None:
            return self.decoder.decode(latents, return_dict=False)[0]
        return self.transformer(latents, time * TIMES, text, return_dict=False)[0]


def loss(net: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the mean squared error of the velocity."""
    clip, noise, time = batch["latents"], batch["noise"], batch["time"]
    share = time[:, None, None, None, None]
    found = net((1 - share) * clip + share * noise, time, batch["text"])
    return mse_loss(found.float(), (noise - clip).float())


def make(shape: VideoNet, net: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return clips made from noise, as latents or pixels.

    They are summed in fp32, the net computes in its dtype.
    """
    noise, text = batch["noise"], batch["text"]
    clip = noise.float()
    for step in range(shape.steps, 0, -1):
        time = torch.full((len(noise),), step / shape.steps, device=noise.device)
        velocity = net(clip.to(noise.dtype), time, text).float()
        if shape.guidance:
            without = net(clip.to(noise.dtype), time, torch.zeros_like(text)).float()
            velocity = without + GUIDANCE * (velocity - without)
        clip = clip - velocity / shape.steps
    return net(clip.to(noise.dtype)) if shape.decode else clip
