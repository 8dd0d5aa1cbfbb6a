"""In which order each device of a pipeline runs its forward and backward passes.

GPipe (arXiv 1811.06965) runs all forwards, then all backwards. 1F1B (PipeDream-Flush, arXiv
2006.09503) runs a backward as soon as it can, which frees activations earlier and leaves the same
bubble. The interleaved schedule of Megatron-LM (arXiv 2104.04473, section 2.2) gives each device V
chunks of the net and divides the bubble by V, for V times the messages.
"""

import re
from typing import NamedTuple

from bench.core.errors import UsageError
from bench.core.nouns import Layout


class Task(NamedTuple):
    """One pass of one micro-batch through one stage; stage s lies on device s modulo devices."""

    is_forward: bool
    micro_batch: int
    stage: int


def parse_schedule(text: str) -> tuple[str, int]:
    """Return kind and chunks of the net on one device: of 'gpipe', '1f1b' or 'interleaved-V'.

    Raises `UsageError` for anything else.
    """
    if text in ("gpipe", "1f1b"):
        return text, 1
    match = re.fullmatch(r"interleaved-([0-9]{1,3})", text)
    if match is None or int(match[1]) < 2:
        raise UsageError(
            f"schedule {text!r} is not one of gpipe, 1f1b, interleaved-V with V from 2 on, "
            "such as interleaved-2"
        )
    return "interleaved", int(match[1])


def check_pipeline(layout: Layout) -> None:
    """Raise `UsageError` in one line when this pipeline cannot be simulated from whole stages."""
    kind, _ = parse_schedule(layout.schedule)
    if layout.tensor > 1:
        raise UsageError(
            f"--tp {layout.tensor} inside --pp is not simulated: stages are measured whole on one "
            "device, and a part of one would be guessed; use --tp 1"
        )
    if kind == "interleaved" and layout.grad_accum % layout.pipeline:
        nearest = max(1, round(layout.grad_accum / layout.pipeline)) * layout.pipeline
        raise UsageError(
            f"the interleaved schedule needs micro-batches in multiples of the {layout.pipeline} "
            f"stages, not {layout.grad_accum}; use --grad-accum {nearest}"
        )


def pipeline_note(layout: Layout) -> str | None:
    """Return a line for the user when there are fewer micro-batches than stages."""
    if layout.grad_accum >= layout.pipeline:
        return None
    return (
        f"{layout.grad_accum} micro-batches cannot keep {layout.pipeline} stages busy: "
        f"most of the step is bubble; use --grad-accum {4 * layout.pipeline}"
    )


def num_stages(layout: Layout) -> int:
    """Return into how many stages the net is cut: devices times chunks."""
    return layout.pipeline * parse_schedule(layout.schedule)[1]


def device_tasks(layout: Layout, *, device: int) -> list[Task]:
    """Return what one device runs, in order.

    ValueError for the interleaved schedule when the micro-batches are no multiple of the devices.
    """
    num_devices = layout.pipeline
    kind, chunks = parse_schedule(layout.schedule)
    if kind == "interleaved" and layout.grad_accum % num_devices:
        raise ValueError("interleaving needs a multiple of the devices as micro-batches")
    total = layout.grad_accum * chunks
    # Forwards before the first backward; interleaved as in Megatron-LM:
    # https://github.com/NVIDIA/Megatron-LM/blob/main/megatron/core/pipeline_parallel/schedules.py
    before = num_devices - device - 1
    if kind == "interleaved":
        before = 2 * before + (chunks - 1) * num_devices
    before = total if kind == "gpipe" else min(before, total)
    forwards, backwards = (
        [
            _task(index, is_forward=is_forward, chunks=chunks, of=(device, num_devices))
            for index in range(total)
        ]
        for is_forward in (True, False)
    )
    tasks = forwards[:before]
    for forward, backward in zip(forwards[before:], backwards, strict=False):
        tasks += (forward, backward)
    return tasks + backwards[total - before :]


def _task(index: int, *, is_forward: bool, chunks: int, of: tuple[int, int]) -> Task:
    """Return a device's pass number `index`: micro-batches go in rounds of as many as devices.

    A round runs through the first chunk, then through the second; backward from the last one.
    """
    device, num_devices = of
    if chunks == 1:
        return Task(is_forward, index, device)
    rounds, within = divmod(index, num_devices * chunks)
    chunk, member = divmod(within, num_devices)
    if not is_forward:
        chunk = chunks - 1 - chunk
    return Task(is_forward, rounds * num_devices + member, chunk * num_devices + device)
