"""The mode of a sweep over modelled links: one for all its rows, since modes are never compared.

A link is emulated where the device's timer keeps the longest collective of every row, and simulated
else, which any link can be. What a layout sends is known here as far as arithmetic goes: gradients
in buckets, or all weights at once. The messages of fsdp, tp and PowerSGD are the net's own: of them
the latency alone is sure, and whoever asks for a mode has them looked at before anything is
measured (`bench.run.session`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench.core.errors import UsageError
from bench.core.nouns import Device, Layout, Mode
from bench.core.units import format_duration
from bench.emulate.link.serial_link import DEVICE_RESOLUTION_S, HOST_RESOLUTION_S
from bench.hardware.costs.cost import model_of
from bench.parallel.support import LEAST_COMPILED_BUCKET_BYTES, parse_mitigation

NO_CLOCK = "a link is emulated on a CPU or an NVIDIA GPU"
Sent = tuple[Layout, int]
"""A layout over a modelled link, and the parameters of the net on it."""


def choose_mode(sweep: Sequence[Sent], *, device: Device) -> tuple[Mode, str]:
    """Return the mode of every modelled row where none was asked for, and why."""
    if any(layout.strategy == "pp" for layout, _ in sweep):
        return "simulated", "a pipeline is never emulated"
    if not has_clock(device):
        return "simulated", NO_CLOCK
    resolution_s = resolution_of(device)
    kept = format_duration(resolution_s)
    for layout, num_parameters in sweep:
        sure_s, _ = longest_s(layout, num_parameters=num_parameters, device=device)
        if sure_s < resolution_s:
            return "simulated", (
                f"on {layout.link} the longest collective of {sender_of(layout)} may take "
                f"{format_duration(sure_s)}, and the timer here keeps {kept}"
            )
    if all(model_of(layout.link).topology.is_infinite for layout, _ in sweep):
        return "emulated", "an infinite link takes no time that a timer would have to keep"
    return "emulated", f"each has a collective as long as the {kept} that the timer here keeps"


def is_sure(layout: Layout, *, num_parameters: int, device: Device) -> bool:
    """Whether the layout's mode is sure to show its link; `UsageError` where it is sure not to."""
    mode, link = layout.mode, layout.link
    if mode not in ("emulated", "throttled") or device.type == "fake":
        return True
    if not has_clock(device):
        raise UsageError(
            f"--mode {mode}: a link cannot be emulated on {device.label}: it takes a CPU or an "
            "NVIDIA GPU, whose clock a kernel can read; use --mode simulated"
        )
    sure_s, most_s = longest_s(layout, num_parameters=num_parameters, device=device)
    kept_s = resolution_of(device)
    if most_s is not None and most_s < kept_s:
        raise UsageError(
            f"--mode {mode} would show nothing of {link}: no collective of {sender_of(layout)} "
            f"takes more than {format_duration(most_s)}, and the timer here keeps "
            f"{format_duration(kept_s)}; use --mode simulated, or leave --mode out"
        )
    return sure_s >= kept_s


def resolution_of(device: Device) -> float:
    """Return in seconds what a collective must take to be seen on this device."""
    return HOST_RESOLUTION_S if _is_host(device) else DEVICE_RESOLUTION_S


def _is_host(device: Device) -> bool:
    return device.type in ("cpu", "fake")


def has_clock(device: Device) -> bool:
    """Whether a link can be emulated there: the host's clock, or one that a kernel can read."""
    is_amd = device.stack.startswith("ROCm") or "HIP" in device.stack
    return _is_host(device) or (device.type == "cuda" and not is_amd)


def sender_of(layout: Layout) -> str:
    """Name what communicates: `ddp with powersgd-2`."""
    return f"{layout.strategy} with {layout.mitigate}" if layout.mitigate else f"{layout.strategy}"


def longest_s(layout: Layout, *, num_parameters: int, device: Device) -> tuple[float, float | None]:
    """Return what a step's longest collective takes at least, and at most where that is known."""
    model = model_of(layout.link)
    if model.topology.is_infinite or layout.devices == 1:
        return math.inf, None  # nothing to keep: it shows what the emulation itself costs
    group = model.group_of(range(layout.tensor if layout.strategy == "tp" else layout.devices))

    def seconds(num_bytes: float) -> float:
        cost = model.cost("all_reduce", num_bytes=max(1, int(num_bytes)), group=group)
        return cost.seconds

    mitigation = parse_mitigation(layout.mitigate)
    share = 1.0 if mitigation.half is None else 0.5
    whole_bytes = 4 * num_parameters * share
    if layout.strategy in ("tp", "fsdp"):
        # A unit's weights or activations outlast an accelerator's two launches.
        sure_s = seconds(1) if _is_host(device) else math.inf
        return sure_s, None if layout.strategy == "tp" else seconds(whole_bytes)
    if mitigation.averaging is not None:
        return seconds(whole_bytes), seconds(whole_bytes)
    if mitigation.powersgd_rank is not None:
        return seconds(1), seconds(whole_bytes)
    # DDP closes its first bucket early, so that of two buckets the longer has half at least.
    bucket_bytes = min(layout.bucket_bytes * share, whole_bytes)
    first_bytes = min(bucket_bytes, LEAST_COMPILED_BUCKET_BYTES * share)
    return seconds(max(first_bytes, bucket_bytes / 2)), seconds(whole_bytes)
