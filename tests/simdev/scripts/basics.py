"""Run in a child process: what the simulated device answers, as one JSON object on stdout."""

import io
import json
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def operators() -> dict[str, Any]:
    """Corners of the fallback: views, resized outputs, lazy conjugation, saving, indices."""
    grid = torch.arange(12.0, device="simdev").reshape(3, 4)
    grid.unfold(1, 2, 1).zero_()
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
    image = grid.new_empty(1, 2, 3, 4).to(memory_format=torch.channels_last).relu()
    return {
        "written_through_view": grid.sum().item(),
        "resized": list(resized.shape),
        "conjugated": spectrum.cpu().imag.tolist(),
        "expected_conjugated": (-2 * torch.fft.rfft(torch.arange(8.0)).imag).tolist(),
        "loaded": str(torch.load(saved).device),
        "index_add": counts.tolist(),
        "running_mean": norm.running_mean.tolist(),
        "channels_last": image.is_contiguous(memory_format=torch.channels_last),
    }


def misspelt_quirk() -> None:
    import os

    os.environ["SIMDEV_QUIRKS"] = "no_flaot64"
    torch.simdev._read_quirks()


def refusals() -> dict[str, str]:
    device = torch.ones(3, device="simdev")
    attempts: dict[str, Callable[[], Any]] = {
        "host_and_device": lambda: device + torch.ones(3),
        "two_devices": lambda: device + torch.ones(3, device="simdev:1"),
        "numpy": device.numpy,
        "capability": torch.accelerator.get_device_capability,
        "generator": lambda: torch.Generator(device="simdev"),
        "quirk": misspelt_quirk,
    }
    raised = {}
    for name, attempt in attempts.items():
        try:
            attempt()
        except (RuntimeError, TypeError, ValueError) as error:
            raised[name] = str(error)
    return raised


if __name__ == "__main__":
    json.dump({"operators": operators(), "refusals": refusals()}, sys.stdout)
