"""What a stated load needs of a device when its items wait for one another.

Service times as measured are replayed through a queue (`bench.core.traffic`): how soon items are
done, how many more may come, how many devices are enough. An interval holds what trials, steps and
arrivals leave open; there is none where they are too few. The busiest hour is taken to go on.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from bench.analysis.gap.demand import TRAIN, Demand
from bench.analysis.gap.load import Load, Wanted
from bench.analysis.trials.configuration import PLACE, grouped
from bench.analysis.trials.service_times import ServiceTimes, Steps, service_times
from bench.core.errors import one_of
from bench.core.log_estimate import LogEstimate, exact
from bench.core.queueing import mean_waits
from bench.core.traffic import Sojourns, Traffic, capacity, fewest_servers, sojourn_quantiles
from bench.core.units import format_bytes
from bench.results.reader import is_named

_FAR = 1e6
"""Times slower or faster, beyond which an interval says nothing."""


@dataclass(frozen=True, kw_only=True)
class ServedLoad:
    """One workload's load on devices of one kind, alone or beside other loads."""

    demand: Demand
    load: Load
    times: ServiceTimes
    used_frac: float
    """Part of the devices' time that all loads together take; from 1 on the queue never ends."""
    usable_frac: float | None
    """The same where the limit just holds; None without a limit, 0 where nothing holds it."""
    share: LogEstimate | None
    """Load over the largest that holds the limit; None where there is none."""
    carries_per_s: LogEstimate | None
    """Items per second of this workload where all loads have grown as far as the limit holds."""
    device_s_per_item: LogEstimate | None
    """Device time per item over the part of it that may be used."""
    sojourns: tuple[Sojourns | None, ...]
    """How soon items are done: in the middle, at the fast and at the slow end; None: never."""
    mean_waits_s: tuple[float, ...]
    """By formula, a check of the replay: (all) or (urgent, others); none for several devices."""
    devices: tuple[int | None, ...]
    """Fewest that hold the limit: in the middle, at the fast and at the slow end."""


def serve(
    found: Sequence[Demand], *, wanted: Wanted, steps: Steps
) -> tuple[list[ServedLoad], list[str]]:
    """Answer for every device; and say of which there is none, and why."""
    able = [one for one in found if one.num_trials and one.trials.phase != TRAIN]
    served: list[ServedLoad] = []
    refused: list[str] = []
    for pairs in _together(able, wanted.loads):
        answer = _served(pairs, wanted=wanted, steps=steps)
        refused += [answer] if isinstance(answer, str) else []
        served += [] if isinstance(answer, str) else answer
    return served, refused


def _together(able: Sequence[Demand], loads: Sequence[Load]) -> Iterator[list[tuple[Demand, Load]]]:
    """Demands that share devices, each with its load: one alone, or one of each load."""
    there = list(dict.fromkeys(one.name for one in able))
    wanted = {
        load: [one for one in able if not load.workload or is_named(one.name, load.workload)]
        for load in loads
    }
    for load, demands in wanted.items():
        if not demands and load.workload:
            raise one_of("--load", load.workload, there, hint="(inference of the files given)")
    if len(loads) == 1:
        yield from ([(one, loads[0])] for one in wanted[loads[0]])
        return
    machines = grouped(able, lambda one: tuple(map(one.trials.text, PLACE)))
    for on_machine in machines.values():
        pairs = [(one, load) for load in loads for one in wanted[load] if one in on_machine]
        if pairs:
            yield pairs


def _served(
    pairs: Sequence[tuple[Demand, Load]], *, wanted: Wanted, steps: Steps
) -> list[ServedLoad] | str:
    """Answer for what shares devices of one kind; or say why there is none."""
    if why := _why_not(pairs, wanted.loads):
        return why
    measured = [service_times(demand.trials, steps=steps) for demand, _ in pairs]
    times = [one for one in measured if one is not None]
    if len(times) < len(pairs):
        return f"{_named(pairs)}: no time of an item was measured"
    traffic = _traffic(pairs, times, wanted=wanted)
    rate = math.fsum(kind.weight for kind in traffic.kinds)
    most = capacity(traffic) if wanted.latency_s else None
    parts = () if any(one.no_interval for one in times) else _parts_of_trials(pairs, traffic)
    if most is not None:
        parts = (*most.parts, *parts) if parts and most.parts else ()
    error = LogEstimate(log=0.0, parts=parts, num=min(one.num_trials for one in times))
    usable = most.utilisation if most else None
    reach = error.times(most.rate / rate) if most and most.rate else None
    low, high = error.interval or (1.0, 1.0)
    ends = (1.0, max(low, 1.0 / _FAR), min(high, _FAR))
    sojourns = [sojourn_quantiles(traffic, rate=rate, slower=end) for end in ends]
    devices = tuple(fewest_servers(traffic, rate=rate, slower=end) for end in ends)
    return [
        ServedLoad(
            demand=demand,
            load=load,
            times=of,
            used_frac=rate * traffic.mean / traffic.servers,
            usable_frac=usable,
            share=reach and exact(1.0).over(reach),
            carries_per_s=reach and reach.times(load.items_per_s),
            device_s_per_item=error.times(of.kind.mean / of.items_per_request / usable)
            if usable
            else None,
            sojourns=tuple(one[place] if one else None for one in sojourns),
            mean_waits_s=_mean_waits_s(traffic, rate=rate),
            devices=devices,
        )
        for place, (of, (demand, load)) in enumerate(zip(times, pairs, strict=True))
    ]


def _traffic(
    pairs: Sequence[tuple[Demand, Load]], times: Sequence[ServiceTimes], *, wanted: Wanted
) -> Traffic:
    return Traffic(
        kinds=tuple(
            replace(one.kind, weight=load.items_per_s / one.items_per_request)
            for one, (_, load) in zip(times, pairs, strict=True)
        ),
        servers=wanted.servers,
        at=wanted.at_frac,
        limit=wanted.latency_s or math.inf,
        urgent_share=wanted.urgent_frac,
        urgent_limit=wanted.urgent_s or math.inf,
    )


def _parts_of_trials(
    pairs: Sequence[tuple[Demand, Load]], traffic: Traffic
) -> tuple[tuple[float, float], ...]:
    """Errors of the mean service over trials, each by its part of the work."""
    parts = []
    for (demand, _), kind, weight in zip(pairs, traffic.kinds, traffic.weights, strict=True):
        work_frac = weight * kind.mean / traffic.mean
        if demand.time_per_item_s is not None:
            own = demand.time_per_item_s.parts
            parts += [(work_frac**2 * squared, degrees) for squared, degrees in own]
    return tuple(parts)


def _mean_waits_s(traffic: Traffic, *, rate: float) -> tuple[float, ...]:
    if traffic.servers > 1 or rate * traffic.mean >= 1.0:
        return ()
    urgent = rate * traffic.urgent_share
    rates = [urgent, rate - urgent] if urgent else [rate]
    return tuple(mean_waits(rates, mean=traffic.mean, cv2=traffic.cv2))


def _why_not(pairs: Sequence[tuple[Demand, Load]], loads: Sequence[Load]) -> str:
    """Why these cannot share a device; '' where they can."""
    if len(loads) == 1:
        return ""
    there = [load for _, load in pairs]
    for load in loads:
        if there.count(load) != 1:
            number = "no row" if load not in there else "several settings"
            where = pairs[0][0].device
            return f"--load {load.workload}: {number} on {where}; a device is shared by one of each"
    memory = [one.memory_bytes.value for one, _ in pairs if one.memory_bytes]
    whole = pairs[0][0].trials.median("device_memory_bytes")
    if whole and sum(memory) > whole:
        parts = " and ".join(map(format_bytes, memory))
        return f"{_named(pairs)}: {parts} do not fit into {format_bytes(whole)} together"
    return ""


def _named(pairs: Sequence[tuple[Demand, Load]]) -> str:
    return f"{', '.join(one.name for one, _ in pairs)} on {pairs[0][0].device}"
