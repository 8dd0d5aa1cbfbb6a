"""As many accelerators as a rank's node would have, of which the first is real.

Programs ask how many there are to know how many ranks to start, and for each one's name. What
torch itself asks is answered truly: it makes a context or a generator for each.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import torch


def show_devices(num_devices: int) -> None:
    """Have torch answer the program that there are so many accelerators, where there is one."""
    accelerator = torch.accelerator.current_accelerator()
    if accelerator is None:
        return
    module: Any = torch.get_device_module(accelerator.type)
    count_real = module.device_count  # asked later: to ask makes a context on some, and forks fail
    for owner in (module, torch.accelerator):
        _show_count(owner, num_devices)
    if hasattr(module, "get_device_properties"):
        _show_properties(module, count_real)


def _show_count(owner: Any, num_devices: int) -> None:
    count = owner.device_count

    @functools.wraps(count)
    def device_count() -> int:
        asker = str(sys._getframe(1).f_globals.get("__name__", ""))
        return int(count()) if asker.partition(".")[0] == "torch" else num_devices

    owner.device_count = device_count


def _show_properties(module: Any, count_real: Callable[[], int]) -> None:
    properties = module.get_device_properties

    @functools.wraps(properties)
    def of_device(device: Any = None, *args: Any) -> Any:
        index = device if isinstance(device, int) else getattr(device, "index", None)
        return properties(device if (index or 0) < count_real() else 0, *args)

    module.get_device_properties = of_device
