"""All that a run will do: its configurations, with everything that was chosen automatically.

It is stored beside the rows, so that `--resume` goes on with exactly what was begun. Nothing runs
here and torch is not imported: the device's memory and dtypes were inspected before.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bench import discovery
from bench.core.nouns import DTYPES, Config, Device, Dtype, Layout, Mode
from bench.core.paths import user_path
from bench.devices.host.cpu import usable_cores
from bench.hardware.chip_limit import ChipLimit, check_device, parse_chip_limit
from bench.measure.filled_batches import words_of_data
from bench.measure.inspection import Inspection
from bench.measure.timing.limits import PROFILES, Limits, Profile, for_device, within_budget
from bench.run.launching.launch import num_sharing, threads_and_workers
from bench.run.planning.checks import Joined, check_layouts
from bench.run.planning.data_digest import digest_of
from bench.run.planning.modes import choose_mode, is_sure
from bench.run.planning.request import TO_TRIAL, RunRequest
from bench.run.planning.selection import choose_size, memory_of
from bench.run.planning.serving import check_emulated, longest_served_s, serving_of
from bench.workload import Workload

STARTUP_S = 15.0
"""What a trial takes besides its limits, for planning only: imports, building, first step."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One configuration of a plan."""

    config: Config
    size_choice: str
    mem_estimate_bytes: int | None
    batch: int | None
    """Samples in one step of this phase, where that is known."""
    num_sharing: int
    """Ranks among which this machine's cores are divided."""
    items_unit: str
    elements_unit: str | None
    data_digest: str
    """What the row says about the data: 'generated', 'resident' or a digest of the files."""
    data_used: str = ""
    """Which part of the files, in words."""
    extra_reasons: tuple[str, ...] = ()
    """Reason codes that every row of this configuration carries."""
    refusal: tuple[str, str] | None = None
    """(reason code, detail) when it cannot run here at all."""

    @property
    def is_unseen(self) -> bool:
        """Whether it is a user's own program that showed no step: how it computes is not known."""
        return self.refusal is not None and self.config.script is not None

    @property
    def config_hash(self) -> str:
        """Hash of all that must be equal for two trials to be compared; no hardware, no seed.

        What has a default counts only where it differs: a new flag changes no hash of before. Two
        revisions of a user's own program are to be compared.
        """
        config = self.config
        compared = {
            "workload": config.name,
            "version": "" if config.script else config.version,
            "params": dict(config.params),
            "dtype": config.dtype,
            "compile": config.compile,
            "channels_last": config.channels_last,
            "data": self.data_digest,
            "mode": "simulated" if config.device == "fake" else config.layout.mode,
        }
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            has_default = field.default is not dataclasses.MISSING
            if has_default and value != field.default and field.metadata.get("is_hashed", True):
                compared[field.name] = _compared(value)
        text = json.dumps(compared, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def share_of(self, cores: int) -> int:
        """Return how many of so many cores a rank has."""
        limit = parse_chip_limit(self.config.chip_limit).cores if self.config.chip_limit else None
        return max(1, min(cores, limit or cores) // self.num_sharing)

    def threads_and_workers(self, *, cores: int, is_accelerator: bool) -> tuple[int, int]:
        """Return compute threads and loader processes of a rank on a machine of so many cores.

        Those of a user's own program are its own business, or its environment's.
        """
        if self.config.script or self.config.server:
            return self.config.threads or self.share_of(cores), 0
        phase = discovery.load(self.config.origin).phase(self.config.phase)
        share = self.share_of(cores)
        return threads_and_workers(self.config, phase, cores=share, is_accelerator=is_accelerator)


def _compared(value: Any) -> Any:
    """Return what of a setting, or of each field of one, must be equal."""
    if not dataclasses.is_dataclass(value):
        return value
    fields = (one for one in dataclasses.fields(value) if one.metadata.get("is_hashed", True))
    return {one.name: getattr(value, one.name) for one in fields}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that a run will do."""

    planned: tuple[Planned, ...]
    profile: str
    min_trials: int
    max_trials: int
    limits: Limits
    target_half_width_frac: float
    budget_s: float
    """For the whole run; trials beyond the minimum are not begun when it is used up."""
    is_budget_firm: bool
    """True when the user set it: then not even the minimum exceeds it."""
    timeout_s: float
    seed: int
    oom_shrink: bool
    notes: tuple[str, ...] = ()
    """Lines on the mode of modelled rows, and on what of the sweep is left out."""

    @property
    def effort(self) -> Profile:
        """How many trials, and each one's limits."""
        return Profile(
            name=self.profile,
            min_trials=self.min_trials,
            max_trials=self.max_trials,
            budget_s=self.budget_s,
            limits=self.limits,
            target_half_width_frac=self.target_half_width_frac,
        )

    @property
    def wants_profiles(self) -> bool:
        """Whether it ends with operators profiled unasked: in no firm budget."""
        return self.profile in ("default", "rigorous") and not self.is_budget_firm


def make_plan(request: RunRequest, *, joined: Sequence[Joined], inspection: Inspection) -> Plan:
    """Expand the checked request on the inspected device; `UsageError` on what it cannot do."""
    limit = None if request.chip_limit is None else parse_chip_limit(request.chip_limit)
    if limit is not None:
        check_device(limit, device_type=inspection.device.type)
    sweep = [layout for one in joined for layout in one.layouts]
    data = request.data or "generated"
    if data not in ("generated", "resident"):
        data = str(user_path(data, what="--data").resolve())
    named = (data, digest_of(data))
    every = [
        _planned(
            request, inspection, joined=one, choice=choice, limit=limit, data=named, sweep=sweep
        )
        for one in joined
        for choice in itertools.product(
            request.sizes or (None,),
            one.dtypes or (() if request.dtypes else (_default_dtype(one, inspection),)),
            request.overrides,
            one.layouts,
        )
    ]
    every, why = _in_one_mode(every, asked=request.mode, device=inspection.device)
    if request.links and not any(one.config.layout.link for one in every):
        why.append(f"--link {','.join(request.links)} is not used on 1 device")
    why += dict.fromkeys(f"{one.config.name}: {one.data_used}" for one in every if one.data_used)
    left_out = [line for one in joined for line in one.left_out]
    return plan_of(every, request=request, inspection=inspection, notes=[*why, *left_out])


def plan_of(
    every: Sequence[Planned],
    *,
    request: RunRequest,
    inspection: Inspection,
    notes: Sequence[str] = (),
) -> Plan:
    """Return the plan of these configurations, each once, with the effort that is asked for."""
    # A value given twice, or two sizes made equal by --set, are one configuration.
    planned = list({one.config_hash: one for one in reversed(every)}.values())[::-1]
    profile = PROFILES[request.profile]
    if request.is_served:  # how sure it is follows from its requests
        profile = replace(profile, min_trials=1, max_trials=1)
    if request.trials is not None:
        profile = replace(profile, min_trials=request.trials, max_trials=request.trials)
    limits = for_device(
        profile.limits,
        is_accelerator=inspection.is_accelerator,
        has_energy=inspection.gives_power,
    )
    budget_s = request.budget_s or profile.budget_s * len(planned)
    if request.budget_s is not None:
        trials = profile.min_trials * len(planned)
        limits = within_budget(limits, trial_s=max(0.0, budget_s / trials - STARTUP_S))
    return Plan(
        planned=tuple(planned),
        profile=profile.name,
        min_trials=profile.min_trials,
        max_trials=profile.max_trials,
        limits=limits,
        target_half_width_frac=profile.target_half_width_frac,
        budget_s=budget_s,
        is_budget_firm=request.budget_s is not None,
        timeout_s=request.timeout_s + (request.is_served and longest_served_s(request)),
        seed=request.seed,
        oom_shrink=request.oom_shrink,
        notes=(*_cores_line(planned[0], device=inspection.device), *notes),
    )


def _in_one_mode(
    every: list[Planned], *, asked: Mode | None, device: Device
) -> tuple[list[Planned], list[str]]:
    """Give all rows over a modelled link one mode, and say why; refuse one that shows no link."""
    configs = [one.config for one in every if one.config.layout.link]
    sweep = [(one.layout, workload_of(one).num_parameters()) for one in configs]
    for layout, num_parameters in sweep if asked else []:
        is_sure(layout, num_parameters=num_parameters, device=device)
    if asked is not None or not sweep:
        for config in configs:
            if config.serving is not None:
                check_emulated(config, why="")
        return every, []
    mode, why = choose_mode(sweep, device=device)
    settled = []
    for one in every:
        layout = one.config.layout
        layout = replace(layout, mode=mode) if layout.link else layout
        settled.append(replace(one, config=replace(one.config, layout=layout)))
        if one.config.serving is not None:
            check_emulated(settled[-1].config, why=why)
    is_said = device.type == "cpu" or (mode == "simulated" and device.type != "fake")
    return settled, [f"every row over a link is {mode}: {why}"] if is_said else []


def _cores_line(planned: Planned, *, device: Device) -> list[str]:
    """Say that ranks, real or not, divide a processor."""
    cores = usable_cores()
    share = planned.share_of(cores)
    is_divided = device.type == "cpu" and planned.num_sharing > 1 and share < cores
    if planned.config.threads or not is_divided:
        return []
    return [
        f"a rank of all rows has {share} of the {cores} cores, its share among "
        f"{planned.num_sharing}; --threads sets another number"
    ]


def workload_of(config: Config) -> Workload:
    """Return the workload with the configuration's parameters."""
    return discovery.instance(
        discovery.load(config.origin), size=None, overrides=dict(config.params)
    )


def _planned(
    request: RunRequest,
    inspection: Inspection,
    *,
    joined: Joined,
    choice: tuple[str | None, Dtype, dict[str, Any], Layout],
    limit: ChipLimit | None,
    data: tuple[str, str],
    sweep: Sequence[Layout],
) -> Planned:
    size, dtype, overrides, layout = choice
    found, phase, device = joined.found, joined.phase, inspection.device
    # All memory of the device where nothing shows what is free.
    free_bytes = device.memory_free_bytes
    free_bytes = device.memory_bytes if free_bytes is None else free_bytes
    known = [free_bytes, limit.memory_bytes if limit else None]
    chosen = choose_size(
        found,
        phase,
        asked=size,
        dtype=dtype,
        overrides=overrides,
        free_bytes=min((one for one in known if one is not None), default=None),
        is_cpu=not inspection.is_accelerator,
        data=data[0],
        check=partial(check_layouts, request=request, phase=phase, layouts=joined.layouts),
    )
    workload = chosen.workload
    return Planned(
        config=Config(
            workload=found.name,
            source=found.source,
            phase=phase.name,
            version=found.version,
            size=chosen.name,
            params=discovery.parameters(workload),
            dtype=dtype,
            data=data[0],
            device=device.label,
            layout=layout,
            chip_limit=limit.name if limit else "",
            serving=serving_of(request, phase) if request.is_served else None,
            **{name: getattr(request, name) for name in TO_TRIAL},
        ),
        size_choice=chosen.reason,
        mem_estimate_bytes=chosen.estimate_bytes or None,
        batch=workload.batch_size(phase),
        num_sharing=num_sharing(
            [layout] if inspection.is_accelerator else sweep,
            is_accelerator=inspection.is_accelerator,
        ),
        items_unit=phase.item,
        elements_unit=phase.element,
        data_digest=data[1],
        data_used="" if data[0] == data[1] else words_of_data(workload, phase, data=Path(data[0])),
        refusal=_lacking(found, device) or chosen.refusal or _refusal(dtype, inspection),
    )


def _default_dtype(joined: Joined, inspection: Inspection) -> Dtype:
    """Return the device's choice, or the workload's first that the device computes right."""
    allowed = joined.found.cls.dtypes
    if allowed is None or inspection.default_dtype in allowed:
        return inspection.default_dtype
    right = (one for one in allowed if inspection.capabilities.get(one) == "ok")
    return next(right, allowed[0])


def _lacking(found: discovery.Found, device: Device) -> tuple[str, str] | None:
    """Refuse what needs a library that is not here; the fake device builds no net."""
    return ("missing_library", found.lacking) if found.lacking and device.type != "fake" else None


def _refusal(dtype: Dtype, inspection: Inspection) -> tuple[str, str] | None:
    capability = inspection.capabilities.get(dtype)
    if capability in (None, "ok"):
        return None
    works = ", ".join(name for name in DTYPES if inspection.capabilities.get(name) == "ok")
    how = "refuses" if capability == "raises" else "computes wrong results in"
    return (
        "unsupported_dtype",
        f"{inspection.device.label} {how} {dtype}; it works in {works or 'none of the dtypes'}",
    )


def shrunk(planned: Planned) -> Planned | None:
    """Return the configuration at half the batch; None where that makes its step no smaller."""
    config = planned.config
    phase = discovery.load(config.origin).phase(config.phase)
    batch = int(config.params["batch"] or 0) // 2
    if batch < 1:
        return None
    workload = workload_of(replace(config, params={**config.params, "batch": batch}))
    if planned.batch is None or workload.batch_size(phase) >= planned.batch:
        return None
    return replace(
        planned,
        config=replace(config, params=discovery.parameters(workload)),
        mem_estimate_bytes=memory_of(workload, phase, data=config.data, dtype=config.dtype),
        batch=workload.batch_size(phase),
        extra_reasons=tuple(dict.fromkeys((*planned.extra_reasons, "oom_shrunk"))),
    )
