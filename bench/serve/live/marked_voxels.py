"""Does a segmentation mark the same voxels as in eager fp32? Their Dice says so.

Held against it are the same weights and requests, one at a time, on the same device. Weights are
random, so this says what the precision and the compiler change, and not whether a mask is right.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from bench.core.units import counted
from bench.devices.torch.torch_adapter import is_out_of_memory
from bench.measure.engine.correctness import TOLERANCE_FRAC
from bench.measure.timing.validity import Problems
from bench.serve.live.serving_engine import ServingEngine

Masks = Mapping[int, torch.Tensor]
"""By the place of the request."""


def mask_of(engine: ServingEngine, output: Any) -> torch.Tensor | None:
    """Return the class of each voxel of an output; None where nothing is segmented.

    Nor in eager fp32, which is what it would be held against.
    """
    config = engine.config
    if config.dtype == "fp32" and not config.compile:
        return None
    mask: torch.Tensor | None = engine.workload.mask(engine.phase, output)
    return mask


def dice_of(masks: Masks, expected: Masks) -> float | None:
    """Return the Dice of two sets of masks over all classes but 0; None where both mark nothing.

    Voxels of all classes and masks are pooled: of a class with twenty voxels rounding moves many.
    """
    both = marked = 0
    for place, mask in masks.items():
        other = expected[place]
        both += int(((mask == other) & (mask > 0)).sum())
        marked += int((mask > 0).sum()) + int((other > 0).sum())
    return 2.0 * both / marked if marked else None


def mask_problems(engine: ServingEngine, masks: Masks) -> Problems:
    """Return the Dice of the masks of these requests in words, and whether it is too low.

    Of logits off by a part e of their norm about e / 2 of the voxels change class (measured), so a
    Dice under 1 - e is that of logits which are further off than the dtype's tolerance allows.
    """
    if not masks:
        return []
    try:
        expected = {
            place: mask.cpu()
            for place, output in engine.plain_outputs(masks)
            if (mask := engine.workload.mask(engine.phase, output)) is not None
        }
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return [("", "there was no memory to hold the masks against fp32")]
    dice, least = dice_of(masks, expected), 1.0 - TOLERANCE_FRAC[engine.config.dtype]
    if dice is None:
        return [("", "there is no Dice against fp32: no voxel is marked")]
    words = f"Dice {dice:.3g} against fp32 over {counted(len(masks), 'request')}"
    if dice >= least:
        return [("", words)]
    return [("wrong_output", f"{words}, at least {least:.3g}")]
