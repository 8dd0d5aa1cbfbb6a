"""`bench run`: measure workloads on a device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bench.run.request import RunRequest
    from bench.run.session import Session

Texts = list[str] | None
SPREAD = "Several devices, and the link between them"


def run(
    context: typer.Context,
    workload: Annotated[
        Texts,
        typer.Option(
            "--workload",
            "-w",
            help="all, a name such as imaging-train or imaging, a pattern, or a file ./mine.py",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="a named experiment; other flags override it; bench list recipes"),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(help="tiny, small, base, large; a comma sweeps; default: largest that fits"),
    ] = None,
    batch: Annotated[str | None, typer.Option(help="samples per step; a comma sweeps")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="fp32, tf32, bf16, fp16; a comma sweeps; default: device's")
    ] = None,
    compile_: Annotated[bool, typer.Option("--compile", help="use torch.compile")] = False,
    channels_last: Annotated[
        bool, typer.Option("--channels-last", help="lay tensors out channels last")
    ] = False,
    set_: Annotated[
        Texts, typer.Option("--set", help="parameter key=value; a comma in the value sweeps")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="real input: a folder or file; or 'resident' to leave the loader out"),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, npu, ...; default: best there is")
    ] = None,
    chip_limit: Annotated[
        str | None,
        typer.Option(
            "--chip-limit",
            help="use less of the device: sms=78,memory=24GB on a GPU, cores=2,memory=8GB on a CPU",
        ),
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option(
            help="how many, such as 8 or 1,2,8; real ones, or with --link one and the rest virtual",
            rich_help_panel=SPREAD,
        ),
    ] = None,
    parallel: Annotated[
        str | None, typer.Option(help="ddp, fsdp, tp or pp; a comma sweeps", rich_help_panel=SPREAD)
    ] = None,
    tp: Annotated[
        int | None, typer.Option(help="tensor-parallel ranks", rich_help_panel=SPREAD)
    ] = None,
    dp: Annotated[
        int | None, typer.Option(help="data-parallel ranks", rich_help_panel=SPREAD)
    ] = None,
    pp: Annotated[int | None, typer.Option(help="pipeline stages", rich_help_panel=SPREAD)] = None,
    link: Annotated[
        Texts,
        typer.Option(
            help="modelled link: a preset, bw=25GB/s,latency=5us, a file, or a*8/b*4; "
            "a comma sweeps; `bench list links`",
            rich_help_panel=SPREAD,
        ),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            help="real, throttled, emulated or simulated; default: emulated with --link, else real",
            rich_help_panel=SPREAD,
        ),
    ] = None,
    bucket_mb: Annotated[
        float | None,
        typer.Option(help="MiB of gradients that ddp sends together", rich_help_panel=SPREAD),
    ] = None,
    grad_accum: Annotated[
        int, typer.Option(help="micro-batches in one optimizer step", rich_help_panel=SPREAD)
    ] = 1,
    schedule: Annotated[
        str, typer.Option(help="pipeline: 1f1b or interleaved-2", rich_help_panel=SPREAD)
    ] = "1f1b",
    mitigate: Annotated[
        str | None,
        typer.Option(
            help="none, bf16, powersgd-2, diloco-64, ...; a comma sweeps", rich_help_panel=SPREAD
        ),
    ] = None,
    contention: Annotated[
        str,
        typer.Option(
            help="compute units that communication takes: bracket (none and the link's), none, or "
            "a number",
            rich_help_panel=SPREAD,
        ),
    ] = "bracket",
    threads: Annotated[int | None, typer.Option(help="CPU compute threads")] = None,
    workers: Annotated[int | None, typer.Option(help="loader processes")] = None,
    profile: Annotated[
        str, typer.Option(help="smoke, quick, default or rigorous: 1, 1, 3-5 or 6-10 trials")
    ] = "default",
    trials: Annotated[
        int | None, typer.Option(help="exactly this many trials of each configuration")
    ] = None,
    budget: Annotated[str | None, typer.Option(help="time for the whole run, such as 10m")] = None,
    timeout: Annotated[str, typer.Option(help="longest time for one trial")] = "15m",
    seed: Annotated[int, typer.Option(help="seed of data, weights and order")] = 0,
    oom_shrink: Annotated[
        bool, typer.Option("--oom-shrink", help="halve the batch when memory runs out")
    ] = False,
    out: Annotated[Path, typer.Option(help="folder for the result file")] = Path("results"),
    resume: Annotated[
        str | None, typer.Option(help="go on with a run: its file or id; no other flags")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="show what would run, and run nothing")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="print only the result file's path")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document")] = False,
) -> None:
    """Measure workloads on a device; rows go to a CSV file, a table to stdout."""
    import os

    from bench.cli.flag_texts import parts, settings_of, whole_numbers
    from bench.core.units import parse_duration_s
    from bench.run.cluster import mode_under, world_of
    from bench.run.layouts import LayoutFlags, split_links
    from bench.run.request import RunRequest

    if resume is not None:
        _refuse_other_flags(context)
        _resume(resume, out=out, quiet=quiet, as_json=as_json)
        return
    request = RunRequest(
        workloads=tuple(part for text in workload or () for part in text.split(",") if part),
        sizes=parts(size),
        batches=whole_numbers(batch, flag="--batch"),
        dtypes=parts(dtype),
        settings=settings_of(set_ or []),
        is_compiled=compile_,
        channels_last=channels_last,
        data=data,
        device=device,
        threads=threads,
        workers=workers,
        profile=profile,
        trials=trials,
        budget_s=None if budget is None else parse_duration_s(budget, what="--budget"),
        timeout_s=parse_duration_s(timeout, what="--timeout"),
        seed=seed,
        oom_shrink=oom_shrink,
        chip_limit=chip_limit,
        spread=LayoutFlags(
            devices=_devices(devices),
            parallel=parts(parallel),
            tensor=tp,
            data=dp,
            pipeline=pp,
            links=split_links(tuple(link or ())),
            mode=mode_under(world_of(os.environ), mode=mode, has_link=bool(link)),
            bucket_mb=bucket_mb,
            grad_accum=grad_accum,
            schedule=schedule,
            mitigate=parts(mitigate),
            contention=contention,
        ),
    )
    if recipe is not None:
        from bench.run.recipes import with_recipe

        request = with_recipe(recipe, request)
    _run(request, out=out, quiet=quiet, as_json=as_json, dry_run=dry_run)


def _refuse_other_flags(context: typer.Context) -> None:
    from bench.core.errors import UsageError

    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        is_given = source is not None and source.name == "COMMANDLINE"
        if is_given and name not in ("resume", "out", "quiet", "as_json"):
            raise UsageError(
                f"--resume goes on with the stored plan and takes no {parameter.opts[0]}; "
                "only --out, --quiet and --json go with it"
            )


def _devices(text: str | None) -> tuple[int, ...]:
    """Return --devices; under torchrun it is as many as torchrun started."""
    import os

    from bench.cli.flag_texts import whole_numbers
    from bench.run.cluster import devices_under, world_of

    return devices_under(world_of(os.environ), devices=whole_numbers(text, flag="--devices"))


def _run(request: RunRequest, *, out: Path, quiet: bool, as_json: bool, dry_run: bool) -> None:
    from bench.cli.output import print_note
    from bench.cli.run_output import show_plan
    from bench.run import session

    plan, inspection = session.prepare(request, note=(lambda _text: None) if quiet else print_note)
    if dry_run:
        show_plan(plan, as_json=as_json)
        return
    _go(session.begin(plan, inspection, folder=out), quiet=quiet, as_json=as_json)


def _resume(name: str, *, out: Path, quiet: bool, as_json: bool) -> None:
    from bench.cli.output import print_note
    from bench.run import session

    _go(session.resume(name, folder=out, note=print_note), quiet=quiet, as_json=as_json)


def _go(session: Session, *, quiet: bool, as_json: bool) -> None:
    from bench.cli.output import is_interactive, print_note, progress_console
    from bench.cli.run_output import choices_of, print_result, show_result
    from bench.run.profiling import record_profiles, wants_profiles
    from bench.run.progress import BarProgress, PlainProgress, Progress, QuietProgress
    from bench.run.session import exit_code

    progress: Progress
    if quiet:
        progress = QuietProgress()
    elif is_interactive():
        progress = BarProgress(progress_console())
    else:
        progress = PlainProgress()
    if not quiet:
        for text in choices_of(session.plan):
            progress.note(text)
    ended = session.run(progress)
    code = exit_code(ended, session.plan)
    path = session.store.path
    if as_json:
        print_result(ended, path=path, code=code)
    else:
        show_result(ended, path=path, quiet=quiet)
    if ended.problem is not None:
        print_note(f"bench: {ended.problem}")
    if ended.was_interrupted:
        print_note(f"bench: interrupted; go on with: bench run --resume {path}")
    if not (ended.was_interrupted or ended.problem) and wants_profiles(session):
        record_profiles(session, rows=ended.rows, note=(lambda _: None) if quiet else print_note)
    if code:
        raise typer.Exit(int(code))
