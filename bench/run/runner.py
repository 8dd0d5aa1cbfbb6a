"""Run a plan: interleaved trials, one row each, whatever happens.

Round-robin over the configurations in a random order per round, from the recorded seed: what drifts
on the machine then falls on all of them alike. A configuration leaves the rounds when its interval
is narrow enough (never because of what it shows), its time is used up, or it cannot work here.
Where steps are replayed over a link, those of one trial give a row to each link of the sweep.
"""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import msgspec

from bench.core.errors import BenchError, MeasurementError
from bench.core.interrupts import held_back
from bench.core.paths import short_path
from bench.devices.host.foreign_load import QUIET_LIMIT_S, wait_for_quiet
from bench.hardware.costs.cost import model_of
from bench.measure.messages import Failure, TrialResult
from bench.measure.timing import validity
from bench.results.beside_rows import failures_path, keep_logs
from bench.results.schema import USABLE, Row
from bench.results.store import Store, requests_path, samples_path
from bench.run.launching.child import Outcome
from bench.run.launching.observation import (
    Observation,
    keep_requests,
    keep_samples,
    run_watched,
)
from bench.run.launching.torchrun import sibling_pids
from bench.run.planning.plan import Plan, Planned, shrunk
from bench.run.progress import Progress
from bench.run.record import RunFacts, make_request, make_row
from bench.run.stopping import is_precise, next_limits


@dataclass(kw_only=True)
class Arm:
    """One configuration on its way through the rounds."""

    planned: Planned
    usable: list[Row]
    done: set[int]
    """Trials that have a usable row, or are given up."""
    is_ended: bool = False

    @property
    def next_trial(self) -> int:
        """Lowest trial number that is not done."""
        return next(trial for trial in itertools.count() if trial not in self.done)


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a run ended."""

    rows: list[Row]
    was_interrupted: bool
    problem: str | None = None
    """Why it stopped early, when it was not the user."""


class Runner:
    """Runs one plan into one store, whose rows of before count."""

    def __init__(self, plan: Plan, *, facts: RunFacts, store: Store) -> None:
        self.plan = plan
        self.facts = facts
        self.store = store
        self._progress = Progress()
        self.shows_tracebacks = self._lacks_samples = self._has_failures = False
        self._order = random.Random(plan.seed)
        self._effort = plan.effort
        self._started_s = time.monotonic()
        self._idle_power_w: float | None = None
        self.rows = store.rows()
        self.arms = [self._arm(planned) for planned in plan.planned]

    def _arm(self, planned: Planned) -> Arm:
        """Return an arm with the rows of before."""
        own = [row for row in self.rows if row["config_hash"] == planned.config_hash]
        usable = [row for row in own if row["status"] in USABLE]
        return Arm(planned=planned, usable=usable, done={int(row["trial"] or 0) for row in usable})

    def run(self, progress: Progress) -> Ended:
        """Run until every configuration has ended and close the store; no trial makes it raise."""
        self._progress, self._started_s = progress, time.monotonic()
        was_interrupted = False
        problem: str | None = None
        try:
            while active := [arm for arm in self.arms if not self._is_over(arm)]:
                done = {arm.planned.config_hash: len(arm.done) for arm in active}
                for arm in self._order.sample(active, len(active)):
                    if len(arm.done) > done[arm.planned.config_hash]:
                        continue  # it has this round's row by the steps of another
                    if self._is_over(arm):
                        continue  # it has its minimum, and the budget went during this round
                    if self.plan.is_budget_firm and self._left_s() <= 0:
                        self._skip(arm, ("budget", "the time budget was used up"))
                    else:
                        self._run_one(arm)
        except KeyboardInterrupt:
            was_interrupted = True
        except MeasurementError as error:
            problem = str(error)
        finally:
            progress.close()
            self.store.close()
        return Ended(rows=self.rows, was_interrupted=was_interrupted, problem=problem)

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do."""
        return all(map(self._is_over, self.arms))

    # Which trial next ----------------------------------------------------------------------------

    def _is_over(self, arm: Arm) -> bool:
        done = len(arm.done)
        if arm.is_ended or done >= self.plan.max_trials:
            return True
        has_enough = is_precise(arm.usable, effort=self._effort) or self._left_s() <= 0
        return done >= self.plan.min_trials and has_enough

    def _left_s(self) -> float:
        return self.plan.budget_s - (time.monotonic() - self._started_s)

    # One trial -----------------------------------------------------------------------------------

    def _run_one(self, arm: Arm) -> None:
        """Run the arm's next trial, and once more if the first attempt was spoilt."""
        if arm.planned.refusal is not None:
            self._skip(arm, arm.planned.refusal)
            return
        trial = arm.next_trial
        started_s = time.monotonic()
        together = [arm, *self._replayed_with(arm, trial=trial)]
        rows = self._attempt(together, trial=trial)
        codes = _codes(rows[0])
        is_spoilt = codes & validity.RETRYABLE and rows[0]["status"] not in USABLE
        has_time = time.monotonic() - started_s <= self._left_s()
        # A second attempt must fit into the budget, and not begin in the noise of the first.
        if is_spoilt and has_time and ("foreign_cpu_heavy" not in codes or self._wait_for_quiet()):
            rows = self._attempt(together, trial=trial)
        for one, row in zip(together, rows, strict=False):  # a failed trial has but its own
            self._settle(one, row, trial=trial)

    def _replayed_with(self, arm: Arm, *, trial: int) -> list[Arm]:
        """Return the arms that lack this trial and whose row its steps give too."""
        steps = _steps_of(arm.planned)
        others = [one for one in self.arms if one is not arm and steps is not None]
        lacking = [one for one in others if not one.is_ended and trial not in one.done]
        return [one for one in lacking if _steps_of(one.planned) == steps]

    def _settle(self, arm: Arm, row: Row, *, trial: int) -> None:
        codes = _codes(row)
        if row["status"] in USABLE:
            arm.done.add(trial)
            arm.usable.append(row)
            idle_power_w = row.get("idle_power_w")
            if isinstance(idle_power_w, float):
                self._idle_power_w = idle_power_w
        elif codes & validity.RETRYABLE:
            # Go on with other trials only if the environment was at fault, not the program.
            arm.done.add(trial)
            arm.is_ended = bool(codes & validity.FAILING)
        else:
            arm.is_ended = True
            if "out_of_memory" in codes and self.plan.oom_shrink:
                self._shrink(arm.planned)

    def _shrink(self, planned: Planned) -> None:
        smaller = shrunk(planned)
        known = {other.planned.config_hash for other in self.arms}
        if smaller is not None and smaller.config_hash not in known:
            self._progress.note(
                f"{planned.config.name}: out of memory; trying batch {smaller.batch}"
            )
            self.arms.append(self._arm(smaller))

    def _attempt(
        self, arms: Sequence[Arm], *, trial: int, refused: Failure | None = None
    ) -> list[Row]:
        """Run the first arm's trial, or only say why it is not begun; either way it has a row.

        The others' follow, where its steps were replayed over their links.
        """
        facts, started_utc, arm = self.facts, utc_now(), arms[0]
        also_links = tuple(other.planned.config.layout.link for other in arms[1:])
        request = make_request(
            arm.planned,
            trial=trial,
            limits=next_limits(arm.usable, effort=self._effort),
            facts=facts,
            idle_power_w=self._idle_power_w,
        )
        request = msgspec.structs.replace(request, also_links=also_links)
        observation = Observation(idle_power_w=self._idle_power_w)
        outcome = Outcome(failure=refused, log="" if self._has_failures else facts.look_log)
        was_interrupted = False
        if refused is None:
            attempt = self._next_attempt(arm, trial=trial)
            self._announce(arm.planned, trial=trial, attempt=attempt)
            try:
                self._wait_for_quiet()
                started_utc = utc_now()
                outcome = run_watched(
                    request,
                    device=facts.inspection.device,
                    timeout_s=self.plan.timeout_s,
                    observation=observation,
                    on_message=self._progress.message,
                )
            except KeyboardInterrupt as interrupt:
                was_interrupted = True
                cause = str(interrupt) or "the user"
                outcome = Outcome(failure=Failure("interrupted", f"stopped by {cause}"))
        rows = []
        with held_back():
            for one, became in zip(arms, _over_links(outcome, also_links), strict=False):
                row = make_row(
                    one.planned,
                    facts=facts,
                    request=request,
                    attempt=self._next_attempt(one, trial=trial),
                    started_utc=started_utc,
                    outcome=became,
                    observation=observation,
                )
                rows.append(self.store.append(row))
                self.rows.append(rows[-1])
                self._keep_samples(row, became, observation)
        if refused is None:
            also = also_links[: len(rows) - 1]
            self._progress.trial_ended(rows[0], duration_s=outcome.duration_s, also=also)
        if outcome.failure and outcome.log:
            self._keep_log(rows[0], outcome.log)
        if was_interrupted:
            raise KeyboardInterrupt
        return rows

    def _next_attempt(self, arm: Arm, *, trial: int) -> int:
        key = (arm.planned.config_hash, trial)
        before = [row for row in self.rows if (row["config_hash"], row["trial"]) == key]
        return max((int(row.get("attempt") or 1) for row in before), default=0) + 1

    def _wait_for_quiet(self) -> bool:
        """Wait until others leave a trial its processors; False where they did not."""
        if not self.facts.inspection.device.is_here or self.plan.limits.is_smoke:
            return True  # no load of others is judged there
        left_s = max(0.0, self._left_s()) if self.plan.is_budget_firm else QUIET_LIMIT_S
        return wait_for_quiet(
            limit_s=min(QUIET_LIMIT_S, left_s),
            siblings=sibling_pids(os.environ),
            report=self._progress.waiting,
        )

    def _keep_samples(self, row: Row, outcome: Outcome, observation: Observation) -> None:
        """Keep the samples; a row without them is a row all the same."""
        try:
            keep_samples(samples_path(self.store.path), row, outcome, observation)
            keep_requests(requests_path(self.store.path), row, observation)
            if isinstance(outcome.result, TrialResult):
                keep_logs(self.store.path, keys=row, logs=outcome.result.logs)
        except BenchError as error:
            if not self._lacks_samples:
                self._progress.note(f"rows are kept without their samples: {error}")
            self._lacks_samples = True

    def _keep_log(self, row: Row, log: str) -> None:
        """Keep what a failed trial wrote, with its traceback, and say once where it is."""
        path = failures_path(self.store.path)
        title = f"{row['workload']}, trial {row['trial']}, attempt {row['attempt']}"
        with suppress(OSError), path.open("a", encoding="utf-8", errors="replace") as file:
            file.write(f"{title}: {row.get('detail')}\n{log}\n\n")
            if not self._has_failures:
                self._progress.note(f"its output and traceback are in {short_path(path)}")
        if self.shows_tracebacks:
            self._progress.note(log)
        self._has_failures = True

    def _announce(self, planned: Planned, *, trial: int, attempt: int) -> None:
        done = sum(len(arm.done) for arm in self.arms)
        going_on = [arm for arm in self.arms if not arm.is_ended]
        left = sum(max(0, self.plan.max_trials - len(arm.done)) for arm in going_on)
        self._progress.trial_started(
            planned, trial=trial, attempt=attempt, done=done, total=done + left
        )

    def _skip(self, arm: Arm, refusal: tuple[str, str]) -> None:
        """Write the row of a configuration that is not begun."""
        arm.is_ended = True
        (row,) = self._attempt([arm], trial=arm.next_trial, refused=Failure(*refusal))
        self._progress.note(f"{arm.planned.config.name}: {row['status']}: {refusal[1]}")


def _steps_of(planned: Planned) -> tuple[Planned, int | None] | None:
    """Return what is measured where steps are replayed over a link; None where they are not.

    Equal but for the link, and over tensor ranks for the nodes: which of them share one is traced.
    """
    config, layout = planned.config, planned.config.layout
    if not layout.link or (layout.mode != "simulated" and config.device != "fake"):
        return None
    node_size = None if layout.tensor == 1 else model_of(layout.link).topology.node_size
    steps = replace(config, layout=replace(layout, link=""))
    return replace(planned, config=steps), node_size


def _over_links(outcome: Outcome, links: Sequence[str]) -> list[Outcome]:
    """Return what became of a trial, and the same over further links where it has a result."""
    result = outcome.result
    if not isinstance(result, TrialResult):
        return [outcome]
    others = [msgspec.structs.replace(result, row=result.over_links[link]) for link in links]
    return [outcome, *(replace(outcome, result=other) for other in others)]


def _codes(row: Row) -> set[str]:
    return set(str(row.get("reasons") or "").split(";")) - {""}


def utc_now() -> str:
    """Return the time as a row has it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
