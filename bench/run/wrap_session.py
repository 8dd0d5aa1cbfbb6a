"""From a command to an ended run of it: look at it, inspect its device, plan, open the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bench.core.errors import MeasurementError
from bench.core.nouns import OWN_DATA, Config, Layout, Script
from bench.devices.host.cpu import usable_cores
from bench.measure.inspection import inspect_device
from bench.measure.messages import ScriptFacts, TrialRequest
from bench.measure.timing.limits import PROFILES
from bench.results.beside_rows import write_profile
from bench.run.launching.script import run_script
from bench.run.planning.wrap_plan import WrapRequest, make_wrap_plan
from bench.run.runner import Runner
from bench.run.session import begin


def look_at(request: WrapRequest) -> ScriptFacts:
    """Run the program's first steps; `MeasurementError` says what became of it instead."""
    run = request.run
    layout, devices = Layout(), max(run.devices, default=1)
    if request.is_throttled:  # of as many ranks as there are
        layout = Layout(mode="throttled", link=run.links[0], contention="none")
    elif devices > 1:
        link = run.links[0]
        layout = Layout(mode="simulated", data=devices, link=link, contention="none")
    config = Config(
        workload=request.program,
        source="",
        phase="",
        version="",
        size="",
        params={},
        dtype="fp32",
        compile=False,
        channels_last=False,
        data=OWN_DATA,
        device="",
        threads=run.threads,
        workers=None,
        seed=run.seed,
        layout=layout,
        script=Script(step=request.step, is_rank=bool(run.links) and not request.is_throttled),
    )
    asked = TrialRequest(
        config=config,
        limits=PROFILES["smoke"].limits,
        trial=0,
        cpu_ids=(),
        # As its trials have on a CPU, where ranks share the cores.
        threads=run.threads or max(1, usable_cores() // layout.devices),
        workers=0,
        idle_s=0.0,
        command=request.command,
        is_look=True,
    )
    nothing: Callable[[object], None] = lambda _: None  # noqa: E731
    outcome = run_script(asked, timeout_s=run.timeout_s, on_start=nothing, on_message=nothing)
    if not isinstance(outcome.result, ScriptFacts):
        raise MeasurementError(f"{request.program}: {outcome.detail}")
    return outcome.result


def begin_wrapped(request: WrapRequest, *, folder: Path, note: Callable[[str], None]) -> Runner:
    """Look at the program and its device, plan, and create the result file."""
    note(f"looking at {request.program} (its first steps, not timed)")
    facts = look_at(request)
    is_smoke = request.run.profile in PROFILES and PROFILES[request.run.profile].limits.is_smoke
    inspection = inspect_device(
        facts.device, dtypes=(facts.dtype,), with_roof=not is_smoke, threads=(facts.threads,)
    )
    plan = make_wrap_plan(request, facts=facts, inspection=inspection)
    runner = begin(plan, inspection, folder=folder, note=note)
    runner.facts = replace(runner.facts, command=request.command)
    _write_profile(runner, facts=facts)
    return runner


def _write_profile(runner: Runner, *, facts: ScriptFacts) -> None:
    """Keep the operators of the step that was counted, for projections: all of them, or none."""
    if facts.uncounted or not facts.operators:
        return
    profile: dict[str, object] = {"covered_frac": 1.0, "operators": facts.operators}
    for planned in runner.plan.planned:
        config = planned.config
        if config.layout.is_single:
            names = {"config_hash": planned.config_hash, "device": config.device}
            write_profile(runner.store.path, profile=profile, **names)
