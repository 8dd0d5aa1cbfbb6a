"""How many of which chips would meet a target.

A target is a time for one item (`imaging-infer < 30s`), a rate (`llm-train 1e9 tokens/day`), both
(`imaging-infer 800 volumes/day < 10min`, p95 or another percentile, where items wait for one
another), or items or optimizer steps and when they must be done (`imaging-train 250000 steps in 7
days`). More chips serve more items; they do not make one item faster, so a time is met by one chip
or not at all. Training spends part of what chips are added for on the link. Prices are left out;
watts are nominal.
"""

import math
import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.analysis.projection.measured import Start
from bench.analysis.projection.projected import Projected, project
from bench.analysis.projection.roofs import SUBSTITUTES, Unknown
from bench.core.errors import UsageError
from bench.core.nouns import Chip
from bench.core.traffic import Traffic, fewest_servers
from bench.core.units import PERIOD_S, parse_duration_s, parse_percentile, plural
from bench.hardware.costs.cost import CostModel, model_of
from bench.hardware.links.presets import link, load_links
from bench.hardware.links.topology import USUAL_NODE, Topology, in_nodes, usual_node
from bench.hardware.query import export_status

MOST_DEVICES = 4096
_WITHIN = re.compile(r"\s*([\w.-]+)\s*<\s*(\S.*)")
_RATE = re.compile(
    r"\s*([\w.-]+)\s+((?:[0-9]+\.?|\.[0-9])[0-9]*(?:[eE]\+?[0-9]+)?)\s*([A-Za-z]+)"
    r"(?:\s*/\s*([A-Za-z]+)(?:\s*<\s*(\S.*?)(?:\s+at\s+(\S+))?)?|\s+in\s+(\S.*?))\s*"
)
EXAMPLES = (
    "'imaging-infer < 30s', 'llm-train 1e9 tokens/day', 'imaging-infer 800 volumes/day < 10min at "
    "p95' or 'llm-train 5000 steps in 7 days'"
)
STEPS = ("step", "steps")


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is asked of a workload: a time for one item, or a rate; exactly one is set."""

    workload: str
    item_s: float | None = None
    items_per_s: float | None = None
    """Steps where `unit` says so, until the start is known."""
    unit: str | None = None
    """What the user called an item."""
    num_items: float | None = None
    """Items, or steps, in all, where they must be done in a time."""
    limit_s: float | None = None
    """Of a rate: time from an item's coming to its result."""
    at_frac: float = 0.95
    """Part of the items that the limit is for."""
    asked: str = ""
    """The target as it was given: 'within 30s', 'at 1e9 tokens/day', 'with 5 steps in 7 days'."""
    per: str = "s"
    """Period of the rate, or the time, in the unit of which the answer is."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A catalogue chip that would meet the target, and how many of it."""

    projected: Projected
    """With the number of devices at the middle of the interval."""
    devices: tuple[int, int, int] | None
    """At the fast end, in the middle, at the slow end; None: the slow end never meets it."""
    watts: float | None
    """Nominal, of the middle number."""
    restricted_by: tuple[str, ...] | None
    """Export rules that catch the chip; None where that turns on an unpublished figure."""


def parse_target(text: str) -> Target:
    """Read a target; `UsageError` with examples otherwise."""
    within = _WITHIN.fullmatch(text)
    if within is not None:
        time = within[2].strip()
        item_s = parse_duration_s(time, what="--size-for", is_over_0=True)
        return Target(workload=within[1], item_s=item_s, asked=f"within {time}", per=time)
    rate = _RATE.fullmatch(text)
    if rate is None or (rate[4] and rate[4].lower() not in PERIOD_S):
        raise UsageError(
            f"--size-for {text[:80]!r} is not like {EXAMPLES} (per {', '.join(PERIOD_S)})"
        )
    if not 0.0 < float(rate[2]) < 1e30:
        raise UsageError(f"--size-for {text[:80]!r}: {rate[2]!r} is not over 0 and under 1e30")
    num, unit, per = float(rate[2]), rate[3].lower(), rate[7] or rate[4].lower()
    limit, at = rate[5], rate[6] or "p95"
    period_s = PERIOD_S.get(per) if rate[4] else None
    period_s = period_s or parse_duration_s(per, what="--size-for", is_over_0=True)
    return Target(
        workload=rate[1],
        items_per_s=num / period_s,
        unit=unit,
        num_items=None if rate[4] else num,
        limit_s=parse_duration_s(limit, what="--size-for", is_over_0=True) if limit else None,
        at_frac=parse_percentile(at, what="--size-for"),
        asked=(f"at {rate[2]} {unit}/{per}" if rate[4] else f"with {rate[2]} {unit} in {per}")
        + (f", {at} within {limit}" if limit else ""),
        per=per,
    )


def in_items(target: Target, start: Start) -> Target:
    """The same target in items where it is in optimizer steps, as long as the start's."""
    per_step = start.items_per_step if target.unit in STEPS else 1.0
    per_s, num_items = (one and one * per_step for one in (target.items_per_s, target.num_items))
    return replace(target, items_per_s=per_s, num_items=num_items)


def start_for(target: Target, found: Sequence[Start]) -> Start:
    """Return the measured configuration that the target is about; the fastest of several."""
    alike = [one for one in found if one.workload == target.workload]
    if not alike:
        there = ", ".join(sorted({one.workload for one in found})) or "nothing"
        raise UsageError(f"--size-for {target.workload}: the files hold {there}")
    best = max(alike, key=lambda one: one.throughput_per_s)
    unit = target.unit
    known = (best.items_unit, plural(best.items_unit, 2), "items", *STEPS)
    if unit is not None and unit not in known:
        raise UsageError(
            f"--size-for: an item of {best.workload} is a {best.items_unit}, not one of {unit}"
        )
    if target.limit_s is not None and best.is_training:
        raise UsageError(f"--size-for: nobody waits for items of {best.workload}: leave '<' out")
    return best


def usual_link(chip: Chip, *, devices: int) -> str | None:
    """Link that so many of a chip have: in usual servers, beyond one of them with a network.

    It is the one measured with the chip, else the preset of what it comes with, else its host bus,
    whose cards hang on two processors beyond half a server. None where none is known.
    """
    name = _usual_preset(chip)
    if name is None:
        return None
    if name.startswith("pcie") and devices > USUAL_NODE // 2:
        name += "-cross-socket"
    level = link(name).level()
    return name if devices <= usual_node(level) else in_nodes(level)


def _usual_preset(chip: Chip) -> str | None:
    presets = {row.id for row in load_links()}
    stem = re.sub(r"^ascend-", "ascend", chip.id).split("-")[0]
    # Variants of one part (910B3, MI250X) have the link of the part.
    family = re.sub(r"(?<=[a-z])[0-9]$|(?<=[0-9])x$", "", stem)
    if chip.facts.get("link_bytes_per_s") and chip.facts.get("form_factor") != "pcie":
        for name in (f"{stem}-nvlink", f"{stem}-hccs", f"{family}-hccs", f"{family}-if"):
            if name in presets:
                return name
    buses = (f"{stem}-pcie", f"pcie{chip.facts.get('host_pcie_gen')}")
    return next((name for name in buses if name in presets), None)


def size(
    target: Target, measured: Start, chips: Sequence[Chip], *, link: str | None = None
) -> tuple[list[Choice], list[Unknown]]:
    """Return what would meet the target, and what would not.

    Fewest devices and watts first, dtype by dtype: one that stands in for another is not like it.
    """
    answers = [_choice(target, measured, chip, link=link) for chip in chips]
    choices = [one for one in answers if isinstance(one, Choice)]
    choices.sort(key=lambda it: (it.projected.devices, it.watts or math.inf, it.projected.chip.id))
    choices.sort(key=lambda it: SUBSTITUTES[measured.dtype].index(it.projected.dtype))
    return choices, [one for one in answers if isinstance(one, Unknown)]


def _choice(target: Target, measured: Start, chip: Chip, *, link: str | None) -> Choice | Unknown:
    one = project(measured, chip)
    if isinstance(one, Unknown):
        return one
    if target.item_s is not None:
        # One item is one step's share only when a step holds one; a batch is waited for whole.
        if one.time_s.low > target.item_s:
            return Unknown(chip=chip.id, reason="a step takes longer, even at the fast end")
        return _chosen(one, devices=(1, 1, 1) if one.time_s.high <= target.item_s else None)
    assert target.items_per_s is not None
    if target.limit_s is not None:
        return _held(target, one)
    model = _model(one, link=link, devices=MOST_DEVICES)
    counts = device_counts(None if model is None else model.topology, most=MOST_DEVICES)
    fast, middle, slow = (
        _devices_for(one, counts, items_per_s=target.items_per_s, link=link, end=end)
        for end in ("high", "mid", "low")
    )
    if middle is None:
        most = counts[-1]
        over = f" over {link}" if link and most < MOST_DEVICES else ""
        return Unknown(chip=chip.id, reason=f"not met by {most} of them in the middle{over}")
    several = _with(one, devices=middle, link=link, is_explained=True)
    return _chosen(several, devices=None if slow is None else (fast or middle, middle, slow))


def _held(target: Target, one: Projected) -> Choice | Unknown:
    """How many hold the limit when items wait, with services that spread as the start's do."""
    start = one.measured
    assert start.times is not None and target.items_per_s is not None, "as start_for has seen"
    kind, limit_s = start.times.kind, target.limit_s or math.inf
    traffic = Traffic(kinds=(kind,), at=target.at_frac, limit=limit_s)
    rate = target.items_per_s / (start.items_per_step * one.batch / start.batch)
    ends = (one.time_s.low, one.time_s.mid, one.time_s.high)
    fast, middle, slow = (
        fewest_servers(traffic, rate=rate, slower=end_s / kind.mean) for end_s in ends
    )
    if middle is None:
        return Unknown(chip=one.chip.id, reason="no number of them holds it in the middle")
    several = _with(one, devices=middle, link=None, is_explained=True)
    return _chosen(several, devices=None if slow is None else (fast or middle, middle, slow))


def _with(
    one: Projected, *, devices: int, link: str | None, is_explained: bool = False
) -> Projected:
    if devices == 1:
        return one
    model = _model(one, link=link, devices=devices)
    answer = project(one.measured, one.chip, devices=devices, link=model, is_explained=is_explained)
    assert isinstance(answer, Projected), "what runs on one runs on several"
    return answer


def _model(one: Projected, *, link: str | None, devices: int) -> CostModel | None:
    """What training of so many spends on the exchange; None: nothing is exchanged, or not known."""
    text = link or usual_link(one.chip, devices=devices)
    return model_of(text) if text is not None and one.measured.is_training else None


def device_counts(topology: Topology | None, *, most: int) -> Sequence[int]:
    """How many there can be: within one node any number, beyond it full nodes."""
    if topology is None:
        return range(1, most + 1)
    most = min(most, topology.max_devices or most)
    if topology.node_size is None:
        return range(1, min(most, topology.inner.largest_domain or most) + 1)
    node = min(most, topology.node_size)
    return [*range(1, node + 1), *range(2 * node, most + 1, node)]


def _devices_for(
    one: Projected, counts: Sequence[int], *, items_per_s: float, link: str | None, end: str
) -> int | None:
    """Fewest devices whose rate at this end of the interval is enough, by bisection."""

    def is_enough(devices: int) -> bool:
        rate: float = getattr(_with(one, devices=devices, link=link).throughput_per_s, end)
        return rate >= items_per_s

    last, high = len(counts) - 1, 0
    while not is_enough(counts[high]):
        if high == last:
            return None
        high = min(last, 2 * high + 1)
    return counts[bisect_left(counts, True, hi=high, key=is_enough)]


def _chosen(one: Projected, *, devices: tuple[int, int, int] | None) -> Choice:
    status = export_status(one.chip)
    caught = tuple(rule for rule, verdict in status.items() if verdict)
    rules = None if not caught and None in status.values() else caught
    watts = None if one.chip.tdp_w is None else one.chip.tdp_w * one.devices
    return Choice(projected=one, devices=devices, watts=watts, restricted_by=rules)


def undecided(choices: Sequence[Choice]) -> list[str]:
    """Say for neighbours of the order whether their intervals leave it open, and by what."""
    lines = []
    for first, second in zip(choices, choices[1:], strict=False):
        one, two = first.projected, second.projected
        if not first.devices or not second.devices or one.devices >= two.devices:
            continue
        if one.dtype != two.dtype:
            continue
        if first.devices[2] >= second.devices[0]:
            cause = (one.narrowing or two.narrowing or ("",))[0]
            lines.append(f"{one.chip.id} before {two.chip.id} is not decided; what would: {cause}")
    return lines
