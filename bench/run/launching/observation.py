"""Run one trial with somebody watching: telemetry and processor, before, during and after.

Energy, heat, clocks, memory on the device and what else used the processor, all of the measured
window, become columns and reasons here; the trial itself shows the rest (`bench.measure`). A reason
comes from these conditions alone, never from how long the steps took.
"""

from __future__ import annotations

import functools
import os
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import msgspec

from bench.core.nouns import Device
from bench.devices.host.cpu_noise import CpuSnapshot, cpu_noise, take_snapshot
from bench.devices.host.foreign_load import load_between, look
from bench.devices.telemetry.bounds import refusals
from bench.devices.telemetry.common import Baseline, Sample, Telemetry, is_in_use
from bench.devices.telemetry.readers import open_telemetry
from bench.devices.telemetry.sampler import Sampler
from bench.devices.telemetry.window_sums import Conditions, window_conditions, window_energy
from bench.measure.messages import News, ServedSoFar, Stage, TrialRequest, TrialResult
from bench.measure.timing import validity
from bench.results.beside_rows import KEYS, append_samples
from bench.results.schema import Row
from bench.run.launching.child import OnMessage, Outcome
from bench.run.launching.launch import run_trial
from bench.run.launching.torchrun import sibling_pids

_SETTLE_S = 2.0
_SETTLE_PAUSE_S = 0.2


@dataclass(kw_only=True)
class Observation:
    """What the parent saw while the trial ran."""

    sampler: Sampler | None = None
    scope: str = ""
    before: Baseline | None = None
    after: Baseline | None = None
    stage_times_s: dict[str, float] = field(default_factory=dict)
    """Monotonic time at which each stage began."""
    looks: list[CpuSnapshot] = field(default_factory=list)
    """At the processes of the machine: before the warm-up, and when the trial has ended."""
    requests: dict[str, list[dict[str, float | int | str]]] = field(default_factory=dict)
    """Requests that ended, by how they came: of each live run of a served trial."""
    live: dict[str, Row] = field(default_factory=dict)
    """What each came to."""
    idle_power_w: float | None = None
    """As an earlier trial of the run found it; such a trial does not rest for it again."""


def run_watched(
    request: TrialRequest,
    *,
    device: Device,
    timeout_s: float,
    observation: Observation,
    on_message: OnMessage,
) -> Outcome:
    """Run the trial and fill the observation; nothing is watched where its device is not here."""
    is_here = device.is_here
    telemetry = open_telemetry(device) if is_here else None
    # Other ranks of a torchrun job compute here too, and are not foreign.
    siblings = sibling_pids(os.environ) if is_here else []

    def on_start(pid: int) -> None:
        if is_here:
            snapshot = functools.partial(take_snapshot, siblings=siblings)
            observation.sampler = Sampler(telemetry, pid=pid, snapshot=snapshot)
            observation.sampler.start()

    def note_stage(message: News) -> None:
        if isinstance(message, Stage):
            observation.stage_times_s[message.name] = time.monotonic()
            if message.name == "warmup" and is_here:  # the window is still to come
                observation.looks.append(look(siblings=siblings))
        if isinstance(message, ServedSoFar):
            observation.requests.setdefault(message.arrivals, []).extend(message.requests)
            observation.live.setdefault(message.arrivals, {}).update(message.columns)
        on_message(message)

    with ExitStack() as stack:
        if telemetry is not None:
            stack.callback(telemetry.close)
            observation.scope, observation.before = telemetry.scope, _rest_of(telemetry)
        try:
            outcome = run_trial(
                request, timeout_s=timeout_s, on_start=on_start, on_message=note_stage
            )
        finally:
            if observation.sampler is not None:
                observation.sampler.stop()
        if observation.looks:
            observation.looks.append(look(siblings=siblings))
        if telemetry is not None:
            observation.after = telemetry.baseline()
        return outcome


def _rest_of(telemetry: Telemetry) -> Baseline:
    """Read the device before a trial; once more, for up to `_SETTLE_S`, while it looks in use.

    The trial before shows for a while: drivers tell the load of the last second, and a process's
    memory is given back after it has ended.
    """
    deadline_s = time.monotonic() + _SETTLE_S
    rest = telemetry.baseline()
    while is_in_use(rest) and time.monotonic() < deadline_s:
        time.sleep(_SETTLE_PAUSE_S)
        rest = telemetry.baseline()
    return rest


def keep_samples(path: Path, row: Row, outcome: Outcome, observation: Observation) -> None:
    """Add a measured trial's steps and telemetry to the run's samples."""
    result, sampler = outcome.result, observation.sampler
    if not isinstance(result, TrialResult):
        return
    record = {
        **{key: row[key] for key in KEYS},
        "window_start_s": result.window_start_s,
        "window_end_s": result.window_end_s,
        "stage_times_s": observation.stage_times_s,
        **msgspec.to_builtins(result.samples),
        "telemetry": None if sampler is None else [_kept(one) for one in sampler.samples],
    }
    append_samples(path, record)


def keep_requests(path: Path, row: Row, observation: Observation) -> None:
    """Add a trial's requests to the run's, those that an interrupted one served too."""
    for arrivals, requests in observation.requests.items():
        run = {key: row[key] for key in KEYS} | observation.live[arrivals]
        append_samples(path, {**run, "arrivals": arrivals, "requests": requests})


def _kept(sample: Sample) -> dict[str, object]:
    kept = asdict(sample) | {"throttle_reasons": sorted(sample.throttle_reasons or ())}
    del kept["utilization_frac"], kept["refused"]
    return kept


def observed_columns(
    observation: Observation,
    *,
    row: Row,
    result: TrialResult,
    usable_cores: int,
    has_energy: bool,
) -> tuple[Row, list[str]]:
    """Return energy, conditions and noise of the window, and the reasons that follow from them.

    `detail` among them names who else used the processor, and what the driver gave that cannot be.
    `result` is what the trial reported, `row` what of it is known so far. Without `has_energy` the
    power that was sampled is not that of the row's window, and has no columns.
    """
    assert observation.sampler is not None, "the trial was watched"
    start_s, end_s = result.window_start_s, result.window_end_s
    samples = observation.sampler.samples
    noise = cpu_noise(
        observation.sampler.snapshots, start_s=start_s, end_s=end_s, num_cores=usable_cores
    )
    columns: Row = asdict(noise)
    reasons: list[str] = []
    notes = refusals([observation.before] if observation.before else []) + refusals(samples)
    if "smoke" not in result.reasons:
        reasons += validity.cpu_reasons(
            foreign_frac=noise.foreign_cpu_frac, steal_frac=noise.steal_frac
        )
    if len(observation.looks) > 1 and any(one.startswith("foreign_cpu") for one in reasons):
        notes.append(f"busiest other program: {load_between(*observation.looks).words}")
    if samples:
        if has_energy:
            idle_w = idle_power_w(samples, observation.stage_times_s)
            energy = window_energy(
                samples,
                start_s=start_s,
                end_s=end_s,
                idle_power_w=observation.idle_power_w if idle_w is None else idle_w,
                scope=observation.scope,
            )
            columns |= asdict(energy)
            del columns["is_unvalidated"], columns["counter_problem"]
            reasons += ["energy_unvalidated"] if energy.is_unvalidated else []
            notes += [energy.counter_problem] if energy.counter_problem else []
            items = row.get("items")
            # What was sampled is one device; the items of several are not its own.
            if row.get("parallel") is None and energy.energy_j is not None and items:
                columns["energy_per_item_j"] = energy.energy_j / int(items)
        conditions = window_conditions(samples, start_s=start_s, end_s=end_s)
        columns |= asdict(conditions)
        del columns["power_brake_frac"]
        columns["throttle_reasons"] = ";".join(conditions.throttle_reasons) or None
        reasons += _throttle_reasons(conditions, observation, window_s=end_s - start_s)
    device_columns, device_reasons = _device_columns(samples, observation)
    columns["detail"] = "; ".join(notes) or None
    return columns | device_columns, reasons + device_reasons


def _throttle_reasons(
    conditions: Conditions, observation: Observation, *, window_s: float
) -> list[str]:
    """Judge slow-downs from the samples, and from the driver's counter of what they missed."""
    limit = validity.THROTTLE_INVALID_FRAC
    if (conditions.power_brake_frac or 0.0) > limit:
        return ["power_brake"]
    bases = (observation.before, observation.after)
    hot_s = [base.hot_s for base in bases if base is not None and base.hot_s is not None]
    # A counter that was reset meanwhile has fallen.
    is_hot = len(hot_s) == 2 and hot_s[1] - hot_s[0] > limit * window_s
    return ["thermal_throttle"] if is_hot or (conditions.throttle_frac or 0.0) > limit else []


def idle_power_w(samples: list[Sample], stage_times_s: dict[str, float]) -> float | None:
    """Mean power while the trial sat idle with its context open; None when it did not."""
    start_s, end_s = stage_times_s.get("idle"), stage_times_s.get("check")
    if start_s is None or end_s is None:
        return None
    # The first second still has the context's creation in it.
    return window_energy(
        samples, start_s=start_s + 1.0, end_s=end_s, idle_power_w=None, scope=""
    ).power_mean_w


def _device_columns(samples: list[Sample], observation: Observation) -> tuple[Row, list[str]]:
    before, after = observation.before, observation.after
    if before is None:
        return {}, []
    used_bytes = [one.used_bytes for one in samples if one.used_bytes is not None]
    columns: Row = {"power_limit_w": before.power_limit_w, "driver_version": before.driver_version}
    reasons = ["foreign_gpu"] if is_in_use(before) else []
    # Where others gave memory back meanwhile, what the trial took is not known.
    if used_bytes and before.used_bytes is not None and max(used_bytes) > before.used_bytes:
        columns["mem_device_peak_bytes"] = max(used_bytes) - before.used_bytes
    if after is None:
        return columns, reasons
    if before.ecc_uncorrected is not None and after.ecc_uncorrected is not None:
        errors = after.ecc_uncorrected - before.ecc_uncorrected
        # A counter that a reset of the driver set back counted nothing.
        columns["ecc_uncorrected"] = errors if errors >= 0 else None
        reasons += ["ecc"] if errors > 0 else []
    reasons += ["device_changed"] if before.power_limit_w != after.power_limit_w else []
    return columns, reasons
