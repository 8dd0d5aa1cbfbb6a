"""A measured configuration on a chip that is absent: an interval with its reasons, or why none.

Time is the measured step scaled class by class (`scaled_operators`), plus what does not scale: the
gaps between operators that the host leaves, and the exchange of gradients over a modelled link.
Never one number, and none at all where a peak is unknown or nothing fits into memory. The peak of
memory is split into what does not grow with the batch (weights, gradients, moments) and what does.
Left out: input pipelines, thermal and power limits that the achieved fractions do not hold.
"""

from dataclasses import dataclass, replace

import numpy as np

from bench.analysis.projection.exchange import exchange_s, exposed_s
from bench.analysis.projection.measured import Start
from bench.analysis.projection.roofs import (
    NARROWER_DTYPE,
    Estimate,
    RateSpan,
    Roofs,
    Unknown,
    band,
    catalogue_roofs,
)
from bench.analysis.projection.scaled_operators import (
    NUM_DRAWS,
    ROOFS,
    Array,
    Draws,
    Scaled,
    between,
    draws,
    estimate,
    scale,
)
from bench.core.nouns import DTYPE_BYTES, Chip
from bench.core.units import format_bytes
from bench.hardware.costs.cost import CostModel
from bench.hardware.operators import load_mixes, total

LAUNCH_S = band(3e-6, 12e-6)
"""Host time of one eager operator that feeds an accelerator: dispatch and launch; judgement."""
CALLS_SPREAD = 10.0
"""Operators of a step that nobody counted: so many times fewer or more than those of the shipped
sizes of its workload, else of all of them, and no more than its host had time for; judgement."""
HOST_SPREAD = 1.5
"""How many times faster or slower another host may queue the same steps; judgement."""
USABLE_FRACTION = 0.93
"""Firmware, error correction and context take up to 7 %, as in `bench.hardware.chips`."""
TRAINED_BYTES = 16
"""fp32 weight, gradient and two moments of one parameter."""
NARROWING = {
    "shares": "an operator profile (--profile-operators)",
    "explained": "an operator profile of the same net",
    "fused": "a run in the dtype asked for",
    "target_matrix": "a matrix product measured on {chip}",
    "source_matrix": "a matrix product measured on the source",
    "target_memory": "a copy measured on {chip}",
    "source_memory": "a copy measured on the source",
    "on_chip": "the clock that {chip} holds, or the bandwidth of its cache",
    "server": "a measurement on the server that is meant",
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

    def training_s(self, steps: float | None) -> Estimate | None:
        """Time of a training of so many steps as measured, whatever batch and devices it has."""
        if steps is None or not self.measured.is_training:
            return None
        return self.throughput_per_s.inverse(steps * self.measured.items_per_step)


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
    batch, given_up = _fit(measured, chip)
    if not batch:
        return Unknown(reason=given_up, workload=measured.workload, chip=chip.id)
    step = _Step(measured=measured, target=target, batch=batch, devices=devices, link=link)
    time_s, shares, scaled = step.time(draws())
    is_fed = measured.roofs.kind == "cpu"
    gaps = "measured, kept" if measured.has_times else "nobody measured them"
    basis = {
        "matrix": target.matrix.basis,
        "memory": target.memory.basis,
        "on chip": scaled.on_chip_words,
        "launch": f"{LAUNCH_S.low * 1e6:g} to {LAUNCH_S.high * 1e6:g} us an operator"
        if is_fed
        else f"sets the pace, x{HOST_SPREAD:g} either way"
        if measured.is_host_bound
        else f"leaves gaps between operators: {gaps}",
        "link": "" if link is None else f"gradients over {link.topology.name}",
    }
    no_count = (
        f"nobody counted them either: {CALLS_SPREAD:g} times fewer or more than in a shipped size, "
        f"up to one in {LAUNCH_S.low * 1e6:g} us of the measured step"
    )
    paced = "the host set the pace (host_bound): a faster device alone would not be faster"
    notes = {
        scaled.relatedness_words: True,
        measured.recast: measured.recast != "",
        given_up: given_up != "",
        f"one package, which torch sees as {_parts(chip)} devices": _parts(chip) > 1,
        "nobody profiled its operators: from FLOPs and least bytes of the row, so wider": (
            not measured.has_profile
        ),
        no_count: step.calls is not None and not measured.has_profile,
        paced: measured.is_host_bound,
    }
    return Projected(
        measured=measured,
        chip=chip,
        dtype=target.dtype,
        devices=devices,
        link=None if link is None else link.topology.name,
        batch=batch,
        time_s=time_s,
        throughput_per_s=time_s.inverse(measured.items_per_step * batch / measured.batch * devices),
        binds=max(shares, key=lambda name: shares[name]),
        shares=shares,
        basis={name: words for name, words in basis.items() if shares.get(name)},
        notes=tuple(note for note, is_true in notes.items() if is_true),
        narrowing=_narrowing(step, chip, width=time_s.width) if is_explained else (),
    )


def _parts(chip: Chip) -> int:
    parts = chip.facts.get("torch_devices")
    return max(parts, 1) if isinstance(parts, int) else 1


def _fit(measured: Start, chip: Chip) -> tuple[int, str]:
    """Largest batch up to the measured one that fits, 0 where none does, and what was given up."""
    if chip.memory_bytes is None:
        return measured.batch, "its memory size is not known: whether it fits, too"
    if measured.memory_bytes is None:
        return measured.batch, "the memory it needs was not measured"
    usable = chip.memory_bytes / _parts(chip) * USABLE_FRACTION
    wider = DTYPE_BYTES[measured.dtype] / DTYPE_BYTES[measured.roofs.dtype]
    need = measured.memory_bytes * max(1.0, wider)
    if need <= usable:
        return measured.batch, ""
    per_parameter = TRAINED_BYTES if measured.is_training else DTYPE_BYTES[measured.dtype]
    fixed = min(need, per_parameter * (measured.num_parameters or 0.0))
    each = (need - fixed) / measured.batch
    batch = int((usable - fixed) / each) if each > 0.0 else 0
    reported = f"{format_bytes(need)} at batch {measured.batch}, {format_bytes(usable)} usable"
    if batch < 1:
        return 0, f"not even batch 1 fits: {reported}"
    return min(batch, measured.batch), f"batch {batch} fits: {reported}"


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
        gaps_s = np.full(NUM_DRAWS, measured.overhead_s)
        if not measured.has_profile:
            unknown = unknown.unprofiled()
        if not measured.has_times and measured.roofs.kind != "cpu":
            gaps_s = unknown.division[:, 3] * (measured.step_s - measured.least_busy_s)
        device_s = measured.step_s - gaps_s
        scaled = scale(
            measured.operators,
            source=measured.roofs,
            target=self.target,
            dtype=measured.dtype,
            unknown=unknown,
            busy_frac=1.0 if measured.has_times else device_s / measured.step_s,
        )
        device_s = device_s * self.batch / measured.batch
        spread = band(measured.step_spread**-0.5, measured.step_spread**0.5)
        trials = between(spread, unknown.trials)
        if measured.recast:
            trials *= between(band(1.0 / NARROWER_DTYPE, NARROWER_DTYPE), unknown.fused)
        strayed_s = gaps_s if measured.has_times else gaps_s * scaled.ratio / scaled.ratio_alike
        whole, launch, link = self._whole(device_s * scaled.ratio * trials, strayed_s, unknown)
        middle, _, _ = self._whole(device_s * scaled.ratio_alike, gaps_s, unknown)
        rest = {"launch": float((launch / whole).mean()), "link": float((link / whole).mean())}
        on_device = (1.0 - sum(rest.values())) * scaled.shares
        shares = {**dict(zip(ROOFS, map(float, on_device), strict=True)), **rest}
        shares = {name: share for name, share in shares.items() if share > 0.0}
        return estimate(whole, middle=middle), shares, scaled

    @property
    def calls(self) -> RateSpan | None:
        """Operators that the target's host queues in a step; None where it queues none."""
        measured = self.measured
        if measured.roofs.kind != "cpu" or self.target.kind == "cpu":
            return None
        if measured.has_profile:
            return band(max(1.0, total(measured.operators, "calls")))
        mixes = load_mixes()
        alike = [mix for mix in mixes if f"{mix.workload}-{mix.phase}" == measured.workload]
        ends = [total(mix.operators, "calls") for mix in alike or mixes]
        most = min(max(ends) * CALLS_SPREAD, measured.step_s / LAUNCH_S.low)
        return band(min(min(ends), most) / CALLS_SPREAD, most)

    def _whole(self, device_s: Array, gaps_s: Array, unknown: Draws) -> tuple[Array, Array, Array]:
        """Whole step, and the parts of it that are the host's and the link's."""
        host_s = None
        # The host queues ahead of the device; the slower of the two decides.
        if (calls := self.calls) is not None:
            host_s = between(calls, unknown.calls) * between(LAUNCH_S, unknown.launch)
        elif self.measured.is_host_bound:
            spread = band(1.0 / HOST_SPREAD, HOST_SPREAD)
            host_s = self.measured.step_s * between(spread, unknown.launch)
        launch = gaps_s if host_s is None else np.maximum(0.0, host_s - device_s)
        link = self._exposed(device_s, unknown)
        return device_s + launch + link, launch, link

    def _exposed(self, device_s: Array, unknown: Draws) -> Array:
        """Time that gradients take beyond what backward can hide, from all hidden to none."""
        measured = self.measured
        if self.link is None or self.devices < 2 or not measured.is_training:
            return np.zeros_like(device_s)
        parameters = measured.num_parameters or 0
        whole_s = exchange_s(
            self.link, parameters=parameters, devices=self.devices, unknown=unknown
        )
        return exposed_s(device_s, whole_s=whole_s, unknown=unknown)


def _narrowing(step: _Step, chip: Chip, *, width: float) -> tuple[str, ...]:
    """Name the two unknowns without which the interval would be narrowest."""
    widths = {name: step.time(draws().without(name))[0].width for name in NARROWING}
    ranked = sorted(widths, key=lambda name: widths[name])
    return tuple(
        f"{NARROWING[name].format(chip=chip.id)} (x{width:.3g} wide to x{widths[name]:.3g})"
        for name in ranked[:2]
        if width / widths[name] > 1.01
    )
