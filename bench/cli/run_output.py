"""What `bench run` says: the plan before it starts, and its rows as tables when it has ended.

Whatever was chosen automatically is given before anything is measured, and how work is spread with
the mode in words. Progress meanwhile is `bench.run.progress`.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli.output import print_grids, print_json
from bench.core.paths import short_path
from bench.core.units import format_duration

if TYPE_CHECKING:
    from bench.run.planning.plan import Plan
    from bench.run.runner import Ended

MODE_WORDS = {
    "real": "real ranks on the link that is there",
    "throttled": "real ranks, held to the modelled link",
    "emulated": "one real rank, the others and the link modelled",
    "simulated": "one real rank's compute, replayed on the modelled link",
}


def choices_of(plan: Plan) -> list[str]:
    """Say what was chosen automatically, one line per distinct choice."""
    lines = [
        f"{planned.config.name}: {planned.config.device}, size {planned.config.size or '-'} "
        f"({planned.size_choice}), {planned.config.dtype}, batch {planned.batch}"
        for planned in plan.planned
    ]
    return [*dict.fromkeys(lines), *_spread_lines(plan)]


def _spread_lines(plan: Plan) -> list[str]:
    """Say how work is spread: one line for each strategy and mode, and what is odd about it."""
    from bench.emulate.pipeline.schedules import pipeline_note

    layouts = list(dict.fromkeys(planned.config.layout for planned in plan.planned))
    spread = [layout for layout in layouts if not layout.is_single]
    lines = []
    for strategy, mode in dict.fromkeys((one.strategy, one.mode) for one in spread):
        alike = [one for one in spread if (one.strategy, one.mode) == (strategy, mode)]
        devices = ", ".join(dict.fromkeys(str(one.devices) for one in alike))
        links = ", ".join(dict.fromkeys(one.link for one in alike if one.link))
        over = f" over {links}" if links else ""
        lines.append(f"{strategy} on {devices} devices{over} [{mode}: {MODE_WORDS[mode]}]")
    notes = [pipeline_note(layout) for layout in spread if layout.strategy == "pp"]
    return [*lines, *dict.fromkeys(note for note in notes if note is not None)]


def show_plan(plan: Plan, *, as_json: bool) -> None:
    """Print what would run; nothing has."""
    if as_json:
        print_json(asdict(plan))
        return
    for line in choices_of(plan):
        print(line)
    print(
        f"{len(plan.planned)} configurations, {plan.min_trials} to {plan.max_trials} trials each, "
        f"profile {plan.profile}, budget {format_duration(plan.budget_s)}"
    )


def print_result(ended: Ended, *, path: Path, code: int) -> None:
    """Print the rows and how the run ended as one JSON document."""
    print_json(
        {
            "path": str(path),
            "exit_code": code,
            "interrupted": ended.was_interrupted,
            "problem": ended.problem,
            "rows": ended.rows,
        }
    )


def show_result(ended: Ended, *, path: Path, quiet: bool) -> None:
    """Print the tables of a run, what is odd about it, and its file; if quiet only the file."""
    if quiet:
        print(path)
        return
    from bench.analysis.trials.configuration import gather
    from bench.report.tables.links_tables import link_grids
    from bench.report.tables.run_table import caption_of, reason_lines, run_grid

    found = gather(ended.rows)
    # Modelled devices have tables of their own.
    modelled = [one for one in found if one.is_wide and one.mode != "real"]
    others = [one for one in found if one not in modelled]
    grids = [*([run_grid(others)] if others else []), *link_grids(found, has_model=False)]
    known = {caption_of(one.first) for one in others}
    devices = dict.fromkeys(caption_of(one.first) for one in modelled)
    lines = [f"device: {device}" for device in devices if device not in known]
    lines += [*reason_lines(ended.rows), f"rows: {short_path(path)}"]
    print_grids(grids, lines=lines)
