"""Run one trial with somebody watching: telemetry and processor, before, during and after."""

from __future__ import annotations

import functools
import os
import time
from pathlib import Path

import msgspec

from bench.core.nouns import Device
from bench.devices.host.cpu_noise import take_snapshot
from bench.devices.telemetry.common import Baseline, Telemetry, is_in_use
from bench.devices.telemetry.readers import open_telemetry
from bench.devices.telemetry.sampler import Sampler
from bench.measure.messages import Stage, StepsSoFar, TrialRequest, TrialResult
from bench.results.samples import append_samples
from bench.results.schema import Row
from bench.run.launching.child import OnMessage, Outcome
from bench.run.launching.cluster import sibling_pids
from bench.run.launching.launch import run_trial
from bench.run.launching.observation import Observation

_SETTLE_S = 2.0
_SETTLE_PAUSE_S = 0.2


def run_watched(
    request: TrialRequest,
    *,
    device: Device,
    timeout_s: float,
    observation: Observation,
    on_message: OnMessage,
) -> Outcome:
    """Run the trial and fill the observation; nothing is watched on the fake device."""
    is_fake = device.type == "fake"
    telemetry = None if is_fake else open_telemetry(device)

    def on_start(pid: int) -> None:
        if not is_fake:
            # Other ranks of a torchrun job compute here too, and are not foreign.
            snapshot = functools.partial(take_snapshot, siblings=sibling_pids(os.environ))
            observation.sampler = Sampler(telemetry, pid=pid, snapshot=snapshot)
            observation.sampler.start()

    def note_stage(message: Stage | StepsSoFar) -> None:
        if isinstance(message, Stage):
            observation.stage_times_s[message.name] = time.monotonic()
        on_message(message)

    try:
        if telemetry is not None:
            observation.scope, observation.before = telemetry.scope, _rest_of(telemetry)
        try:
            outcome = run_trial(
                request, timeout_s=timeout_s, on_start=on_start, on_message=note_stage
            )
        finally:
            if observation.sampler is not None:
                observation.sampler.stop()
        if telemetry is not None:
            observation.after = telemetry.baseline()
        return outcome
    finally:
        if telemetry is not None:
            telemetry.close()


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
    result = outcome.result
    if not isinstance(result, TrialResult):
        return
    sampler = observation.sampler
    append_samples(
        path,
        {
            "config_hash": row["config_hash"],
            "device": row["device"],
            "trial": row["trial"],
            "attempt": row["attempt"],
            "window_start_s": result.window_start_s,
            "window_end_s": result.window_end_s,
            "stage_times_s": observation.stage_times_s,
            **msgspec.to_builtins(result.samples),
            "telemetry": _telemetry_series(sampler) if sampler is not None else None,
        },
    )


def _telemetry_series(sampler: Sampler) -> list[dict[str, object]]:
    return [
        {
            "time_s": one.time_s,
            "power_w": one.power_w,
            "energy_j": one.energy_j,
            "temperature_c": one.temperature_c,
            "sm_clock_hz": one.sm_clock_hz,
            "throttle_reasons": sorted(one.throttle_reasons or ()),
            "used_bytes": one.used_bytes,
        }
        for one in sampler.samples
    ]
