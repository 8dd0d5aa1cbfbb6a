"""`bench gap`: how far apart the demands of training and inference are."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from bench.cli.options import AsJson, Out, OutputFormat, ResultFiles, Workloads, chosen_format
from bench.cli.output import print_answer, print_note
from bench.core.errors import ExitCode, MeasurementError, NothingMatchedError, UsageError
from bench.core.units import counted, parse_duration_s

if TYPE_CHECKING:
    from bench.analysis.gap.demand import Length
    from bench.analysis.gap.gap_result import GapResult, Missing
    from bench.analysis.trials.configuration import Trials

_OF_MACHINE = ("threads", "workers", "seed")


def gap(
    files: ResultFiles,
    workload: Workloads = None,
    items: Annotated[
        float | None, Option(help="Items of one epoch, for a whole training's time.")
    ] = None,
    epochs: Annotated[float, Option(help="Epochs of the whole training.")] = 1.0,
    steps: Annotated[float | None, Option(help="The same in optimizer steps.")] = None,
    within: Annotated[str | None, Option(help="Its deadline, such as 7d: for how many.")] = None,
    load: Annotated[
        list[str] | None,
        Option(help="Items that come: 200/day; imaging-infer:200/day, repeated, on one device."),
    ] = None,
    latency: Annotated[
        str | None, Option(help="Time from an item's coming to its result, such as 10min.")
    ] = None,
    at: Annotated[
        str | None, Option(help="Part of the items that --latency is for (default: p95).")
    ] = None,
    busy_hour: Annotated[
        str | None, Option(help="Part of a day's items in its fullest hour, such as 12%.")
    ] = None,
    urgent: Annotated[
        str | None, Option(help="Part that goes first, and its own time: 5%:2min.")
    ] = None,
    servers: Annotated[int, Option(help="Devices that take from one queue.")] = 1,
    all_layouts: Annotated[
        bool,
        Option("--all-layouts", help="Several devices and modelled links too, each with its like."),
    ] = False,
    run: Annotated[
        bool, Option("--run", help="Measure the halves that are missing, then answer.")
    ] = False,
    out: Out = Path("results"),
    output_format: OutputFormat = "table",
    as_json: AsJson = False,
) -> None:
    """Show what training asks of a device over what inference asks, like for like."""
    from bench.analysis.gap.gap_documents import gap_document
    from bench.analysis.gap.gap_result import measure_gap
    from bench.analysis.gap.load import parse_wanted
    from bench.analysis.trials.service_times import read_steps
    from bench.report.tables import gap_tables
    from bench.results.reader import read_together

    form = chosen_format(output_format, as_json=as_json)
    wanted = parse_wanted(
        load or (), latency=latency, at=at, busy_hour=busy_hour, urgent=urgent, servers=servers
    )
    length = _length(items, epochs=epochs, steps=steps, within=within)
    command_of = partial(command, workloads=",".join(workload or ["all"]))

    def measured() -> GapResult:
        read = read_together(files, note=print_note, workloads=workload or ())
        found = measure_gap(
            [row for rows in read for row in rows],
            wanted=wanted,
            steps=read_steps(files, read) if wanted else None,
            length=length,
            has_all_layouts=all_layouts,
        )
        kept = tuple(filter(command_of, found.missing))
        if kept != found.missing:
            print_note("no ratio where --workload leaves the other half out")
        return replace(found, missing=kept)

    result = measured()
    if run and result.missing:
        able = (one for one in result.missing if not one.why_never)
        files = [*files, *_measured(map(command_of, able), out=out)]
        result = measured()
    if result.num_wide:
        print_note(
            f"{counted(result.num_wide, 'configuration')} over several devices or modelled links "
            "left out; --all-layouts shows them"
        )
    if result.num_by_schedule:
        print_note(
            f"{counted(result.num_by_schedule, 'row')} in which requests came by themselves left "
            "out; bench report shows them"
        )
    if not any(demand.num_trials for demand in result.demands):
        raise NothingMatchedError("no usable trial (OK or WARN) in the files given")
    commands = [command_of(missing) for missing in result.missing]
    print_answer(
        form,
        gap_tables.grids(result, within=within),
        document=lambda: gap_document(result, commands=commands),
        lines=[*result.unserved, *gap_tables.missing_lines(result.missing, commands=commands)],
    )
    if not (result.gaps or result.trainings or result.served):
        raise typer.Exit(int(ExitCode.NOTHING_MATCHED))


def _measured(lines: Iterable[str], *, out: Path) -> list[Path]:
    """Run each of the commands once; returns their result files."""
    import shlex

    from bench.run.arms import run_bench

    paths = []
    for line in dict.fromkeys(lines):
        print_note(line)
        try:
            paths.append(run_bench(shlex.split(line)[2:], out=out))
        except MeasurementError:  # the run has said why
            raise MeasurementError(f"the missing half could not be measured: {line}") from None
    return paths


def _length(
    items: float | None, *, epochs: float, steps: float | None, within: str | None
) -> Length | None:
    from bench.analysis.gap.demand import Length

    for flag, value in (("--items", items), ("--epochs", epochs), ("--steps", steps)):
        if value is not None and not 0.0 < value < 1e18:
            raise UsageError(f"{flag} {value:g} is not a number over 0, such as 1000")
    if items is None and epochs != 1.0:
        raise UsageError("--epochs needs --items, the number of items in one epoch")
    if items is not None and steps is not None:
        raise UsageError("--items and --steps both say how long the training is: leave one out")
    if within is not None and items is None and steps is None:
        raise UsageError("--within is for a whole training: give --steps, or --items as well")
    within_s = None
    if within is not None:
        within_s = parse_duration_s(within, what="--within", is_over_0=True)
    return Length(num_items=items and items * epochs, num_steps=steps, within_s=within_s)


def command(missing: Missing, *, workloads: str = "all") -> str:
    """Command line that measures the half that is missing, '' where --workload leaves it out."""
    import shlex

    from bench.results.reader import is_named
    from bench.run.planning.request import RunRequest, command_words

    present = missing.present
    trials, fact = present.trials, present.trials.text
    is_known = trials.is_script or missing.lacks_training
    phases = (
        ["train" if missing.lacks_training else "infer"] if is_known else _infer_phases(trials.net)
    )
    names = [f"{trials.net}-{phase}" for phase in phases]
    names = [name for name in names if is_named(name, workloads)]
    if not names:
        return ""
    data = fact("data") if fact("data") in ("generated", "resident", "") else "THE_SAME_DATA"
    request = RunRequest(
        workloads=tuple(names),
        sizes=_given(fact("size")),
        dtypes=_given(fact("dtype")),
        data=data if data not in ("generated", "") else None,
        device=fact("device") or None,
        **_parameters(trials.net, size=fact("size"), text=fact("params_json")),
        **_as_given(trials),
        **_layout(trials),
    )
    return shlex.join(["bench", "run", *command_words(request)])


def _given(text: str) -> tuple[str, ...]:
    return (text,) if text else ()


def _as_given(trials: Trials) -> dict[str, Any]:
    """Flags that a row repeats as they were given, but for those of the machine."""
    from bench.run.planning.request import FLAGS, SWITCH, TO_TRIAL

    given = {name: trials.text(name) for name in TO_TRIAL if name not in _OF_MACHINE}
    return {
        name: text.lower() == "true" if FLAGS[name].kind is SWITCH else text or None
        for name, text in given.items()
    }


def _layout(trials: Trials) -> dict[str, Any]:
    """Flags for the devices, their layout and the link, as texts; none for one device."""
    from bench.run.planning.request import MIB

    fact = trials.text
    ranks = [(rank[:2], rank[2:]) for rank in fact("layout").split(" x ")]
    values: dict[str, Any] = {
        "devices": () if fact("device_count") in ("", "1") else (fact("device_count"),),
        "parallel": _given(fact("parallel")),
        "links": _given(fact("link")),
        "mitigate": _given(fact("mitigation")),
        # A device that only simulates says so by itself.
        "mode": fact("mode") or None if fact("link") else None,
    }
    if len(ranks) > 1:
        values |= {kind: count for kind, count in ranks if kind in ("dp", "tp", "pp")}
    values |= {"schedule": fact("schedule")} if fact("schedule") else {}
    values |= {"grad_accum": fact("grad_accum")} if fact("grad_accum") not in ("", "1") else {}
    bucket_bytes = float(fact("bucket_bytes") or 25 * MIB)
    return values | {"bucket_mib": None if bucket_bytes == 25 * MIB else bucket_bytes / MIB}


def _infer_phases(workload: str) -> list[str]:
    from bench import discovery

    try:
        every = discovery.load(workload).cls.phases
        phases = [one.name for one in every if not (one.is_training or one.is_served)]
    except UsageError:  # a workload from a file of the user's, which is not at hand here
        phases = []
    return phases or ["infer"]


def _parameters(workload: str, *, size: str, text: str) -> dict[str, Any]:
    """Flags for the parameters that are not those of the named size."""
    from bench import discovery

    params = json.loads(text or "{}")
    if not isinstance(params, dict):
        return {}
    try:
        found = discovery.load(workload)
        usual = discovery.parameters(discovery.instance(found, size=size or None, overrides={}))
    except UsageError:  # not at hand, or it has no such size any more
        usual = {}
    differing = {
        name: (str(value),)
        for name, value in params.items()
        if name not in usual or usual[name] != value
    }
    return {"batches": differing.pop("batch", ()), "settings": differing}
