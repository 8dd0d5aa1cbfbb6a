"""Run in a child process: MONAI's DynUNet and transformers' Llama on `simdev` against the CPU.

Prints one JSON object: per case the losses on both devices and the largest difference of what the
case leaves behind (parameters, logits, tokens). Both devices start from the same seeds, and all
random numbers are drawn on the CPU.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from monai.inferers import sliding_window_inference
from monai.losses import DiceCELoss
from monai.networks.nets import DynUNet
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, StaticCache

CONFIG = LlamaConfig(
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=256,
    max_position_embeddings=128,
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a case leaves behind, on the CPU."""

    losses: list[float]
    values: torch.Tensor
    tokens: list[int]


def flatten(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.detach().float().cpu().flatten() for tensor in tensors])


def make_unet() -> DynUNet:
    torch.manual_seed(0)
    return DynUNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=3,
        kernel_size=[3, 3, 3],
        strides=[1, 2, 2],
        upsample_kernel_size=[2, 2],
        filters=[4, 8, 16],
        norm_name=("INSTANCE", {"affine": True}),
        deep_supervision=True,
        deep_supr_num=1,
    )


def segment(device: str, *, dtype: torch.dtype | None) -> Outcome:
    """Two SGD steps, then a sliding-window inference of a larger volume."""
    net = make_unet().to(device).train()
    source = torch.Generator().manual_seed(1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.99, nesterov=True)
    criterion = DiceCELoss(to_onehot_y=True, softmax=True)
    scaler = torch.amp.GradScaler(device, enabled=dtype == torch.float16)
    losses = []
    for _ in range(2):
        image = torch.randn(2, 1, 16, 16, 16, generator=source).to(device)
        label = torch.randint(0, 3, (2, 1, 16, 16, 16), generator=source).to(device)
        with torch.autocast(device, dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            heads = torch.unbind(net(image), dim=1)
        loss = torch.stack([criterion(head.float(), label) for head in heads]).sum()
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(net.parameters(), 12)
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    volume = torch.randn(1, 1, 24, 20, 20, generator=source).to(device)
    with torch.inference_mode():
        scores = sliding_window_inference(
            volume, (16, 16, 16), 2, net.eval(), overlap=0.5, mode="gaussian"
        )
    return Outcome(losses=losses, values=flatten([*net.parameters(), scores]), tokens=[])


def generate(
    model: Callable[..., Any], *, prompt: torch.Tensor, cache: Any
) -> tuple[list[torch.Tensor], list[int]]:
    """Prefill, then four greedy decode steps."""
    logits, tokens = [], []
    ids = prompt
    with torch.inference_mode():
        for _ in range(5):
            out = model(input_ids=ids, past_key_values=cache, use_cache=True)
            ids = out.logits[:, -1:].argmax(-1)
            logits.append(out.logits)
            tokens.extend(ids.flatten().tolist())
    return logits, tokens


def speak(device: str, *, is_static: bool, optimizer_name: str, is_compiled: bool) -> Outcome:
    """Two training steps, then prefill and decode."""
    torch.manual_seed(0)
    net = LlamaForCausalLM(CONFIG).to(device)
    source = torch.Generator().manual_seed(1)
    optimizer = {
        "sgd": lambda: torch.optim.SGD(net.parameters(), lr=0.1),
        "adamw": lambda: torch.optim.AdamW(net.parameters(), lr=1e-3),
        "adamw_fused": lambda: torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True),
    }[optimizer_name]()
    model = torch.compile(net, backend="eager") if is_compiled else net
    losses = []
    for _ in range(2):
        ids = torch.randint(0, 256, (2, 32), generator=source).to(device)
        loss = model(input_ids=ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    net.eval()
    prompt = torch.randint(0, 256, (2, 16), generator=source).to(device)
    cache = StaticCache(config=CONFIG, max_cache_len=32) if is_static else DynamicCache()
    logits, tokens = generate(model, prompt=prompt, cache=cache)
    return Outcome(losses=losses, values=flatten(logits), tokens=tokens)


def compare(run: Callable[..., Outcome], **knobs: Any) -> dict[str, Any]:
    host = run("cpu", **{**knobs, **({"is_compiled": False} if "is_compiled" in knobs else {})})
    device = run("simdev", **knobs)
    return {
        "host_losses": host.losses,
        "losses": device.losses,
        "largest_difference": (host.values - device.values).abs().max().item(),
        "is_same_text": host.tokens == device.tokens,
    }


def cases(only: str) -> dict[str, Callable[[], dict[str, Any]]]:
    imaging = {
        "unet_fp32": lambda: compare(segment, dtype=None),
        "unet_bf16": lambda: compare(segment, dtype=torch.bfloat16),
        "unet_fp16": lambda: compare(segment, dtype=torch.float16),
    }
    text = {
        f"llama_{name}": lambda knobs=knobs: compare(speak, **knobs)
        for name, knobs in {
            "dynamic": dict(is_static=False, optimizer_name="sgd", is_compiled=False),
            "static": dict(is_static=True, optimizer_name="adamw", is_compiled=False),
            "fused": dict(is_static=True, optimizer_name="adamw_fused", is_compiled=False),
            "compiled": dict(is_static=True, optimizer_name="sgd", is_compiled=True),
        }.items()
    }
    return {name: case for name, case in {**imaging, **text}.items() if name.startswith(only)}


if __name__ == "__main__":
    only = sys.argv[1] if len(sys.argv) > 1 else ""
    json.dump({name: case() for name, case in cases(only).items()}, sys.stdout)
