"""Notes of a step put in order, by hand; stamps and FSDP's waits are in test_device_link."""

from bench.emulate.replay import Issued, Recorder
from bench.hardware.costs.collectives import Group


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


def test_times_count_from_the_begin_of_the_step():
    one = issued(101.0, start=101.0, end=103.0, waits=[(102.0, 103.5)])
    trace = recorded(one, begin=100.0, end=105.0)
    assert trace.duration_s == 5.0
    (one,) = trace.collectives
    assert (one.issued_s, one.start_s, one.end_s) == (1.0, 1.0, 3.0)
    assert in_order(trace) == [("issue", 0, 1.0, trace.marks[0].end_s), ("wait", 0, 2.0, 3.5)]


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


def test_the_input_was_ready_at_the_earliest_of_its_moments():
    one = issued(3.0, start=4.0, end=5.0, is_on_lane=False)
    one.ready = (3.0, 2.5)
    trace = recorded(one)
    assert trace.collectives[0].issued_s == 2.5
    assert in_order(trace) == [("issue", 0, 2.5, 2.5)]
