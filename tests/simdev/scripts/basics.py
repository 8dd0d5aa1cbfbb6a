"""Run in a child process: what the simulated device answers, as one JSON object on stdout."""

import copy
import io
import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional


def train(device: str, *, net: nn.Module, shape: tuple[int, ...]) -> list[torch.Tensor]:
    """Two SGD steps; what remains is parameters, buffers and losses."""
    model = copy.deepcopy(net).to(device)
    source = torch.Generator().manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    losses = []
    for _ in range(2):
        batch = torch.randn(shape, generator=source).to(device)
        out = model(batch)
        loss = (out[0] if isinstance(out, tuple) else out).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return [value.cpu().float() for value in (*losses, *model.state_dict().values())]


def largest_difference(run: Callable[[str], list[torch.Tensor]]) -> float:
    host, device = run("cpu"), run("simdev")
    return max((a - b).abs().max().item() for a, b in zip(host, device, strict=True))


def report_training() -> dict[str, float]:
    torch.manual_seed(0)
    convolutions = nn.Sequential(
        nn.Conv3d(2, 4, 3, padding=1),
        nn.BatchNorm3d(4),
        nn.LeakyReLU(),
        nn.Conv3d(4, 8, 3, stride=2, padding=1),
        nn.InstanceNorm3d(8, affine=True),
        nn.ConvTranspose3d(8, 4, 2, stride=2),
        nn.GroupNorm(2, 4),
    )
    attention = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
    cases: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
        "convolutions": (convolutions, (2, 2, 8, 8, 8)),
        "linear": (nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4)), (5, 8)),
        "attention": (attention, (2, 6, 16)),
        "lstm": (nn.LSTM(4, 8, 2, bidirectional=True), (5, 3, 4)),
        "gru": (nn.GRU(4, 8), (5, 3, 4)),
    }
    return {
        name: largest_difference(partial(train, net=net, shape=shape))
        for name, (net, shape) in cases.items()
    }


def report_attention() -> dict[str, float]:
    """Scaled dot-product attention and its gradients, in the variants that Llama uses."""
    source = torch.Generator().manual_seed(3)
    query, key = (torch.randn(2, heads, 6, 8, generator=source) for heads in (4, 2))
    mask = torch.randn(2, 1, 6, 6, generator=source) > 0
    mask |= torch.eye(6, dtype=torch.bool)
    variants: dict[str, dict[str, Any]] = {
        "plain": {},
        "causal": {"is_causal": True},
        "masked": {"mask": mask},
        "half": {"is_causal": True, "dtype": torch.bfloat16},
    }

    def attend(
        device: str,
        *,
        dtype: torch.dtype = torch.float32,
        mask: torch.Tensor | None = None,
        is_causal: bool = False,
    ) -> list[torch.Tensor]:
        knobs = {"attn_mask": None if mask is None else mask.to(device), "is_causal": is_causal}
        leaves = [each.clone().to(device, dtype).requires_grad_() for each in (query, key)]
        out = functional.scaled_dot_product_attention(
            leaves[0], leaves[1], leaves[1], enable_gqa=True, **knobs
        )
        out.square().sum().backward()
        return [each.detach().cpu().float() for each in (out, leaves[0].grad, leaves[1].grad)]

    return {name: largest_difference(partial(attend, **knobs)) for name, knobs in variants.items()}


def report_operators() -> dict[str, Any]:
    """Corners of the fallback: views, resized outputs, lazy conjugation, saving, indices."""
    grid = torch.arange(12.0, device="simdev").reshape(3, 4)
    view = grid.unfold(1, 2, 1)
    view.zero_()
    resized = torch.empty(0, device="simdev")
    torch.add(torch.ones(2, 3, device="simdev"), 1, out=resized)
    spectrum = torch.fft.rfft(torch.arange(8.0, device="simdev")).conj() * 2
    saved = io.BytesIO()
    torch.save(resized, saved)
    saved.seek(0)
    counts = torch.zeros(4, device="simdev").index_add_(
        0, torch.tensor([1, 1, 3], device="simdev"), torch.ones(3, device="simdev")
    )
    norm = nn.BatchNorm1d(2).to("simdev")
    norm(torch.tensor([[1.0, 3.0], [3.0, 5.0]], device="simdev"))
    return {
        "written_through_view": grid.sum().item(),
        "resized": list(resized.shape),
        "conjugated": spectrum.cpu().imag.tolist(),
        "expected_conjugated": (-2 * torch.fft.rfft(torch.arange(8.0)).imag).tolist(),
        "loaded": str(torch.load(saved).device),
        "index_add": counts.tolist(),
        "running_mean": norm.running_mean.tolist(),
        "channels_last": grid.new_empty(1, 2, 3, 4)
        .to(memory_format=torch.channels_last)
        .relu()
        .is_contiguous(memory_format=torch.channels_last),
    }


def report_refusals() -> dict[str, str]:
    device = torch.ones(3, device="simdev")
    attempts: dict[str, Callable[[], Any]] = {
        "host_and_device": lambda: device + torch.ones(3),
        "two_devices": lambda: device + torch.ones(3, device="simdev:1"),
        "numpy": device.numpy,
        "capability": torch.accelerator.get_device_capability,
        "generator": lambda: torch.Generator(device="simdev"),
    }
    raised = {}
    for name, attempt in attempts.items():
        try:
            attempt()
        except (RuntimeError, TypeError, NotImplementedError) as error:
            raised[name] = str(error)
    return raised


if __name__ == "__main__":
    reports = (report_training, report_attention, report_operators, report_refusals)
    shown = {report.__name__.removeprefix("report_"): report() for report in reports}
    json.dump(shown, sys.stdout)
