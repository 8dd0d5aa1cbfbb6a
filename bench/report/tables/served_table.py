"""What a load needs when its items wait for one another: how soon each is done, how many may come.

An interval is from the fast end of what was measured to the slow end; where more comes than can be
served, a time has no end. What it rests on stands below the table, always.
"""

from collections.abc import Sequence

from bench.analysis.gap.load import DAYS, Wanted
from bench.analysis.gap.served import ServedLoad
from bench.core.units import counted, plural
from bench.report.tables import cells
from bench.report.tables.cells import AnyCell, Cell
from bench.report.tables.grid import Grid

NO_END = "no end"
OWN_TIME = "a server adds its own time"


def served_grid(found: Sequence[ServedLoad], *, wanted: Wanted, shown: Sequence[str]) -> Grid:
    """One line for each load on each device; `shown` is what distinguishes their titles."""
    at, in_rows = wanted.at, shown if len(found) > 1 else ()
    return Grid.of(
        found,
        {
            "inference": lambda one: cells.title_cell(one.demand.trials.first, shown=in_rows),
            "device": lambda one: one.demand.device,
            "load": lambda one: one.load.amount if len(wanted.loads) > 1 else "",
            "service": lambda one: cells.quantity(one.times.kind.mean, cells.seconds),
            "used": lambda one: cells.share(one.used_frac),
            "half done in": lambda one: _time(one, "half"),
            f"{at} done in": lambda one: _time(one, "most"),
            f"urgent {at} in": lambda one: _time(one, "urgent_most"),
            "carries": _carries,
            "share needed": lambda one: cells.figure(one.share, cells.percent),
            "usable": lambda one: cells.share(one.usable_frac),
            "devices": _devices,
        },
        title=_title(found, wanted=wanted, shown=shown),
        notes=_notes(found, wanted=wanted),
        names=("device",),
        spare=("usable", "service", "half done in", "share needed", "used"),
    )


def _title(found: Sequence[ServedLoad], *, wanted: Wanted, shown: Sequence[str]) -> str:
    """What was asked; and of what, where that is one configuration alone."""
    alone = [cells.title_cell(one.demand.trials.first, shown=shown) for one in found]
    parts = [
        cells.text_of(alone[0]) if len(alone) == 1 else "",
        wanted.loads[0].amount if len(wanted.loads) == 1 else "together",
        f"{wanted.busy_hour} of a day in the busiest hour" if wanted.busy_hour else "",
        f"{wanted.at} within {wanted.latency}" if wanted.latency else "",
        f"urgent {wanted.urgent.replace(':', ' within ')}" if wanted.urgent else "",
        f"{wanted.servers} devices" if wanted.servers > 1 else "one device",
    ]
    return f"With waiting: {', '.join(filter(None, parts))} [95 %]"


def _time(one: ServedLoad, name: str) -> AnyCell:
    """A time in the middle, with its fast and its slow end."""
    middle, fast, slow = (None if of is None else getattr(of, name) for of in one.sojourns)
    if middle is None:
        return NO_END if one.sojourns[0] is None and name != "urgent_most" else ""
    whole = cells.quantity(middle, cells.seconds, ends=cells.ends_of(fast, slow or middle))
    if slow is not None or isinstance(whole, str):
        return whole
    fast_end = cells.text_of(cells.quantity(fast, cells.seconds))
    return Cell(text=whole.text, aside=f"[{fast_end}, {NO_END}]", key=middle)


def _carries(one: ServedLoad) -> AnyCell:
    unit, load = one.demand.items_unit or "item", one.load
    if one.usable_frac == 0.0:
        return "none"
    return cells.figure(
        one.carries_per_s, cells.of(f"{unit}/{load.period}", period_s=load.period_s)
    )


def _devices(one: ServedLoad) -> AnyCell:
    middle, fast, slow = ("none" if num is None else f"{num:,}" for num in one.devices)
    aside = "" if fast == slow else f"[{fast}, {slow}]"
    return Cell(text=middle, aside=aside, key=one.devices[0])


def _notes(found: Sequence[ServedLoad], *, wanted: Wanted) -> list[str]:
    notes = []
    for one in found:
        name = f"{one.demand.name}: " if len(found) > 1 else ""
        notes.append(f"{name}{one.times.basis}; {OWN_TIME}")
        if one.times.no_interval and not one.times.spread:
            notes.append(f"{name}no interval: {one.times.no_interval}")
        items = one.times.items_per_request
        if items > 1.0:
            step = f"{items:,.6g} {plural(one.demand.items_unit or 'item', items)}"
            notes.append(f"{name}a request is a step of {step}, as measured, and waited for whole")
        notes += [f"{name}{line}" for line in _shortfall(one, wanted=wanted)]
    if any(one.period in DAYS for one in wanted.loads) and wanted.busy_hour is None:
        notes.append("evenly over the day; state --busy-hour, the part of it in its fullest hour")
    if any(one.demand.trials.num_devices > 1 for one in found):
        notes.append("what runs on several devices together counts as one device here")
    order = "urgent ones first, what has begun is finished" if wanted.urgent else "first come first"
    notes.append(f"items come at random, {order}; the busiest hour is taken to go on")
    if wanted.latency:
        notes += [
            f"carries: the most that may come while {wanted.at} stays within the limit; "
            "share needed: the load over that",
            "usable: part of the time in which devices work where that much comes",
        ]
    return list(dict.fromkeys(notes))


def _shortfall(one: ServedLoad, *, wanted: Wanted) -> list[str]:
    """Say what so many devices do not hold, and how many would."""
    needed = one.devices[0]
    would = f"{counted(needed, 'device')} would hold" if needed else "no number of devices holds"
    there = counted(wanted.servers, "device")
    if one.usable_frac == 0.0:
        return [f"one that never waits takes too long at {wanted.at}: {would} {wanted.latency}"]
    if one.used_frac >= 1.0:
        worth = f"{one.used_frac * wanted.servers:.3g}"
        return [f"{worth} devices' work comes for {there}: the queue grows without end; {would}"]
    if needed is None or needed > wanted.servers:
        return [f"{there} cannot hold the limit at this load; {would}"]
    return []
