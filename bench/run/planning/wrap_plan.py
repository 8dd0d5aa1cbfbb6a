"""The plan of `bench wrap`: a user's own program as one configuration for each layout and link."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.core.errors import UsageError
from bench.core.nouns import DTYPES, OWN_DATA, Config, Layout, Mode, Script, Strategy
from bench.core.units import counted, format_duration
from bench.hardware.costs.cost import model_of
from bench.hardware.links.topology import Topology, parse_topology
from bench.measure.inspection import Inspection
from bench.measure.messages import ScriptFacts
from bench.run.launching.launch import num_sharing
from bench.run.planning.modes import NO_CLOCK, has_clock, resolution_of
from bench.run.planning.plan import Plan, Planned, plan_of
from bench.run.planning.request import RunRequest
from bench.run.planning.script_arguments import parameters_of
from bench.run.planning.wrap_request import WrapRequest, hidden


def config_of(program: str, *, script: Script, **known: Any) -> Config:
    """Return the configuration of a user's own program, with what is known of it."""
    values: dict[str, Any] = {
        "source": "",
        "phase": "",
        "version": "",
        "size": "",
        "params": {},
        "dtype": "fp32",
        "compile": False,
        "channels_last": False,
        "data": OWN_DATA,
        "device": "",
        "threads": None,
        "workers": None,
        "seed": 0,
    }
    return Config(workload=program, script=script, **values | known)


def make_wrap_plan(
    request: WrapRequest,
    *,
    facts: ScriptFacts,
    inspection: Inspection,
    refusal: tuple[str, str] | None = None,
) -> Plan:
    """Plan the program over the layouts and links that are asked for.

    Where the look at it failed, each of them is refused: a row then says why.
    """
    run, place = request.run, request.script_place
    layouts, why = _in_one_mode(_layouts(request, facts), request=run, facts=facts, on=inspection)
    notes = [] if refusal else [*_notes(request, facts), *why]
    script = Script(
        step=request.step,
        items_per_step=request.items_per_step,
        flops_per_step=facts.flops_per_step,
        counted_items=facts.items_per_step,
        counted_tensors=facts.num_trained or None,
        runs_to_end=request.runs_to_end,
        is_rank=bool(run.links) and not request.is_throttled,
    )
    params: dict[str, Any] = {
        **parameters_of(hidden(request.command[place + 1 :])),
        "step": request.step,
    }
    launcher = hidden(request.command[:place])
    if launcher and Path(launcher[0]).name.startswith("python"):
        launcher = launcher[1:]  # which Python is not asked for, and has a column
    params |= {"launcher": shlex.join(launcher)} if launcher else {}
    per_step = request.items_per_step or facts.items_per_step
    config = config_of(
        request.program,
        script=script,
        phase="train" if facts.is_training else "infer",
        version=facts.version,
        params=params,
        dtype=next(one for one in DTYPES if one == facts.dtype),
        compile=facts.is_compiled,
        device=inspection.device.label,
        threads=run.threads,
        seed=run.seed,
    )
    planned = [
        Planned(
            config=replace(config, layout=layout),
            size_choice="",
            mem_estimate_bytes=None,
            batch=per_step,
            num_sharing=num_sharing(layouts, is_accelerator=inspection.is_accelerator),
            items_unit="sample" if per_step else "step",
            elements_unit=None,
            data_digest=OWN_DATA,
            refusal=refusal,
        )
        for layout in layouts
    ]
    return plan_of(planned, request=run, inspection=inspection, notes=notes)


def _layouts(request: WrapRequest, facts: ScriptFacts) -> list[Layout]:
    run = request.run
    common: Any = {"strategy": facts.strategy, "grad_accum": facts.grad_accum, "contention": "none"}
    if not run.links:
        ranks = facts.num_ranks
        return [Layout(data=ranks, **common) if ranks > 1 else Layout(grad_accum=facts.grad_accum)]
    if request.is_throttled:
        _check_ranks(run.devices, found=facts.num_ranks)
        run = replace(run, devices=(facts.num_ranks,))
    if facts.strategy == "tp" and run.tp is None:
        raise UsageError(
            f"{request.program} cuts its weights over ranks (DTensor): give --tp, the number of "
            "ranks that share a batch, so that its items are counted once"
        )
    topologies = [parse_topology(link) for link in run.links]
    layouts = [
        _over_link(topology, devices=devices, tensor=run.tp or 1, **common)
        for devices, topology in itertools.product(run.devices, topologies)
    ]
    return list(dict.fromkeys(layouts))


def _check_ranks(devices: Sequence[int], *, found: int) -> None:
    """Refuse to hold back ranks that are not there."""
    if found == 1:
        raise UsageError(
            "--mode throttled holds real ranks back, and the program has 1; start them in the "
            "command: bench wrap ... -- torchrun --nproc-per-node 2 train.py"
        )
    if tuple(devices) not in ((), (found,)):
        raise UsageError(
            f"--devices {','.join(map(str, devices))}: the program has {found} ranks; leave it out"
        )


def _over_link(
    topology: Topology, *, devices: int, tensor: int, strategy: Strategy | None, **common: Any
) -> Layout:
    """Return the layout of so many ranks; one alone sends nothing."""
    if devices == 1:
        return Layout(grad_accum=common["grad_accum"])
    return Layout(
        mode="emulated",
        strategy="tp" if tensor > 1 else strategy or "ddp",
        data=devices // tensor,
        tensor=tensor,
        link=topology.name,
        **common,
    )


def _in_one_mode(
    layouts: list[Layout], *, request: RunRequest, facts: ScriptFacts, on: Inspection
) -> tuple[list[Layout], list[str]]:
    """Give all rows over a link one mode: emulated where the timer keeps each of them."""
    linked = [one for one in layouts if one.link]
    if not linked:
        return layouts, []
    mode: Mode = request.mode or "emulated"
    kept_s, why = resolution_of(on.device), "asked for"
    if request.mode is None and not has_clock(on.device):
        mode, why = "simulated", NO_CLOCK
    elif request.mode is None:
        kept = format_duration(kept_s)
        why = f"each has a collective as long as the {kept} that the timer here keeps"
        for one in linked:
            model = model_of(one.link)
            longest_s = max(
                (
                    model.cost(op, num_bytes=size, group=model.group_of(range(ranks))).seconds
                    for op, size, ranks in facts.sent
                    if ranks > 1
                ),
                default=0.0,
            )
            if longest_s < kept_s and not model.topology.is_infinite:
                mode = "simulated"
                why = (
                    f"on {one.link} the longest collective takes {format_duration(longest_s)}, "
                    f"and the timer here keeps {kept}"
                )
                break
    return [replace(one, mode=mode) if one.link else one for one in layouts], [
        f"every row over a link is {mode}: {why}"
    ]


def _notes(request: WrapRequest, facts: ScriptFacts) -> list[str]:
    """Say what a step is, what is counted in it, and what is not."""
    step = {
        "optimizer": f"an update of {facts.optimizer}",
        "forward": "a forward pass without gradients",
        "loader": "a batch of its loader",
        "mark": "a call of bench.mark_step",
    }[request.step]
    if facts.grad_accum > 1 and request.step == "optimizer":
        step += f" after {facts.grad_accum} backward passes"
    items = "steps are counted, since no loader yields batches (--items-per-step)"
    if per_step := request.items_per_step or facts.items_per_step:
        said = "as given" if request.items_per_step else facts.items_of
        items = f"{counted(per_step, 'sample')}, {said}"
    notes = [f"a step of {request.program} is {step}; {items}"]
    if facts.uncounted:
        notes.append(f"its FLOPs stay blank: no formula for {', '.join(facts.uncounted[:4])}")
    return notes + facts.stand_ins
