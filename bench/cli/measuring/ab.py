"""`bench ab` and `bench calibrate`: two arms in one job, in ABBA blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from bench.cli.options import AsJson, FailOn, Out, OutputFormat, Strict, chosen_format
from bench.cli.output import print_answer, print_json, print_note
from bench.core.errors import DataError, ExitCode, MeasurementError, UsageError
from bench.core.paths import cache_note, short_path, user_path
from bench.core.units import counted

if TYPE_CHECKING:
    from bench.analysis.comparison.noise_floors import NoiseFloor
    from bench.analysis.comparison.verdicts import PairedResult
    from bench.run.arms import ArmRuns

Blocks = Annotated[int, Option(help="ABBA blocks: two trials of each arm in each")]
Quick = Annotated[
    bool, Option("--smoke", help="shortest trials: shows that it runs, measures nothing")
]


def ab(
    flags_a: Annotated[
        str, Argument(help="arm A in quotes: flags of `bench run`, or wrap -- PROGRAM")
    ],
    flags_b: Annotated[str, Argument(help="arm B in quotes, likewise")],
    blocks: Blocks = 5,
    fail_on: FailOn = None,
    python_a: Annotated[
        str | None, Option(help="Python of another environment to run arm A with")
    ] = None,
    python_b: Annotated[
        str | None, Option(help="Python of another environment to run arm B with")
    ] = None,
    strict: Strict = False,
    smoke: Quick = False,
    out: Out = Path("results"),
    output_format: OutputFormat = "table",
    as_json: AsJson = False,
) -> None:
    """Run two arms side by side and say whether B is slower than A (paired, drift cancels)."""
    from bench.analysis.comparison.verdicts import MIN_TRIALS, parse_threshold

    if blocks < MIN_TRIALS:
        raise UsageError(
            f"--blocks {blocks} cannot decide: a verdict needs {MIN_TRIALS} blocks or more, of two "
            "trials of each arm"
        )
    if smoke and (fail_on is not None or strict):
        raise UsageError("--smoke measures nothing: it has no place for --fail-on or --strict")
    form = chosen_format(output_format, as_json=as_json)
    threshold = None if fail_on is None else parse_threshold(fail_on)
    arms = (_arm("A", flags_a, python_a), _arm("B", flags_b, python_b))
    paths = _measure(arms, blocks=blocks, smoke=smoke, out=out)
    results = _judge(arms, threshold_frac=threshold)
    if smoke:
        results = [replace(one, verdict="", reason="smoke: measures nothing") for one in results]
    _show(arms, results, paths=paths, form=form)
    codes = {"REGRESSION": ExitCode.REGRESSION, "NOT COMPARED": ExitCode.INVALID}
    codes |= {"INCONCLUSIVE": ExitCode.INCONCLUSIVE} if strict else {}
    verdicts = {result.verdict for result in results}
    for verdict, code in codes.items():
        if verdict in verdicts:
            raise typer.Exit(int(code))


def _arm(name: str, flags: str, python: str | None) -> ArmRuns:
    import shlex
    import shutil
    import sys

    from bench.run.arms import VERBS, ArmRuns, check_flags

    try:
        words = shlex.split(flags)
    except ValueError as error:
        raise UsageError(f"arm {name}: {flags!r} cannot be read: {error}") from error
    verb = words.pop(0) if words and words[0] in VERBS else "run"
    check_flags(words)
    python = python and str(user_path(python, what=f"--python-{name.lower()}"))
    if python is not None and shutil.which(python) is None:
        raise UsageError(f"--python-{name.lower()} {python} is not a program")
    return ArmRuns(name=name, verb=verb, flags=tuple(words), python=python or sys.executable)


def _measure(arms: tuple[ArmRuns, ArmRuns], *, blocks: int, smoke: bool, out: Path) -> list[Path]:
    """Run both arms and write a result file of each."""
    from bench.analysis.comparison.verdicts import block_order
    from bench.results.whole_files import check_folder
    from bench.run.arms import run_blocks, write_arm

    check_folder(out)
    profile = "smoke" if smoke else "quick"
    run_blocks(arms, order=block_order(blocks), profile=profile, note=print_note)
    return [write_arm(arm, folder=out) for arm in arms]


def _judge(arms: tuple[ArmRuns, ArmRuns], *, threshold_frac: float | None) -> list[PairedResult]:
    """Compare each configuration of A with the one in the same place of B."""
    from bench.analysis.comparison.verdicts import METRICS, compare_arms, default_threshold_frac
    from bench.analysis.trials.configuration import step_per_item_s, time_per_item_s
    from bench.results.schema import USABLE, has_unequal_steps

    results = []
    for place in range(len(arms[0].configurations())):
        both = [rows[place] for arm in arms for rows in arm.rows_by_trial]
        figure = time_per_item_s if any(map(has_unequal_steps, both)) else step_per_item_s
        trials = [
            (arm.name, block, figure(row) if (row := rows[place])["status"] in USABLE else None)
            for arm in arms
            for block, rows in zip(arm.blocks, arm.rows_by_trial, strict=True)
        ]
        device_type = str(both[0].get("device_type"))
        default = default_threshold_frac(METRICS["time"], device_type=device_type)
        result = compare_arms(trials, threshold_frac=threshold_frac or default)
        lost = [str(one.get("reasons")) for one in both if one["status"] not in USABLE]
        if lost:
            why = ", ".join(dict.fromkeys(code for codes in lost for code in codes.split(";")))
            words = f"{len(lost)} of {counted(len(both), 'trial')} lost ({why})"
            result = replace(result, reason="; ".join(filter(None, (result.reason, words))))
        results.append(result)
    return results


def _show(
    arms: tuple[ArmRuns, ArmRuns], results: list[PairedResult], *, paths: list[Path], form: str
) -> None:
    from bench.analysis.trials.titles import LONG, differing, title_of
    from bench.report.tables.cells import Cell, change, ends_of
    from bench.report.tables.grid import Grid

    rows, documents = [], []
    for place, result in enumerate(results):
        pair = [arm.rows_by_trial[0][place] for arm in arms]
        a, b = (title_of(row, shown=(*LONG, *differing(pair))) for row in pair)
        ratio = change(result.ratio, ends=ends_of(result.low, result.high))
        rows.append((a, b, ratio, Cell(word=result.verdict), _advice(result)))
        documents.append({"a": a, "b": b, **asdict(result)})
    print_answer(
        form,
        [Grid(heads=("A", "B", "time B / A [95 %]", "verdict", ""), rows=rows)],
        lines=[
            f"rows of {arm.name}: {short_path(path)}" for arm, path in zip(arms, paths, strict=True)
        ],
        document=lambda: {"paths": list(map(str, paths)), "results": documents},
    )


def _advice(result: PairedResult) -> str:
    parts = [counted(result.num_blocks, "block"), result.reason]
    # Where no block is whole, more of the same would decide nothing.
    is_open = result.verdict == "INCONCLUSIVE" or (
        result.verdict == "NOT COMPARED" and result.num_blocks
    )
    if is_open and result.more_blocks:
        parts.append(f"about {counted(result.more_blocks, 'more block')} would decide")
    return "; ".join(part for part in parts if part)


def calibrate(
    flags: Annotated[str, Argument(help="in quotes: flags of `bench run`, or wrap -- PROGRAM")],
    blocks: Blocks = 5,
    smoke: Quick = False,
    out: Out = Path("results"),
    as_json: AsJson = False,
) -> None:
    """Run one configuration as both arms: how far apart two measurements of the same thing lie.

    The noise floor is kept, and `bench compare` takes no threshold below twice it.
    """
    from bench.analysis.comparison.noise_floors import measure_noise
    from bench.results.reader import read_rows
    from bench.run.runner import utc_now

    if blocks < 2:
        raise UsageError(f"--blocks {blocks} must be at least 2: a floor needs 3 trials of an arm")
    arms = (_arm("A", flags, None), _arm("B", flags, None))
    paths = _measure(arms, blocks=blocks, smoke=smoke, out=out)
    arm_a, arm_b = (read_rows(path) for path in paths)
    floors = measure_noise(arm_a, arm_b, measured_utc=utc_now())
    if as_json:
        print_json({"paths": list(map(str, paths)), "floors": [asdict(one) for one in floors]})
    for floor in floors if not as_json else ():
        typer.echo(
            f"{floor.workload} on {floor.device_name}: noise floor {100 * floor.floor_frac:.2f} % "
            f"(A/A ratio {floor.ratio:.4f}, {counted(floor.num_trials, 'trial')} of each arm)"
        )
    if not floors:
        raise MeasurementError(
            "no noise floor: no configuration has 3 usable trials of each arm; "
            f"the rows with their reasons are in {paths[0]} and {paths[1]}"
        )
    if smoke:
        print_note("not kept: smoke trials are too short to say how noisy this machine is")
    else:
        _keep(floors)


def _keep(floors: Sequence[NoiseFloor]) -> None:
    """Keep floors for `bench compare`; what cannot be kept has been shown, and a note says why."""
    from bench.analysis.comparison.noise_floors import default_noise_path, save_floors

    if (elsewhere := cache_note()) is not None:
        print_note(elsewhere)
    try:
        save_floors(default_noise_path(), floors=floors)
    except DataError as error:
        print_note(f"not kept, so that bench compare does not know it: {error}")
