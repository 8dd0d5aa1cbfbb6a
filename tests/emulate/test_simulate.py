"""The event simulation against hand-worked steps, a ticking reference, and what must hold."""

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from step_traces import Happening, RoundPrices, trace_of

from bench.emulate.simulate import replay
from bench.emulate.trace import StepTrace
from bench.hardware.costs.collectives import Group

Step = tuple[list[Happening], list[int], float, list[Group]]


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


def lived_s(lived: StepTrace) -> float:
    """The step with what was still under way when compute was through."""
    return max([lived.duration_s, *(one.end_s for one in lived.collectives)])


def work_s(step: Step) -> float:
    return sum(seconds for _, _, seconds in step[0]) + step[2]


@given(steps())
def test_a_recorded_step_is_reproduced_exactly(step: Step) -> None:
    lived = trace(step)
    again = replay(lived)
    assert again.step_s == pytest.approx(lived_s(lived), abs=1e-9)
    assert again.compute_s == pytest.approx(work_s(step), abs=1e-9)
    assert again.comm_total_s == pytest.approx(sum(step[1]) / 100, abs=1e-9)


@given(steps(), st.integers(1, 4))
def test_another_link_gives_what_would_have_been_lived_on_it(step: Step, slower: int) -> None:
    happenings, sizes, last_s, groups = step
    on_slow = trace((happenings, [size * slower for size in sizes], last_s, groups))
    again = replay(trace(step), model=RoundPrices(s_per_100_bytes=slower))
    assert again.step_s == pytest.approx(lived_s(on_slow), abs=1e-9)


@given(steps())
def test_an_infinite_link_leaves_the_sum_of_compute(step: Step) -> None:
    lived = trace(step)
    free = replay(lived, model=RoundPrices(s_per_100_bytes=0.0))
    assert free.step_s == pytest.approx(work_s(step), abs=1e-9)
    assert free.comm_exposed_s == pytest.approx(0.0, abs=1e-9)


@given(steps(), st.floats(0.0, 3.0), st.floats(0.0, 3.0))
def test_a_slower_link_never_makes_a_step_shorter(step: Step, first: float, second: float) -> None:
    lived = trace(step)
    fast, slow = (
        replay(lived, model=RoundPrices(s_per_100_bytes=price)) for price in sorted((first, second))
    )
    assert fast.step_s <= slow.step_s + 1e-12
    assert slow.step_s <= slow.compute_s + slow.comm_total_s + 1e-12


@given(st.lists(st.integers(1, 50), min_size=1, max_size=6))
def test_collectives_that_share_a_link_follow_one_another(sizes: list[int]) -> None:
    """All are issued at once: the link is busy for the sum of them."""
    happenings: list[Happening] = [("issue", index, 0.0) for index in range(len(sizes))]
    happenings += [("wait", index, 0.0) for index in reversed(range(len(sizes)))]
    again = replay(trace_of(happenings, sizes_bytes=sizes))
    assert again.step_s == pytest.approx(sum(sizes) / 100)
    assert again.comm_exposed_s == pytest.approx(again.comm_total_s)


def test_one_collective_without_overlap_adds_its_time() -> None:
    again = replay(trace_of([("issue", 0, 0.5), ("wait", 0, 0.0)], sizes_bytes=[30], last_s=0.25))
    assert again.step_s == pytest.approx(0.5 + 0.3 + 0.25)
    assert again.comm_exposed_s == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("kind", "waits_hide", "exposed_s"),
    # 0.3 s on the link, of which 0.1 s pass between the call and the wait.
    [("wait", True, 0.2), ("wait", False, 0.3), ("drain", False, 0.2)],
)
def test_what_is_needed_at_once_hides_behind_nothing(
    kind: Literal["wait", "drain"], waits_hide: bool, exposed_s: float
) -> None:
    lived = trace_of([("issue", 0, 0.5), (kind, 0, 0.1)], sizes_bytes=[30], last_s=0.25)
    again = replay(lived, waits_hide=waits_hide)
    assert again.comm_exposed_s == pytest.approx(exposed_s)
    assert again.compute_s == pytest.approx(0.85)
    assert again.step_s == pytest.approx(0.85 + exposed_s)


@given(steps())
def test_hiding_nothing_before_a_wait_never_makes_a_step_shorter(step: Step) -> None:
    lived = trace(step)
    hidden, bare = replay(lived), replay(lived, waits_hide=False)
    assert bare.compute_s == pytest.approx(hidden.compute_s)
    assert bare.step_s <= bare.compute_s + bare.comm_total_s + 1e-9
    every = {mark.collective for mark in lived.marks if mark.kind == "wait"}
    if len(every) == len(lived.collectives):
        assert bare.step_s >= hidden.step_s - 1e-9


def test_traffic_inside_a_node_does_not_hold_up_traffic_between_nodes() -> None:
    happenings: list[Happening] = [("issue", 0, 0.0), ("issue", 1, 0.0), ("wait", 1, 0.0)]
    groups = [Group(4, 1), Group(4, 2)]
    apart = replay(trace_of(happenings, sizes_bytes=[10, 40], groups=groups))
    assert apart.step_s == pytest.approx(0.4)
    together = replay(trace_of(happenings, sizes_bytes=[10, 40]))
    assert together.step_s == pytest.approx(0.5)


def test_a_collective_that_nobody_waits_for_still_costs_its_time() -> None:
    again = replay(trace_of([("issue", 0, 0.1)], sizes_bytes=[50]))
    assert again.step_s == pytest.approx(0.6)
    assert again.comm_exposed_s == pytest.approx(0.5)


def test_the_error_band_is_replayed_at_either_end() -> None:
    lived = trace_of([("issue", 0, 0.1), ("wait", 0, 0.0)], sizes_bytes=[20])
    low, high = (
        replay(lived, model=RoundPrices(), bound=bound).step_s for bound in ("low_s", "high_s")
    )
    assert (low, high) == (pytest.approx(0.2), pytest.approx(0.5))


def test_error_bands_need_a_model() -> None:
    lived = trace_of([("issue", 0, 0.1)], sizes_bytes=[20])
    with pytest.raises(ValueError, match="cost model"):
        replay(lived, bound="low_s")
