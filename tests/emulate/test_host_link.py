"""The modelled link on a CPU: nothing is complete early, collectives queue, notes are put in order.

Stamps and the waits of FSDP are in test_device_link.
"""

import threading
from collections.abc import Iterator
from time import perf_counter

import pytest
import torch
import torch.distributed as dist

from bench.core.errors import UsageError
from bench.emulate.group import Emulation, start_emulation
from bench.emulate.link.completions import Completions, measure_oversleep_s, sleep_until
from bench.emulate.link.serial_link import BETWEEN, INSIDE, SerialLinks
from bench.emulate.replay import Issued, Recorder
from bench.hardware.costs.collectives import Group
from tests.emulate.fixed_model import FixedModel, emulated

MODELLED_S = 0.02


@pytest.fixture
def emulation() -> Iterator[Emulation]:
    with emulated(FixedModel(MODELLED_S)) as started:
        yield started


def test_transfers_queue_on_their_link_and_not_on_the_other():
    links = SerialLinks()
    assert links.reserve(INSIDE, now_s=1.0, duration_s=0.5) == (1.0, 1.5)
    assert links.reserve(INSIDE, now_s=1.2, duration_s=0.5) == (1.5, 2.0)
    assert links.reserve(BETWEEN, now_s=1.2, duration_s=0.5) == (1.2, 1.7)
    assert links.reserve(INSIDE, now_s=3.0, duration_s=0.5) == (3.0, 3.5)
    links.extend(INSIDE, until_s=4.0)
    links.extend(INSIDE, until_s=2.0)
    assert links.reserve(INSIDE, now_s=3.6, duration_s=0.5) == (4.0, 4.5)


@pytest.mark.parametrize("early_s", [0.0, 2e-4, 1.0])
def test_a_sleep_never_ends_early(early_s):
    end_s = perf_counter() + 3e-3
    sleep_until(end_s, early_s=early_s)
    assert perf_counter() >= end_s
    assert 0 <= measure_oversleep_s() <= 5e-4


def test_neither_a_collective_nor_its_future_completes_early(emulation):
    start_s = perf_counter()
    dist.all_reduce(torch.ones(4))
    assert perf_counter() - start_s >= MODELLED_S
    start_s = perf_counter()
    work = dist.all_reduce(torch.ones(4), async_op=True)
    assert work.get_future() is work.get_future()
    assert not work.is_completed()
    (value,) = work.get_future().wait()
    assert perf_counter() - start_s >= MODELLED_S
    assert work.is_completed() and work.is_success()
    assert value.tolist() == [4, 4, 4, 4], "the sum of four equal ranks"

    # On a thread that also watches the clock this would never end.
    def reduce_again(future):
        dist.all_reduce(torch.ones(4), async_op=True).get_future().wait()
        return future.value()

    start_s = perf_counter()
    dist.all_reduce(torch.ones(4), async_op=True).get_future().then(reduce_again).wait()
    assert perf_counter() - start_s >= 2 * MODELLED_S


def test_collectives_of_a_step_follow_one_another_and_others_are_not_noted(emulation):
    emulation.begin_step()
    works = [dist.all_reduce(torch.ones(4), async_op=True) for _ in range(2)]
    for work in works:
        work.wait()
    trace = emulation.end_step().trace
    first, second = trace.collectives
    assert second.start_s == first.end_s > second.issued_s
    for one in trace.collectives:
        assert one.modelled_s == MODELLED_S
        assert one.end_s - one.start_s == pytest.approx(MODELLED_S, abs=1e-9)
    assert [mark.kind for mark in trace.marks] == ["issue", "issue", "wait", "wait"]
    assert trace.duration_s >= 2 * MODELLED_S
    assert trace.marks[-1].end_s >= second.end_s
    dist.all_reduce(torch.ones(4))
    emulation.begin_step()
    trace = emulation.end_step().trace
    assert trace.collectives == () and trace.marks == ()
    emulation.begin_step()
    work = dist.all_reduce(torch.ones(4), async_op=True)
    first = emulation.end_step()
    emulation.begin_step()
    work.wait()
    second = emulation.end_step()
    # Put in order only now: what came after the step must not have got into it.
    assert [mark.kind for mark in first.trace.marks] == ["issue"]
    assert second.trace.marks == ()


def test_due_callables_run_in_order_and_a_blocked_one_stops_none():
    completions = Completions()
    order: list[str] = []
    release, done = threading.Event(), threading.Event()
    now_s = perf_counter()

    def block():
        order.append("first")
        assert release.wait(10) and completions.is_own_thread
        order.append("released")
        done.set()

    completions.call_at(now_s + 0.02, lambda: (order.append("second"), release.set()))
    completions.call_at(now_s + 0.01, block)
    assert done.wait(10)
    assert order == ["first", "second", "released"]
    assert not completions.is_own_thread
    completions.close()


def test_a_device_without_a_readable_clock_is_refused():
    with pytest.raises(UsageError, match="meta.*CPU or an NVIDIA GPU.*simulated"):
        start_emulation(num_ranks=2, model=FixedModel(), device=torch.device("meta"))
    assert not dist.is_initialized()


def test_the_compiler_is_told_both_bandwidths_and_gets_its_settings_back():
    from torch._inductor import config

    def seconds(op, num_bytes, group):
        bytes_per_s = 7e9 if group.num_nodes == 1 else 2e9
        return num_bytes * (group.num_ranks - 1) / group.num_ranks / bytes_per_s

    before = config.intra_node_bw, config.inter_node_bw
    model = FixedModel(seconds, node_size=4)
    with emulated(model, num_ranks=9):  # 4, 4 and 1 on a node
        assert (config.intra_node_bw, config.inter_node_bw) == (7, 4 * 2)
    with emulated(FixedModel(0.0), num_ranks=12):
        assert (config.intra_node_bw, config.inter_node_bw) == before


def issued(at, *, start, end, is_on_lane=True, is_future_taken=False, **given):
    return Issued(
        op="all_reduce",
        num_bytes=8,
        group=Group(2),
        modelled_s=end - start,
        mark_start=at,
        mark_end=at + 0.1,
        is_on_lane=is_on_lane,
        ready=(at,),
        start=start,
        end=end,
        is_future_taken=is_future_taken,
        **given,
    )


def in_order(trace):
    return [(mark.kind, mark.collective, mark.start_s, mark.end_s) for mark in trace.marks]


def recorded(*collectives, drains=(), begin=0.0, end=20.0):
    recorder = Recorder()
    recorder.begin(begin)
    recorder.notes.issued.extend(collectives)
    recorder.notes.drained.extend(drains)
    return recorder.end(end, resolve=float).trace


def future(at, *, end, start=None, **given):
    """One whose future is taken, so that a drain waits for it."""
    return issued(at, start=at if start is None else start, end=end, is_future_taken=True, **given)


def test_times_count_from_the_begin_of_the_step_and_an_input_is_ready_at_its_earliest():
    one = issued(101.0, start=101.0, end=103.0, waits=[(102.0, 103.5)])
    trace = recorded(one, begin=100.0, end=105.0)
    assert trace.duration_s == 5.0
    (one,) = trace.collectives
    assert (one.issued_s, one.start_s, one.end_s) == (1.0, 1.0, 3.0)
    assert in_order(trace) == [("issue", 0, 1.0, trace.marks[0].end_s), ("wait", 0, 2.0, 3.5)]
    one = issued(3.0, start=4.0, end=5.0, is_on_lane=False)
    one.ready = (3.0, 2.5)
    trace = recorded(one)
    assert trace.collectives[0].issued_s == 2.5
    assert in_order(trace) == [("issue", 0, 2.5, 2.5)]


def test_a_drain_waits_for_each_future_in_order_and_for_none_that_was_waited_for():
    two = recorded(
        future(1.0, end=4.0),
        future(2.0, start=4.0, end=9.0, seen=9.5),
        issued(2.5, start=0.0, end=9.0),  # nobody waits for it
        drains=[(3.0, 10.0)],
    )
    waits = [mark for mark in in_order(two) if mark[0] != "issue"]
    assert waits == [("drain", 0, 3.0, 4.0), ("drain", 1, 4.0, 9.5)]
    # What a callback issues while compute waits is issued before its wait.
    nested = recorded(
        future(1.0, end=4.0), future(4.2, end=6.0, is_on_lane=False), drains=[(3.0, 7.0)]
    )
    assert [mark[:2] for mark in in_order(nested)[:2]] == [("issue", 0), ("drain", 0)]
    assert in_order(nested)[2:] == [("issue", 1, 4.0, 4.0), ("drain", 1, 4.0, 6.0)]
    explicit = recorded(future(1.0, end=4.0, waits=[(2.0, 4.0), (5.0, 5.0)]), drains=[(6.0, 7.0)])
    assert [mark[:2] for mark in in_order(explicit)] == [("issue", 0), ("wait", 0)]
