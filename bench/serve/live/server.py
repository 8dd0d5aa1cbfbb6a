"""One server in real time: it takes batches of what has come, serves them, and notes when.

It runs in the trial's main thread, where the device's engine is; the client's thread sends. A
request ends when the device is done, not when it was given its work.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from bench.measure.timing.clock import Clock
from bench.serve.arrival_files import Arrival
from bench.serve.batcher import BatchRule
from bench.serve.live.clients import Client, ScheduleClient, Sent
from bench.serve.run_report import Report
from bench.serve.tally import LEFT, OK, Served

SWITCH_S = 5e-4
"""How soon the client's thread gets the interpreter from a server that computes in Python."""
IDLE_S = 0.2
"""Between two looks at the time while nothing comes."""

Serve = Callable[[Sequence[int]], object]
"""Serves the requests at these places of the schedule together, and returns when it is done."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Waiting:
    """A request in the queue."""

    sent: Sent
    came_s: float
    shape: Hashable


def run_server(
    schedule: Sequence[Arrival],
    *,
    serve: Serve,
    shapes: Sequence[Hashable],
    rule: BatchRule,
    last_s: float,
    clock: Clock,
    report: Report | None = None,
) -> list[Served]:
    """Serve a schedule, in its order; what still waits at `last_s` is left.

    `shapes` has that of each request: a batch holds one.
    """
    on_sent = None if report is None else report.came
    client = ScheduleClient([one.at_s for one in schedule], clock=clock, on_sent=on_sent)
    found = serve_client(
        client,
        serve=serve,
        shape_of=shapes.__getitem__,
        rule=rule,
        last_s=last_s,
        report=report,
    )
    end_s, sent_s = client.now_s(), list(client.sent_s)
    for place, one in enumerate(schedule):
        if place not in found:
            at_s = max(end_s, one.at_s)
            found[place] = Served(
                scheduled_s=one.at_s,
                sent_s=sent_s[place] if place < len(sent_s) else at_s,
                started_s=at_s,
                ended_s=at_s,
                batch=0,
                status=LEFT,
            )
            if report is not None:
                report.ended(found[place])
    if report is not None:
        report.send(end_s)
    return [found[place] for place in range(len(schedule))]


def serve_client(
    client: Client,
    *,
    serve: Serve,
    shape_of: Callable[[int], Hashable],
    rule: BatchRule,
    last_s: float = math.inf,
    report: Report | None = None,
) -> dict[int, Served]:
    """Serve what a client sends until it is over, or until `last_s`; by the places of requests."""
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    try:
        client.start()
        return _serve(
            client, serve=serve, shape_of=shape_of, rule=rule, last_s=last_s, report=report
        )
    finally:
        client.stop()
        sys.setswitchinterval(interval_s)


def _serve(
    client: Client,
    *,
    serve: Serve,
    shape_of: Callable[[int], Hashable],
    rule: BatchRule,
    last_s: float,
    report: Report | None,
) -> dict[int, Served]:
    found: dict[int, Served] = {}
    waiting: list[_Waiting] = []
    until_s = 0.0
    while (waiting or not client.is_over) and client.now_s() < last_s:
        for sent in client.receive(until_s=until_s):
            place = sent.place
            waiting.append(_Waiting(sent=sent, came_s=sent.sent_s, shape=shape_of(place)))
        now_s = client.now_s()
        chosen = rule.decide(waiting, now_s=now_s)
        if isinstance(chosen, float):
            until_s = min(chosen, now_s + IDLE_S)
        else:
            batch = [waiting[place].sent for place in chosen]
            for place in reversed(chosen):
                waiting.pop(place)
            serve([one.place for one in batch])
            until_s = ended_s = client.now_s()
            for one in batch:
                found[one.place] = Served(
                    scheduled_s=one.scheduled_s,
                    sent_s=one.sent_s,
                    started_s=now_s,
                    ended_s=ended_s,
                    batch=len(batch),
                    status=OK,
                )
                if report is not None:
                    report.ended(found[one.place])
        if report is not None:
            report.look(client.now_s(), is_idle=not waiting)
    return found
