"""The event simulation against hand-worked steps, a ticking reference, and what must hold."""

import itertools
import statistics
from collections.abc import Sequence
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.emulate.replay import (
    Collective,
    Mark,
    StepTrace,
    expected_step_s,
    replay,
    straggler_step_s,
)
from bench.hardware.costs.collectives import Group
from tests.emulate.fixed_model import round_prices

Happening = tuple[Literal["issue", "wait", "drain"], int, float]
"""What happens after some seconds of compute, and to which collective."""
Step = tuple[list[Happening], list[int], float, list[Group]]


def trace_of(
    happenings: Sequence[Happening],
    *,
    sizes_bytes: Sequence[int],
    last_s: float = 0.0,
    groups: Sequence[Group] | None = None,
) -> StepTrace:
    """Run a step by ticking: collective i takes a second for each 100 bytes on its link.

    Written apart from the simulation, as its reference: one tick is a millisecond, and each tick
    the lane and both links look at what they may do.
    """
    places = groups or [Group(2)] * len(sizes_bytes)
    now_ms = 0
    issued_ms: dict[int, int] = {}
    start_ms: dict[int, int] = {}
    end_ms: dict[int, int] = {}
    queues: tuple[list[int], list[int]] = ([], [])
    marks: list[Mark] = []

    def is_busy(wanted: int) -> bool:
        return any(
            end_ms[other] > now_ms
            for other in start_ms
            if (places[other].num_nodes > 1) == (places[wanted].num_nodes > 1)
        )

    def look() -> None:
        """Let each link begin with its next collective if it carries nothing."""
        for queue in queues:
            while queue and not is_busy(queue[0]):
                index = queue.pop(0)
                start_ms[index] = now_ms
                end_ms[index] = now_ms + sizes_bytes[index] * 10

    def tick(num_ms: int) -> None:
        nonlocal now_ms
        for _ in range(num_ms):
            now_ms += 1
            look()

    for kind, index, work_s in happenings:
        tick(round(work_s * 1000))
        begin_ms = now_ms
        if kind == "issue":
            issued_ms[index] = begin_ms
            queues[places[index].num_nodes > 1].append(index)
            look()
        else:
            while index not in end_ms or end_ms[index] > now_ms:
                tick(1)
        marks.append(
            Mark(kind=kind, collective=index, start_s=begin_ms / 1000, end_s=now_ms / 1000)
        )
    tick(round(last_s * 1000))
    duration_s = now_ms / 1000
    while len(end_ms) < len(issued_ms):
        tick(1)
    collectives = tuple(
        Collective(
            op="all_reduce",
            num_bytes=size,
            group=places[index],
            modelled_s=size / 100,
            issued_s=issued_ms[index] / 1000,
            start_s=start_ms[index] / 1000,
            end_s=end_ms[index] / 1000,
        )
        for index, size in enumerate(sizes_bytes)
    )
    return StepTrace(duration_s=duration_s, collectives=collectives, marks=tuple(marks))


@st.composite
def steps(draw: st.DrawFn) -> Step:
    """A lane that issues collectives and waits for them, each at most once and never before."""
    count = draw(st.integers(0, 5))
    millis = st.integers(0, 60)
    sizes = draw(st.lists(st.integers(1, 6), min_size=count, max_size=count))
    nodes = draw(st.lists(st.integers(1, 2), min_size=count, max_size=count))
    waited = [draw(st.booleans()) for _ in range(count)]
    issued: list[int] = []
    happenings: list[Happening] = []
    left = [("issue", index) for index in range(count)]
    while left:
        place = draw(st.integers(0, len(left) - 1))
        kind, index = left[place]
        left.pop(place)
        happenings.append((kind, index, draw(millis) / 1000))  # type: ignore[arg-type]
        if kind == "issue":
            issued.append(index)
            if waited[index]:
                left.append(("wait", index))
    return happenings, sizes, draw(millis) / 1000, [Group(4, count) for count in nodes]


def trace(step: Step) -> StepTrace:
    happenings, sizes, last_s, groups = step
    return trace_of(happenings, sizes_bytes=sizes, last_s=last_s, groups=groups)


def lived_s(executed: StepTrace) -> float:
    """The step with what was still under way when compute was through."""
    return max([executed.duration_s, *(one.end_s for one in executed.collectives)])


def work_s(step: Step) -> float:
    return sum(seconds for _, _, seconds in step[0]) + step[2]


@given(steps())
def test_a_recorded_step_is_reproduced_exactly_and_never_shorter_where_nothing_hides(
    step: Step,
) -> None:
    executed = trace(step)
    again = replay(executed)
    assert again.step_s == pytest.approx(lived_s(executed), abs=1e-9)
    assert again.compute_s == pytest.approx(work_s(step), abs=1e-9)
    assert again.comm_total_s == pytest.approx(sum(step[1]) / 100, abs=1e-9)
    bare = replay(executed, waits_hide=False)
    assert bare.compute_s == pytest.approx(again.compute_s)
    assert bare.step_s <= bare.compute_s + bare.comm_total_s + 1e-9
    every = {mark.collective for mark in executed.marks if mark.kind == "wait"}
    if len(every) == len(executed.collectives):
        assert bare.step_s >= again.step_s - 1e-9


@given(steps(), st.integers(1, 4))
def test_another_link_gives_what_would_have_been_lived_and_an_infinite_one_compute(
    step: Step, slower: int
) -> None:
    happenings, sizes, last_s, groups = step
    on_slow = trace((happenings, [size * slower for size in sizes], last_s, groups))
    again = replay(trace(step), model=round_prices(s_per_100_bytes=slower))
    assert again.step_s == pytest.approx(lived_s(on_slow), abs=1e-9)
    free = replay(trace(step), model=round_prices(s_per_100_bytes=0.0))
    assert (free.step_s, free.comm_exposed_s) == pytest.approx((work_s(step), 0.0), abs=1e-9)


@pytest.mark.parametrize(
    ("kind", "waits_hide", "exposed_s"),
    # 0.3 s on the link, of which 0.1 s pass between the call and the wait.
    [("wait", True, 0.2), ("wait", False, 0.3), ("drain", False, 0.2)],
)
def test_what_is_needed_at_once_hides_behind_nothing(
    kind: Literal["wait", "drain"], waits_hide: bool, exposed_s: float
) -> None:
    executed = trace_of([("issue", 0, 0.5), (kind, 0, 0.1)], sizes_bytes=[30], last_s=0.25)
    again = replay(executed, waits_hide=waits_hide)
    assert again.comm_exposed_s == pytest.approx(exposed_s)
    assert again.compute_s == pytest.approx(0.85)
    assert again.step_s == pytest.approx(0.85 + exposed_s)


def test_what_nobody_waits_for_costs_its_time_and_the_band_is_replayed_at_either_end() -> None:
    again = replay(trace_of([("issue", 0, 0.1)], sizes_bytes=[50]))
    assert (again.step_s, again.comm_exposed_s) == pytest.approx((0.6, 0.5))
    executed = trace_of([("issue", 0, 0.1), ("wait", 0, 0.0)], sizes_bytes=[20])
    for bound, step_s in (("low_s", 0.2), ("high_s", 0.5)):
        found = replay(executed, model=round_prices(), bound=bound)
        assert found.step_s == pytest.approx(step_s), bound


def test_the_largest_is_the_mean_of_every_draw_and_what_the_link_adds_is_not_drawn() -> None:
    """Of 1 and 3 drawn twice, three of four draws have a 3: 3 * 3/4 + 1 * 1/4."""
    assert expected_step_s([3.0, 1.0], num_ranks=2) == pytest.approx(2.5)
    times_s = [0.7, 1.0, 1.1, 1.1, 2.5]
    for num_ranks in (1, 2, 3, 4):
        every = [max(draw) for draw in itertools.product(times_s, repeat=num_ranks)]
        estimate = expected_step_s(times_s, num_ranks=num_ranks)
        assert estimate == pytest.approx(statistics.fmean(every))
    assert expected_step_s([1.0, 1.1, 1.5], num_ranks=65_536) == pytest.approx(1.5)
    with pytest.raises(ValueError, match="at least one"):
        expected_step_s([], num_ranks=2)
    # Compute 0.1 or 0.3, and 0.2 exposed in both: two ranks take 0.25 + 0.2.
    replays = [
        replay(trace_of([("issue", 0, work_s), ("wait", 0, 0.0)], sizes_bytes=[20]))
        for work_s in (0.1, 0.3)
    ]
    assert straggler_step_s(replays, num_ranks=2) == pytest.approx(0.45)
