"""From a command to an ended run of it: look at it, inspect its device, plan, open the store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.core.errors import UsageError
from bench.core.nouns import Device, Layout, Script
from bench.devices.host.cpu import usable_cores
from bench.measure.inspection import inspect_device
from bench.measure.messages import ScriptFacts, TrialRequest
from bench.measure.timing.limits import PROFILES
from bench.results.beside_rows import write_profile
from bench.run.launching.child import OnMessage, Outcome
from bench.run.launching.script import run_script
from bench.run.planning.wrap_plan import config_of, make_wrap_plan
from bench.run.planning.wrap_request import WrapRequest
from bench.run.progress import Progress
from bench.run.runner import Runner
from bench.run.session import begin


def look_at(request: WrapRequest, *, on_message: OnMessage) -> Outcome:
    """Run the program's first steps: `ScriptFacts`, or what became of it instead."""
    run = request.run
    layout, devices = Layout(), max(run.devices, default=1)
    if request.is_throttled:  # of as many ranks as there are
        layout = Layout(mode="throttled", link=run.links[0], contention="none")
    elif devices > 1:
        link = run.links[0]
        layout = Layout(mode="simulated", data=devices, link=link, contention="none")
    script = Script(step=request.step, is_rank=bool(run.links) and not request.is_throttled)
    known: Any = {"layout": layout, "threads": run.threads, "seed": run.seed}
    config = config_of(request.program, script=script, **known)
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
    return run_script(
        asked, timeout_s=run.timeout_s, on_start=lambda _pid: None, on_message=on_message
    )


def _unknown(request: WrapRequest) -> ScriptFacts:
    """Return what is known of a program that showed no step."""
    return ScriptFacts(
        device="",
        uuid=None,
        version="unknown",
        dtype="fp32",
        strategy=None,
        num_ranks=max(request.run.devices, default=2) if request.is_throttled else 1,
        is_training=request.step == "optimizer",
        items_per_step=None,
        items_of="",
        grad_accum=1,
        num_parameters=None,
        num_trained=0,
        optimizer=None,
        is_compiled=False,
        threads=request.run.threads or 1,
        flops_per_step=None,
        uncounted=[],
        operators=[],
        sent=[],
        stand_ins=[],
    )


def begin_wrapped(request: WrapRequest, *, folder: Path, progress: Progress) -> Runner:
    """Look at the program and its device, plan, and create the result file.

    Where the program showed no step, each of its configurations is refused with what became of it.
    """
    looked = look_at(request, on_message=progress.message)
    progress.close()
    failure, facts = looked.failure, looked.result
    if not isinstance(facts, ScriptFacts):
        facts = _unknown(request)
    is_smoke = request.run.profile in PROFILES and PROFILES[request.run.profile].limits.is_smoke
    inspection = inspect_device(
        facts.device or None,
        dtypes=(facts.dtype,),
        with_roof=not (is_smoke or failure),
        threads=(facts.threads,),
    )
    check_same_device(facts, inspection.device)
    refusal = (failure.code, failure.detail) if failure else None
    plan = make_wrap_plan(request, facts=facts, inspection=inspection, refusal=refusal)
    runner = begin(plan, inspection, folder=folder, note=progress.note)
    log = looked.log if failure else ""
    runner.facts = replace(runner.facts, command=request.command, look_log=log)
    _write_profile(runner, facts=facts)
    return runner


def check_same_device(facts: ScriptFacts, device: Device) -> None:
    """Refuse a program that chooses among the devices: its `cuda:0` would be another than ours."""
    if facts.uuid and device.uuid and facts.uuid != device.uuid:
        raise UsageError(
            f"the program computes on another {facts.device} than bench sees: it, or its launcher, "
            "chooses which devices are visible; choose them before bench wrap, as in "
            "CUDA_VISIBLE_DEVICES=1 bench wrap -- python train.py"
        )


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
