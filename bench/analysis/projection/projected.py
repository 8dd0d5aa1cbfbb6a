"""A measured configuration on a chip that is absent: an interval with its reasons, or why none.

Time is the measured step scaled class by class (`projection_model`), plus what does not scale: the
gaps between operators that the host leaves, and the exchange of gradients over a modelled link.
Never one number, and none at all where a peak is unknown or nothing fits into memory. Left out:
input pipelines, thermal and power limits that the achieved fractions do not hold.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from bench.analysis.projection.measured import Start
from bench.analysis.projection.memory_fit import fit
from bench.analysis.projection.roofs import Roofs, Unknown, band, catalogue_roofs
from bench.analysis.projection.sampling import Draws, Estimate, between, draws, estimate
from bench.analysis.projection.scaled_operators import ROOFS, Scaled, scale
from bench.core.nouns import Chip
from bench.hardware.costs.cost import CostModel
from bench.hardware.operators import total

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

LAUNCH_S = band(3e-6, 12e-6)
"""Host time of one eager operator that feeds an accelerator: dispatch and launch; judgement."""
GRADIENT_BYTES = 4
"""Gradients are exchanged as they are kept, in fp32."""
BACKWARD_FRACTION = 2.0 / 3.0
"""Part of a training step beside which gradients can travel: the backward pass does two of three
products (https://arxiv.org/abs/2006.15704)."""
NARROWING = {
    "shares": "an operator profile (--profile-operators), or kernels nearer to their roof",
    "explained": "an operator profile of the same net",
    "fused": "an operator profile of the same program",
    "target_matrix": "a matrix product measured on {chip}",
    "source_matrix": "a matrix product measured on the source",
    "target_memory": "a copy measured on {chip}",
    "source_memory": "a copy measured on the source",
    "on_chip": "units, clock or vector rate of {chip}, which are not published",
    "relatedness": "a measurement on a chip built like {chip}",
    "launch": "a measurement on any accelerator, for the host's time per operator",
    "link": "a measurement of overlap (bench run --devices --link)",
    "trials": "more trials of the source",
}


@dataclass(frozen=True, kw_only=True)
class Projected:
    """One configuration projected to one chip; figures of one step over all devices."""

    measured: Start
    chip: Chip
    dtype: str
    devices: int
    link: str | None
    batch: int
    """On each device."""
    time_s: Estimate
    throughput_per_s: Estimate
    binds: str
    """What most of the time rests on."""
    shares: dict[str, float]
    """Share of the time by what it rests on."""
    basis: dict[str, str]
    """What each of them rests on, in words."""
    notes: tuple[str, ...]
    narrowing: tuple[str, ...]
    """What would narrow the interval most."""


def project(
    measured: Start,
    chip: Chip,
    *,
    devices: int = 1,
    link: CostModel | None = None,
    is_explained: bool = True,
) -> Projected | Unknown:
    """Project one configuration to `devices` chips; inference runs on each by itself.

    `is_explained` finds out what would narrow the interval, which takes ten times as long.
    """
    target = catalogue_roofs(chip, dtype=measured.dtype, measured=measured.roofs)
    if isinstance(target, Unknown):
        return replace(target, workload=measured.workload)
    batch, given_up = fit(measured, chip)
    if not batch:
        return Unknown(reason=given_up, workload=measured.workload, chip=chip.id)
    step = _Step(measured=measured, target=target, batch=batch, devices=devices, link=link)
    time_s, shares, scaled = step.time(draws())
    items = measured.items_per_step * batch / measured.batch * devices
    basis = {
        "matrix": target.matrix.basis,
        "memory": target.memory.basis,
        "on chip": scaled.on_chip_words,
        "launch": "gaps between operators as measured, kept"
        if measured.roofs.kind != "cpu"
        else f"{LAUNCH_S.low * 1e6:g} to {LAUNCH_S.high * 1e6:g} us of host time per operator",
        "link": "" if link is None else f"gradients over {link.topology.name}",
    }
    notes = [scaled.relatedness_words]
    notes += [given_up] if given_up else []
    parts = chip.facts.get("torch_devices")
    if isinstance(parts, int) and parts > 1:
        notes.append(f"one package, which torch sees as {parts} devices")
    if not measured.has_profile:
        notes.append("no operator profile: from the row's FLOPs and least bytes alone, so wider")
        if measured.roofs.kind == "cpu" and target.kind != "cpu":
            notes.append(
                "without one the host's time per operator is left out: small steps flatter"
            )
    return Projected(
        measured=measured,
        chip=chip,
        dtype=target.dtype,
        devices=devices,
        link=None if link is None else link.topology.name,
        batch=batch,
        time_s=time_s,
        throughput_per_s=time_s.inverse(items),
        binds=max(shares, key=lambda name: shares[name]),
        shares=shares,
        basis={name: words for name, words in basis.items() if shares.get(name)},
        notes=tuple(notes),
        narrowing=_narrowing(step, chip, width=time_s.width) if is_explained else (),
    )


@dataclass(frozen=True, kw_only=True)
class _Step:
    """One step on the target, as a function of what is not known."""

    measured: Start
    target: Roofs
    batch: int
    devices: int
    link: CostModel | None

    def time(self, unknown: Draws) -> tuple[Estimate, dict[str, float], Scaled]:
        """Return the step's time, the mean share of it that rests on each thing, its operators'."""
        measured = self.measured
        scaled = scale(
            measured.operators,
            source=measured.roofs,
            target=self.target,
            dtype=measured.dtype,
            unknown=unknown,
        )
        device_s = (measured.step_s - measured.overhead_s) * self.batch / measured.batch
        spread = band(measured.step_spread**-0.5, measured.step_spread**0.5)
        trials = between(spread, unknown.trials)
        whole, launch, link = self._whole(device_s * scaled.ratio * trials, unknown)
        middle, _, _ = self._whole(device_s * scaled.ratio_alike, unknown)
        step_s = estimate(whole, middle=middle)
        rest = {"launch": float((launch / whole).mean()), "link": float((link / whole).mean())}
        on_device = 1.0 - sum(rest.values())
        shares = {
            name: on_device * float(share) for name, share in zip(ROOFS, scaled.shares, strict=True)
        }
        shares = {name: share for name, share in (shares | rest).items() if share > 0.0}
        return step_s, shares, scaled

    def _whole(self, device_s: Array, unknown: Draws) -> tuple[Array, Array, Array]:
        """Whole step, and the parts of it that are the host's and the link's."""
        measured = self.measured
        launch = np.full_like(device_s, measured.overhead_s)
        if measured.roofs.kind == "cpu" and self.target.kind != "cpu":
            # The host queues ahead of the device; the slower of the two decides.
            host_s = total(measured.operators, "calls") * between(LAUNCH_S, unknown.launch)
            launch = np.maximum(0.0, host_s - device_s)
        link = self._exposed(device_s, unknown)
        return device_s + launch + link, launch, link

    def _exposed(self, device_s: Array, unknown: Draws) -> Array:
        """Time that gradients take beyond what backward can hide, from all hidden to none."""
        measured = self.measured
        if self.link is None or self.devices < 2 or not measured.is_training:
            return np.zeros_like(device_s)
        cost = self.link.cost(
            "all_reduce",
            num_bytes=GRADIENT_BYTES * (measured.num_parameters or 0),
            group=self.link.group_of(range(self.devices)),
        )
        whole = between(band(max(cost.low_s, 1e-12), max(cost.high_s, 1e-12)), unknown.link)
        hidden = np.maximum(0.0, whole - BACKWARD_FRACTION * device_s)
        exposed: Array = hidden + (whole - hidden) * unknown.link
        return exposed


def _narrowing(step: _Step, chip: Chip, *, width: float, most: int = 2) -> tuple[str, ...]:
    """Name the unknowns without which the interval would be narrowest."""
    gains = {}
    for name in NARROWING:
        held = draws().without(name)
        gains[name] = width / step.time(held)[0].width
    ranked = sorted(gains, key=lambda name: -gains[name])
    return tuple(
        f"{NARROWING[name].format(chip=chip.id)} (x{width:.2f} to x{width / gains[name]:.2f})"
        for name in ranked[:most]
        if gains[name] > 1.01
    )
