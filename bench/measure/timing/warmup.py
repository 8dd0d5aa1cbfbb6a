"""Warm-up until the steps are steady, or until its limit; never assumed.

Steady: the medians of the last two windows of w = max(5 steps, 1 s) differ by at most 2 % or two
standard errors, with no new compiled graph, no growth of the allocator and a compute clock within
2 %. How far steps spread is no part of it: that is in the interval. Barrett et al. (OOPSLA 2017,
"Virtual machine warmup blows hot and cold") is why this is detected: many programs never become
steady.
"""

from dataclasses import dataclass
from typing import Any

from bench.measure.engine.engine import Engine, Stepping
from bench.measure.timing.drift import is_level, levelled
from bench.measure.timing.limits import Limits
from bench.measure.timing.window import Agree, window_of

CHUNK_S = 0.5
"""Two of them make the second over which allocator, graphs and clock are compared."""


@dataclass(frozen=True, kw_only=True)
class Warmup:
    """What happened before the window; `step_s` starts with the first step."""

    step_s: list[float]
    wall_s: float
    """Without the first step."""
    has_converged: bool
    recompiles: int | None
    """Graphs compiled after the first step."""


def warm_up(engine: Engine, *, limits: Limits, agree: Agree | None = None) -> Warmup:
    """Run steps until they are steady or the limit is reached, all ranks as rank 0 finds."""
    return engine.drive(warming_up(engine, limits=limits, agree=agree))


def warming_up(engine: Engine, *, limits: Limits, agree: Agree | None = None) -> Stepping[Warmup]:
    """Time steps as `warm_up` does, whoever does them."""
    first = yield from window_of(engine, should_stop=lambda _elapsed, _steps: True)
    at_first = engine.recompiles()
    step_s, counts = list(first.step_s), list(first.counts)
    start_s = engine.clock.now_s()
    history = [_state(engine)]

    def should_stop(elapsed_s: float, done_s: list[float]) -> bool:
        num_steps = len(step_s) + len(done_s)
        return elapsed_s >= CHUNK_S or _is_over(limits, num_steps, engine.clock.now_s() - start_s)

    while True:
        asked: Any = {"expected_step_s": step_s[-1], "agree": agree}
        chunk = yield from window_of(engine, should_stop=should_stop, **asked)
        step_s.extend(chunk.step_s)
        counts.extend(chunk.counts)
        history.append(_state(engine))
        elapsed_s = engine.clock.now_s() - start_s
        enough = len(step_s) > limits.warmup_min_steps and elapsed_s >= limits.warmup_min_s
        level_s = levelled(step_s[1:], counts[1:])
        steady = enough and is_steady(level_s) and _is_state_steady(history)
        is_over = _is_over(limits, len(step_s), elapsed_s)
        is_ended = (enough and limits.is_smoke) or steady or is_over
        if agree is not None:
            is_ended = agree(0 if is_ended else 1) == 0
        if is_ended:
            graphs, wall_s = engine.recompiles(), elapsed_s
            new = None if graphs is None or at_first is None else graphs - at_first
            return Warmup(step_s=step_s, wall_s=wall_s, has_converged=steady, recompiles=new)


def _is_over(limits: Limits, num_steps: int, elapsed_s: float) -> bool:
    # The cap on steps is for slow ones; fast steps reach it before there is anything to compare.
    has_steps = num_steps <= limits.warmup_max_steps or elapsed_s < limits.warmup_steps_cap_s
    return elapsed_s >= limits.warmup_max_s or not has_steps


def is_steady(step_s: list[float]) -> bool:
    """Whether the last two adjacent windows of max(5 steps, 1 s) agree; False if there are none."""
    last = _tail_count(step_s)
    before = _tail_count(step_s[: len(step_s) - last])
    if not last or not before:
        return False
    return is_level(step_s[-last - before : -last], step_s[-last:])


def _tail_count(step_s: list[float]) -> int:
    """Steps at the end that make max(5 steps, 1 s); 0 if there are not enough."""
    total_s = 0.0
    for count, value_s in enumerate(reversed(step_s), start=1):
        total_s += value_s
        if count >= 5 and total_s >= 1.0:
            return count
    return 0


def _state(engine: Engine) -> tuple[int | None, int | None, float | None]:
    """Graphs compiled, bytes that the allocator holds, compute clock in Hz."""
    adapter = engine.adapter
    return engine.recompiles(), adapter.reserved_bytes(), adapter.compute_clock_hz()


def _is_state_steady(history: list[tuple[int | None, int | None, float | None]]) -> bool:
    """Compare now with about a second ago (two chunks)."""
    if len(history) < 3:
        return False
    (*old, old_hz), (*new, new_hz) = history[-3], history[-1]
    if old != new:
        return False
    return old_hz is None or new_hz is None or abs(new_hz - old_hz) <= 0.02 * old_hz
