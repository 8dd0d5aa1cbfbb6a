"""Puts a net on its device with shared weights still shared.

`Module.to` keeps a parameter that two modules share (tied embeddings) shared only between the
backends that torch ships: elsewhere each module gets one of its own, and gradient, optimizer state
and memory are another net's. What is shared is looked up by name before the move and joined after.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn


def place_net(net: nn.Module, *, device: torch.device) -> nn.Module:
    """Move the net; modules that shared a parameter share it afterwards."""
    groups = _shared_names(net)
    placed = net.to(device)
    for first, *others in groups:
        parameter = placed.get_parameter(first)
        for name in others:
            module, _, attribute = name.rpartition(".")
            setattr(placed.get_submodule(module), attribute, parameter)
    return placed


def _shared_names(net: nn.Module) -> list[list[str]]:
    """Return the names of each parameter that has several."""
    names: dict[int, list[str]] = {}
    for name, parameter in net.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return [group for group in names.values() if len(group) > 1]
