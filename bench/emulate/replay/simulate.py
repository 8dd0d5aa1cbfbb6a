"""Event simulation of a recorded step: the same compute and the same order on another link.

Compute between the marks of a trace is kept as recorded; collectives are queued on serial links in
the order they were issued, and a wait ends when its collective does. With the recorded prices this
is what the step should have taken, so that a difference shows an error of the timer or contention;
with a cost model it is the step on another link, or among other ranks. Left out: that compute runs
slower beside communication.

Ranks that are each as unsteady as the one measured end a step when the slowest does: its expected
compute is the mean of the largest of N draws, exactly, from the order statistics of the measured
sample. Left out: ranks that differ for good (a slow card), and that draws of several ranks may be
correlated (a job that slows all of them), which would make the effect smaller.
"""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bench.emulate.link.serial_link import SerialLinks, level_of
from bench.emulate.replay.recording import Collective, StepTrace
from bench.hardware.costs.cost import CostModel

Bound = Literal["seconds", "low_s", "high_s"]
"""Which of a modelled cost's times is used: the model's, or an end of its error band."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Replay:
    """One simulated step, in seconds."""

    step_s: float
    compute_s: float
    """What the step takes when no collective takes time."""
    comm_total_s: float
    """Sum of the collectives' times on their links, without queueing."""
    comm_exposed_s: float
    """Part of the step in which compute only waited: `step_s - compute_s`."""


def replay(
    trace: StepTrace,
    *,
    model: CostModel | None = None,
    bound: Bound = "seconds",
    is_free: bool = False,
    waits_hide: bool = True,
) -> Replay:
    """Simulate the step; without a model each collective takes what the run's link took for it.

    `bound` needs a model: recorded prices have no band. `is_free`: the trace was recorded
    on a link without time: a collective then begins when the call that issued it returns, since
    what the call took was the recording's and hides nothing. Without `waits_hide` a collective that
    is waited for by name begins with that wait: its result is needed at once, and what the host
    does between the two, looking up the next operator, is no work for it to hide behind.
    """
    if model is None and bound != "seconds":
        raise ValueError("error bands need a cost model")
    times_s = [_price_s(one, model=model, bound=bound) for one in trace.collectives]
    late: set[int] = set()  # begin when they are waited for, not when they are issued
    if not waits_hide:
        late = {mark.collective for mark in trace.marks if mark.kind == "wait"}
    links = SerialLinks()
    end_s: dict[int, float] = {}

    def transfer(index: int, *, ready_s: float) -> None:
        level = level_of(trace.collectives[index].group)
        _, end_s[index] = links.reserve(level, now_s=ready_s, duration_s=times_s[index])

    now_s = recorded_s = compute_s = 0.0
    for mark in trace.marks:
        # Device events resolve half a microsecond, so that two marks may seem to overlap.
        worked_s = max(0.0, mark.start_s - recorded_s)
        index = mark.collective
        if mark.kind == "issue":
            issuing_s = mark.end_s - mark.start_s
            handed_s = mark.end_s if is_free else trace.collectives[index].issued_s
            if index not in late:
                within_s = min(max(handed_s - mark.start_s, 0.0), issuing_s)
                transfer(index, ready_s=now_s + worked_s + within_s)
            worked_s += issuing_s
            now_s += worked_s
        else:
            if index in late:
                transfer(index, ready_s=now_s + worked_s)
            now_s = max(now_s + worked_s, end_s[index])
        compute_s += worked_s
        recorded_s = mark.end_s
    worked_s = max(0.0, trace.duration_s - recorded_s)
    # What no mark waits for is waited for at the end: it must never come for nothing.
    step_s = max([now_s + worked_s, *end_s.values()])
    compute_s += worked_s
    return Replay(
        step_s=step_s,
        compute_s=compute_s,
        comm_total_s=sum(times_s),
        comm_exposed_s=max(0.0, step_s - compute_s),
    )


def _price_s(one: Collective, *, model: CostModel | None, bound: Bound) -> float:
    if model is None:
        return one.modelled_s
    if one.group.num_ranks == 1:
        return 0.0  # nobody to talk to
    price_s: float = getattr(model.cost(one.op, num_bytes=one.num_bytes, group=one.group), bound)
    return price_s


def expected_step_s(step_s: Sequence[float], *, num_ranks: int) -> float:
    """Expect the largest of `num_ranks` draws from measured times; ValueError when there are none.

    With more ranks than measured steps it is a lower bound: slower steps than were ever seen are
    to be expected.
    """
    if not step_s or num_ranks < 1:
        raise ValueError("stragglers need at least one measured step and one rank")
    # The largest is at most the i-th smallest when all draws are: (i / count) ** num_ranks.
    count = len(step_s)
    reached = [(index / count) ** num_ranks for index in range(count + 1)]
    weights = map(operator.sub, reached[1:], reached)
    return math.fsum(map(operator.mul, sorted(step_s), weights))


def straggler_step_s(replays: Sequence[Replay], *, num_ranks: int) -> float:
    """Expect the step of `num_ranks` ranks that wait for each other once in each step.

    The compute of a step is drawn for each rank; what it waits for the link comes on top.
    """
    waited_s = math.fsum(one.comm_exposed_s for one in replays) / max(len(replays), 1)
    return expected_step_s([one.compute_s for one in replays], num_ranks=num_ranks) + waited_s
