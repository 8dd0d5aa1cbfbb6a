"""`bench project`: what a measured run would be on a chip that is absent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from bench.cli.options import (
    AsJson,
    OutputFormat,
    SizeFor,
    To,
    Workloads,
    chosen_format,
)
from bench.cli.output import print_answer, print_note
from bench.cli.project_net import (
    GlobalBatch,
    MicroBatch,
    Net,
    NetFlags,
    Program,
    RecomputeFlag,
    Replicas,
    Schedule,
    Search,
    Stages,
    Tensor,
    net_answer,
)
from bench.core.errors import ExitCode, NothingMatchedError, UsageError
from bench.core.nouns import Chip

if TYPE_CHECKING:
    from bench.analysis.projection.measured import Start
    from bench.analysis.projection.roofs import Unknown
    from bench.hardware.costs.cost import CostModel
    from bench.report.tables.grid import Grid

    Answer = tuple[list[Grid], list[str], Callable[[], dict[str, object]]]


def project(
    result_files: Annotated[
        list[Path] | None, Argument(help="Result files; --net works without.", metavar="CSV...")
    ] = None,
    workload: Workloads = None,
    to: To = None,
    dtype: Annotated[str | None, Option(help="Another dtype than was measured.")] = None,
    steps: Annotated[
        float | None, Option(help="Optimizer steps of the whole training, for its time.")
    ] = None,
    devices: Annotated[
        int | None, Option(help="Chips that share the work (default 1, or --net's layout).")
    ] = None,
    link: Annotated[
        str | None, Option(help="Link between them, such as h20-nvlink; default: its own.")
    ] = None,
    score: Annotated[
        bool, Option("--score", help="Score the method on a CSV of published ratios.")
    ] = False,
    size_for: SizeFor = None,
    profile_operators: Annotated[
        bool, Option("--profile-operators", help="First profile, here, what has no profile yet.")
    ] = False,
    net: Net = None,
    tensor: Tensor = None,
    stages: Stages = None,
    replicas: Replicas = None,
    micro_batch: MicroBatch = None,
    global_batch: GlobalBatch = None,
    recompute: RecomputeFlag = None,
    schedule: Schedule = None,
    software: Program = None,
    search: Search = False,
    output_format: OutputFormat = "table",
    as_json: AsJson = False,
) -> None:
    """Project measured rows to chips of the catalogue: intervals with reasons, never one number."""
    from bench.analysis.projection.measured import in_dtype

    form, files = chosen_format(output_format, as_json=as_json), result_files or []
    flags = NetFlags(net, tensor, stages, replicas, micro_batch, global_batch, recompute,
                     schedule, software, search)  # fmt: skip
    flags.check()
    if net is not None:
        if (workload, steps, size_for) != (None, None, None) or score or profile_operators:
            raise UsageError("--net goes with --to, --devices, --link, --dtype and its own flags")
        chips = chips_of(to or "")
        count = flags.devices if devices is None else devices
        answer = net_answer(flags, files=files, chips=chips, devices=count, link=link, dtype=dtype)
        grids, lines, document = answer
        print_answer(form, grids, lines=lines, document=document)
        return
    devices = 1 if devices is None else devices
    if not files:
        raise UsageError("name result files, or a net: --net llama3-8b --to h800-sxm --devices 64")
    if score:
        others = (to, dtype, steps, link, size_for, workload)
        if any(one is not None for one in others) or devices != 1 or profile_operators:
            raise UsageError("--score takes a file of published ratios and no other choice")
        _score(files, form=form)
        return
    if steps is not None and not (0.0 < steps < 1e18 and size_for is None):
        raise UsageError(
            f"--steps {steps:g} goes with --to and is over 0, such as 250000; a deadline is asked "
            "for as --size-for 'imaging-train 250000 steps in 7 days'"
        )
    if profile_operators:
        _profile(files)
    found, left_out = measured(
        files, workloads=workload or (), note=print_note, has_queue=size_for is not None
    )
    if dtype is not None:
        found = in_dtype(found, dtype)
    if size_for is not None:
        if devices != 1:
            raise UsageError("--size-for finds the number of devices itself: leave --devices out")
        grids, lines, document = sized(size_for, found, to=to, link=link)
    elif to is None:
        raise UsageError("say where to: --to h20,l4 (or all), --size-for TARGET, or --score")
    else:
        grids, lines, document = projected(
            found, left_out, to=to, devices=devices, link=link, steps=steps
        )
    print_answer(form, grids, lines=lines, document=document)
    if not grids:
        raise typer.Exit(int(ExitCode.NOTHING_MATCHED))


def _profile(files: Sequence[Path]) -> None:
    """Record operator profiles beside result files; refuses when workload or device changed."""
    from bench.run import session

    for path in files:
        begun = session.resume(str(path), folder=path.parent, note=print_note)
        with begun.store:
            session.record_profiles(begun, note=print_note)


def measured(
    files: Sequence[Path],
    *,
    workloads: Sequence[str],
    note: Callable[[str], None],
    has_queue: bool = False,
) -> tuple[list[Start], list[Unknown]]:
    """What the files hold to project from, and what is none; refuses where nothing is.

    With every step's time only where a queue is made of them.
    """
    from bench.analysis.projection.measured import measured_of
    from bench.analysis.trials.service_times import read_steps
    from bench.results.beside_rows import read_profiles
    from bench.results.reader import read_together

    read = read_together(files, note=note, workloads=workloads)
    profiles = {
        (run_id, *key): profile
        for path, rows in zip(files, read, strict=True)
        for run_id in {str(row["run_id"]) for row in rows}
        for key, profile in read_profiles(path).items()
    }
    steps = read_steps(files, read) if has_queue else None
    rows = [row for each in read for row in each]
    found, left_out = measured_of(rows, profiles=profiles, steps=steps)
    if not found:
        why = "; ".join(f"{one.workload}: {one.reason}" for one in left_out[:3]) or "no row"
        raise NothingMatchedError(f"nothing to project from in the files given: {why}")
    return found, left_out


def chips_of(text: str) -> list[Chip]:
    """Rows of the catalogue that --to names."""
    from bench.hardware.chips import chip, load_chips

    if text.strip() == "all":
        return list(load_chips())
    chips = [chip(part.strip()) for part in text.split(",") if part.strip()]
    if not chips:
        raise UsageError("--to needs chips of the catalogue, such as h20,l4; see bench list chips")
    return list({one.id: one for one in chips}.values())


def cost_model(
    link: str | None, chip: Chip, *, devices: int, is_training: bool
) -> CostModel | None:
    """Model of --link, else of the usual one; None where nothing is exchanged."""
    from bench.analysis.projection.sizing import usual_link
    from bench.hardware.costs.cost import CostModel
    from bench.hardware.links.topology import parse_topology

    if devices == 1 or (link is None and not is_training):  # inference exchanges nothing
        return None
    text = link or usual_link(chip, devices=devices)
    if text is None:
        raise UsageError(f"no link of {chip.id} is known: name one with --link")
    topology = parse_topology(text)
    topology.check_devices(devices)
    return CostModel(topology)


def projected(
    found: Sequence[Start],
    left_out: Sequence[Unknown],
    *,
    to: str,
    devices: int,
    link: str | None,
    steps: float | None = None,
) -> Answer:
    """Tables, lines below them and document of each start on each chip."""
    from bench.analysis.projection import projected as projection
    from bench.analysis.projection.projection_documents import projection_document
    from bench.analysis.projection.roofs import Unknown
    from bench.report.tables.project_tables import projected_grid, refusal_lines

    if not 1 <= devices <= 1 << 20:
        raise UsageError(f"--devices {devices} is not between 1 and {1 << 20}")
    if link is not None and devices == 1:
        raise UsageError("--link joins several devices: give --devices as well")
    answers = [
        projection.project(
            one,
            chip,
            devices=devices,
            link=cost_model(link, chip, devices=devices, is_training=one.is_training),
        )
        for one in found
        for chip in chips_of(to)
    ]
    reported = [one for one in answers if isinstance(one, projection.Projected)]
    refused = [one for one in answers if isinstance(one, Unknown)]
    return (
        [projected_grid(reported, steps=steps)] if reported else [],
        refusal_lines(refused, left_out),
        lambda: projection_document(reported, refused, left_out, steps=steps),
    )


def _score(files: Sequence[Path], *, form: str) -> None:
    from bench.analysis.projection.projection_documents import score_document
    from bench.analysis.projection.published_ratios import read_points
    from bench.analysis.projection.scoring import score_point, summaries
    from bench.report.tables.project_tables import score_grids

    scored = [score_point(point) for path in files for point in read_points(path)]
    print_answer(
        form, score_grids(scored, summaries(scored)), document=lambda: score_document(scored)
    )


def sized(text: str, found: Sequence[Start], *, to: str | None, link: str | None = None) -> Answer:
    """Chips that meet a target; no table where none does."""
    from bench.analysis.projection import sizing
    from bench.analysis.projection.projection_documents import sizing_document
    from bench.report.tables.project_tables import missed_lines, size_grid

    target = sizing.parse_target(text)
    start = sizing.start_for(target, found)
    target = sizing.in_items(target, start)
    others = [one for one in found if one.workload == start.workload and one is not start]
    choices, missed = sizing.size(target, start, chips_of(to or "all"), link=link)
    return (
        [size_grid(target, choices, start=start, others=others)] if choices else [],
        missed_lines(missed),
        lambda: sizing_document(target, start, choices, missed),
    )
