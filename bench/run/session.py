"""From a request to an ended run: inspect the device, plan, open the store, judge, profile."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from bench import discovery
from bench.core.errors import BenchError, DataError, ExitCode, IncompatibleError, UsageError
from bench.core.paths import cache_note, user_path
from bench.devices.host import cpu
from bench.devices.host.cpu import machine_facts
from bench.hardware.chips import match_device
from bench.measure.asking import ask
from bench.measure.inspection import Inspection, inspect_device
from bench.measure.timing.limits import PROFILES
from bench.results import environment
from bench.results.beside_rows import read_profiles, write_profile
from bench.results.schema import USABLE
from bench.results.store import Sidecar, Store
from bench.run.launching.launch import child_environment, num_sharing, threads_and_workers
from bench.run.planning.checks import check_request
from bench.run.planning.data_digest import BY_SIZES, digest_of
from bench.run.planning.endpoint_plan import endpoint_plan, inspection_of
from bench.run.planning.modes import is_sure, sender_of
from bench.run.planning.plan import Plan, Planned, make_plan, shrunk, workload_of
from bench.run.planning.request import RunRequest
from bench.run.planning.serving import check_same_arrivals
from bench.run.progress import describe_row
from bench.run.record import RunFacts, make_request
from bench.run.runner import Ended, Runner, utc_now

T = TypeVar("T")


def prepare(request: RunRequest, *, note: Callable[[str], None]) -> tuple[Plan, Inspection]:
    """Check the request and plan it on the device; raises `BenchError` before anything runs."""
    if request.endpoint is not None:
        return endpoint_plan(request)
    joined = check_request(request)
    is_smoke = request.profile in PROFILES and PROFILES[request.profile].limits.is_smoke
    if request.device != "fake":
        if (elsewhere := cache_note()) is not None:
            note(elsewhere)
        note("looking at the device" + ("" if is_smoke else " (its roof is measured once)"))
    layouts = [layout for one in joined for layout in one.layouts]
    cores = max(1, cpu.usable_cores() // num_sharing(layouts, is_accelerator=False))
    threads = [
        threads_and_workers(request, one.phase, cores=cores, is_accelerator=False)[0]
        for one in joined
    ]
    inspection = inspect_device(
        request.device,
        dtypes=request.dtypes,
        with_roof=not is_smoke,
        threads=tuple(dict.fromkeys(threads)),
    )
    if inspection.device.stack.startswith("ROCm"):
        note(
            "MIOpen searches kernels for new convolutions: the first trial may take minutes longer"
        )
        note("MIOPEN_FIND_MODE=FAST leaves the search out; the row's dnn_version has the mode")
    return make_plan(request, joined=joined, inspection=inspection), inspection


def begin(
    plan: Plan, inspection: Inspection, *, folder: Path, note: Callable[[str], None]
) -> Runner:
    """Create the result file of a planned run; `UsageError` where its mode would show no link."""
    facts = _facts(inspection)
    _refuse_unresolved(plan, facts=facts, note=note)
    sidecar = Sidecar(
        run_id=secrets.token_hex(4),
        started_utc=utc_now(),
        environment=facts.environment,
        request={"plan": asdict(plan)},
    )
    store = Store.create(folder, sidecar=sidecar, host_hash=environment.host_hash())
    store.hold(holder=_holder())
    return Runner(plan, facts=facts, store=store)


def _holder() -> str:
    """Name this process to a user of the same folder, perhaps from another machine."""
    host = environment.host_hash()[:8]  # as in the file's name
    return f"process {os.getpid()} of machine {host}, since {utc_now()[11:19]} UTC"


def _refuse_unresolved(plan: Plan, *, facts: RunFacts, note: Callable[[str], None]) -> None:
    """Look at what is sent where arithmetic cannot show that the mode asked for keeps it."""
    for planned in plan.planned:
        config, device = planned.config, facts.inspection.device
        layout = config.layout
        if not layout.link or planned.refusal or config.script:
            continue
        num_parameters = workload_of(config).num_parameters()
        if is_sure(layout, num_parameters=num_parameters, device=device):
            continue
        sender = sender_of(layout)
        note(f"{config.name}: looking at what {sender} sends over {layout.link} (not timed)")
        try:
            why = _asked(planned, "communication.resolving", plan=plan, facts=facts, kind=str)
        except BenchError:  # its trials will say what is wrong with it
            continue
        if why:
            raise UsageError(f"{config.name} by {sender}, --mode {layout.mode}: {why}")


def _asked(planned: Planned, module: str, *, plan: Plan, facts: RunFacts, kind: type[T]) -> T:
    """Return what a process with the configuration's net answers; it times nothing."""
    limits = PROFILES["smoke"].limits
    request = make_request(planned, trial=0, limits=limits, facts=facts)
    return ask(
        f"bench.measure.{module}",
        request,
        kind=kind,
        what=f"{module.rpartition('.')[-1]} ended",
        environment=child_environment(threads=request.threads),
        timeout_s=plan.timeout_s,
    )


def _facts(inspection: Inspection) -> RunFacts:
    device = inspection.device
    chips = match_device(device.name, device.memory_bytes, compute_units=device.compute_units)
    machine = machine_facts(environ=os.environ)
    return RunFacts(
        inspection=inspection,
        chips=tuple(chips),
        environment=environment.fingerprint(
            torch_facts=inspection.torch_facts, machine=machine, environ=os.environ
        ),
        usable_cores=cpu.usable_cores(),
    )


def resume(name: str, *, folder: Path, note: Callable[[str], None]) -> Runner:
    """Take up a run by id, file or 'last' in the folder; refuses a changed workload or device."""
    with ExitStack() as unless_taken_up:
        store = Store.open(_find_run(name, folder=folder), note=note)
        unless_taken_up.callback(store.close)
        store.hold(holder=_holder())
        runner = _taken_up(store)
        unless_taken_up.pop_all()
    return runner


def _taken_up(store: Store) -> Runner:
    try:
        plan = msgspec.convert(store.sidecar.request["plan"], Plan)
        if not plan.planned:
            raise ValueError("no configurations")
    except (KeyError, ValueError) as error:
        raise DataError(
            f"{store.path}: its plan cannot be read ({error}); start a new run"
        ) from error
    for planned in plan.planned:
        config = planned.config
        if config.script:
            raise UsageError(
                f"{config.name} is a program of your own, and its command is in no file: start it "
                "again by bench wrap"
            )
        if config.server:
            return Runner(plan, facts=_facts(inspection_of(config.server)), store=store)
        discovery.load_planned(config.origin, version=config.version)
        if config.serving is not None:
            check_same_arrivals(config.serving)
        if planned.data_digest.startswith(BY_SIZES):
            raise IncompatibleError(
                f"the run names --data {config.data} by its files' sizes, as an older bench did; "
                "start a new run"
            )
        if digest_of(config.data) != planned.data_digest:
            raise IncompatibleError(
                f"--data {config.data} changed since the run began; start a new run"
            )
    cores = cpu.usable_cores()
    threads = [
        one.threads_and_workers(cores=cores, is_accelerator=False)[0] for one in plan.planned
    ]
    inspection = inspect_device(
        plan.planned[0].config.device,
        dtypes=(),
        with_roof=False,
        threads=tuple(dict.fromkeys(threads)),
    )
    torch_facts = store.sidecar.environment.get("torch")
    before = torch_facts.get("device_name") if isinstance(torch_facts, dict) else None
    if before not in (None, inspection.device.name):
        raise IncompatibleError(
            f"the run began on {before}, this is {inspection.device.name}; start a new run"
        )
    return Runner(plan, facts=_facts(inspection), store=store)


def _find_run(name: str, *, folder: Path) -> Path:
    path = user_path(name, what="--resume")
    if path.suffix == ".csv" and path.is_file():
        return path
    files = sorted(folder.glob("*_*_*.csv"), key=lambda one: (one.name[:16], one.stat().st_mtime))
    ids = [one.stem.rpartition("_")[2] for one in files]
    matches = [one for one, id in zip(files, ids, strict=True) if name in (id, one.name, one.stem)]
    if name == "last":
        matches = files[-1:]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UsageError(f"--resume {name} means several files: {', '.join(map(str, matches))}")
    raise UsageError(
        f"--resume {name}: no such file, and no run of that id in {folder}, which has "
        f"{', '.join(ids[-5:]) or 'none'}; --out names the folder of a run"
    )


def exit_code(ended: Ended, plan: Plan) -> ExitCode:
    """0 when every configuration has a usable row, 4 when one has none, 130 when interrupted."""
    if ended.was_interrupted:
        return ExitCode.INTERRUPTED
    if ended.problem is not None:
        return ExitCode.INVALID
    usable = {row["config_hash"] for row in ended.rows if row["status"] in USABLE}
    for planned in plan.planned:
        tried: Planned | None = planned
        while tried is not None and tried.config_hash not in usable:
            tried = shrunk(tried) if plan.oom_shrink else None
        if tried is None:
            return ExitCode.INVALID
    return ExitCode.OK


def why_invalid(ended: Ended) -> str:
    """Name the last configuration without a usable row, and what became of it."""
    usable = {row["config_hash"] for row in ended.rows if row["status"] in USABLE}
    row = [row for row in ended.rows if row["config_hash"] not in usable][-1]
    return f"no usable row of {row['workload']}: {describe_row(row)}"


def record_profiles(run: Runner, *, note: Callable[[str], None]) -> None:
    """Profile the operators of each configuration that has usable rows and no profile yet.

    Each is made in a process of its own and times nothing. A profile that cannot be made is a line
    of advice and no failure: the rows stand without it.
    """
    path = run.store.path
    known = read_profiles(path)
    usable = {str(row["config_hash"]) for row in run.rows if row["status"] in USABLE}
    for planned in run.plan.planned:
        config = planned.config
        # A user's own program was counted when it was looked at.
        is_at_hand = config.device != "fake" and not (config.script or config.serving)
        can_profile = config.layout.is_single and is_at_hand
        is_known = (planned.config_hash, config.device) in known
        if not can_profile or is_known or planned.config_hash not in usable:
            continue
        note(f"{config.name}: profiling operators (not timed)")
        try:
            profile = _asked(
                planned, "operator_profile", plan=run.plan, facts=run.facts, kind=dict[str, Any]
            )
        except BenchError as error:
            note(f"{config.name}: no operator profile: {error}")
            continue
        write_profile(path, config_hash=planned.config_hash, device=config.device, profile=profile)
