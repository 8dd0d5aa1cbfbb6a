"""Run in a child process: what the simulated device refuses, as one JSON object on stdout."""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

import torch


def misspelt_quirk() -> None:
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
    json.dump(refusals(), sys.stdout)
