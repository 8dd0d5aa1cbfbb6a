"""What a user sees on stderr while a run goes on: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from bench.core.units import counted, format_duration, format_number
from bench.measure.messages import News, ServedSoFar, Stage, StepsSoFar, Written
from bench.results.schema import USABLE, Row
from bench.run.planning.plan import Planned

STAGE_WORDS = {
    "start": "starting",
    "import": "importing",
    "build": "building",
    "transfer": "moving to the device",
    "idle": "reading idle power",
    "check": "checking the output",
    "warmup": "warming up",
    "window": "measuring",
    "services": "timing services",
}


class Progress:
    """Follows all that happens in a run; by itself prints what cannot be used, for `--quiet`."""

    def note(self, text: str) -> None:
        """Print a line that stays."""
        with contextlib.suppress(OSError):  # a full disk under a log must not cost the run
            print(text, file=sys.stderr, flush=True)

    def trial_started(
        self, planned: Planned, *, trial: int, attempt: int, done: int, total: int
    ) -> None:
        """Begin a trial; `total` is the most that may still come."""

    def waiting(self, text: str) -> None:
        """Show what the trial waits for before it starts; called again while it does."""

    def message(self, message: News) -> None:
        """Take a message of the running trial."""

    def trial_ended(self, row: Row, *, duration_s: float, also: Sequence[str] = ()) -> None:
        """End a trial with its row; further links that its steps were replayed over."""
        if row["status"] not in USABLE:
            self.note(f"{row['workload']}: {describe_row(row)}")

    def close(self) -> None:
        """Take everything transient off the screen."""


def describe_row(row: Row) -> str:
    """One line about a finished trial."""
    reasons = str(row.get("reasons") or "").replace(";", ", ")
    status = f"{row['status']}" + (f" ({reasons})" if reasons else "")
    if row.get("scenario") != "closed_loop" and (came := _served(row)):
        return f"{came}, {status}"
    throughput = row.get("throughput_per_s")
    if not isinstance(throughput, float):
        return f"{status} {row.get('detail') or ''}".strip()
    unit = f"{row.get('items_unit')}/s"
    step = row.get("step_median_ms")
    step_text = f", step {format_duration(step / 1e3)}" if isinstance(step, float) else ""
    why = f" {row['detail']}" if row.get("detail") and row["status"] not in USABLE else ""
    return f"{format_number(throughput)} {unit}{step_text}, {status}{why}"


def _served(row: Row) -> str:
    """What became of the requests of a trial."""
    parts = []
    if isinstance(rate := row.get("capacity_per_s"), float):
        parts.append(f"carries {format_number(rate)}/s ({row.get('capacity_is')})")
    if isinstance(rate := row.get("offered_per_s") or row.get("achieved_per_s"), float):
        parts.append(f"{row['requests']} requests at {format_number(rate)}/s")
    if (is_valid := row.get("loadgen_valid")) is not None:
        parts.append(f"LoadGen: {'VALID' if is_valid else 'INVALID'}")
    for name, words in (("attainment_frac", "in time"), ("utilisation_frac", "used")):
        if isinstance(share := row.get(name), float):
            parts.append(f"{100 * share:.4g} % {words}")
    if isinstance(wait := row.get("wait_p50_ms"), float):
        parts.append(f"wait {format_duration(wait / 1e3)}")
    return ", ".join(parts)


class PlainProgress(Progress):
    """A line when a trial starts and one when it ends; for logs and CI."""

    indent = "      "

    def __init__(self) -> None:
        self._durations_s: list[float] = []
        self._name = ""
        self._is_waiting = self._is_in_line = False

    def note(self, text: str) -> None:
        """Print a line that stays, below what a program has written."""
        self.close()
        super().note(text)

    def message(self, message: News) -> None:
        """Show what a user's own program writes."""
        if isinstance(message, Written):
            self._is_in_line = not message.chunk.endswith(b"\n")
            with contextlib.suppress(OSError, ValueError):  # standard error is closed, or full
                sys.stderr.flush()
                sys.stderr.buffer.write(message.chunk)
                sys.stderr.buffer.flush()

    def close(self) -> None:
        """End a line that a program has left open."""
        if self._is_in_line:
            self._is_in_line = False
            super().note("")

    def trial_started(
        self, planned: Planned, *, trial: int, attempt: int, done: int, total: int
    ) -> None:
        """Print which trial starts, and how long the rest will take."""
        self._name, self._is_waiting = _label(planned), False
        left_s = self.left_s(total - done)
        eta = "" if left_s is None else f", at most {format_duration(left_s)} left"
        retry = f", retry (attempt {attempt})" if attempt > 1 else ""
        self.note(f"[{done + 1}/{total}] {self._name} trial {trial + 1}{retry}{eta}")

    def waiting(self, text: str) -> None:
        """Print what is waited for, once."""
        if not self._is_waiting:
            self.note(self.indent + text)
        self._is_waiting = True

    def left_s(self, trials: int) -> float | None:
        """Return the time that so many trials will take; None before the first has ended."""
        return trials * fmean(self._durations_s) if self._durations_s else None

    def trial_ended(self, row: Row, *, duration_s: float, also: Sequence[str] = ()) -> None:
        """Leave a line about the trial."""
        num_rows = 1 + len(also)
        self._durations_s += [duration_s / num_rows] * num_rows
        took, replayed = format_duration(duration_s), f", also over {', '.join(also)}"
        ended = f"{self._name}: {describe_row(row)} [{took}]{replayed if also else ''}"
        self.note(self.indent + ended)


class BarProgress(PlainProgress):
    """One live line with a bar, the stage, the running estimate and the time left."""

    indent = ""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        super().__init__()
        self._progress = RichProgress(
            TextColumn("{task.fields[name]}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[eta]}"),
            TextColumn("[dim]{task.fields[stage]}"),
            console=Console(file=sys.stderr, highlight=False, force_terminal=True),
            transient=True,
        )
        self._task = self._progress.add_task("", total=1, name="", eta="", stage="")
        self._progress.start()
        self._trials_left = 0
        self._trial_started_s = 0.0

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(text, markup=False)

    def trial_started(
        self, planned: Planned, *, trial: int, attempt: int, done: int, total: int
    ) -> None:
        """Move the bar on to this trial."""
        self._name, self._trials_left = _label(planned), total - done
        self._trial_started_s = time.monotonic()
        name = f"{self._name} (retry)" if attempt > 1 else self._name
        self._update(completed=done, total=total, name=name, stage="starting")

    def waiting(self, text: str) -> None:
        """Show what is waited for."""
        self._update(stage=text)

    def message(self, message: News) -> None:
        """Show the stage, or the running estimate."""
        if isinstance(message, Stage):
            stage = STAGE_WORDS.get(message.name, message.name)
        elif isinstance(message, ServedSoFar):
            held = "" if message.held_frac is None else f", {100 * message.held_frac:.4g} % in time"
            stage = f"serving {message.arrivals}: {counted(message.num, 'request')}{held}"
        elif isinstance(message, StepsSoFar):
            steps = counted(message.steps, "step")
            stage = f"measuring: {steps}, {format_duration(message.step_s)} each"
        else:
            return
        self._update(stage=stage)

    def _update(self, **fields: Any) -> None:
        left_s = self.left_s(self._trials_left)
        if left_s is not None:
            left_s = max(0.0, left_s - (time.monotonic() - self._trial_started_s))
            fields["eta"] = f"<= {format_duration(left_s)} left"
        self._progress.update(self._task, **fields)

    def close(self) -> None:
        """Remove the bar."""
        self._progress.stop()


def progress_of(*, quiet: bool, has_bar: bool) -> Progress:
    """Return what shows a run."""
    if quiet:
        return Progress()
    return BarProgress() if has_bar else PlainProgress()


def _label(planned: Planned) -> str:
    config = planned.config
    compiled = " compiled" if config.compile else ""
    size = f" {config.size}" if config.size else ""
    over = f" over {config.layout.link}" if config.layout.link else ""
    batch = batch_text(planned, " batch {}")
    dtype = "" if config.server else f" {config.dtype}"
    return f"{config.name}{size}{dtype}{batch}{compiled}{over}"


def batch_text(planned: Planned, form: str) -> str:
    """The batch in words; '' where a program or a server does not show it."""
    return "" if planned.batch is None else form.format(planned.batch)
