"""How far several devices are as many times faster than one.

Against one device measured in the same mode where there is one, else against the step without its
communication; which of the two is always said, because the second one forgives what cutting the
work into smaller pieces costs. Throughput counts the items of all devices.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from bench.analysis.trials.configuration import Trials
from bench.analysis.trials.estimates import LogEstimate
from bench.analysis.trials.identity import LAYOUT, MITIGATION

_DEVICES = tuple(name for name in LAYOUT if name != "mode")

Against = Literal["one device", "compute"]


@dataclass(frozen=True, kw_only=True)
class Efficiency:
    """Share of what so many devices could do."""

    share: LogEstimate
    """1: nothing is lost."""
    against: Against
    """one device: items per second and device over those of one device. compute: the step without
    communication over the whole step."""


def single_runs(runs: Iterable[Trials]) -> dict[tuple[str, ...], list[Trials]]:
    """One-device runs by their terms, the mode among them."""
    found: dict[tuple[str, ...], list[Trials]] = {}
    for run in runs:
        if run.num_devices == 1 and run.window_per_item_s is not None:
            found.setdefault(run.terms(but=_DEVICES), []).append(run)
    return found


def one_device(run: Trials, *, singles: dict[tuple[str, ...], list[Trials]]) -> Trials | None:
    """Return the one-device run nearest to `run`: same terms, then as many equal mitigations."""
    candidates = singles.get(run.terms(but=_DEVICES), [])

    def likeness(other: Trials) -> int:
        pairs = zip(run.facts(MITIGATION), other.facts(MITIGATION), strict=True)
        # One device sends nothing, so its link matters least.
        return 2 * sum(a == b for a, b in pairs) + (run.link == other.link)

    return max(candidates, key=likeness, default=None)


def efficiency(run: Trials, *, singles: dict[tuple[str, ...], list[Trials]]) -> Efficiency | None:
    """Efficiency of a run over several devices; None for one device, or when nothing shows."""
    if run.num_devices == 1:
        return None
    alone = one_device(run, singles=singles)
    single_s = None if alone is None else alone.window_per_item_s
    item_s = run.window_per_item_s
    if single_s is not None and item_s is not None:
        share = single_s.over(item_s).times(1.0 / run.num_devices)
        return Efficiency(share=share, against="one device")
    if run.shows_mean:
        mean_ms = run.estimate("window_s", over="steps", scale=1e3)
        compute_ms = run.estimate("compute_step_ms")
        found = None if mean_ms is None or compute_ms is None else compute_ms.over(mean_ms)
    else:
        found = run.estimate("compute_step_ms", over="step_median_ms")
    return None if found is None else Efficiency(share=found, against="compute")


def families(runs: Sequence[Trials]) -> list[list[Trials]]:
    """Runs that differ in the number of devices alone, by their number; two numbers at least.

    One device leads each family of its mode and terms, whichever link it named.
    """
    singles = single_runs(runs)
    together: dict[tuple[str, ...], list[Trials]] = {}
    for run in runs:
        if run.is_wide and run.num_devices > 1 and run.step_s is not None:
            key = run.terms(but=("device_count", "layout"))
            together.setdefault(key, []).append(run)
    found = []
    for family in together.values():
        alone = one_device(family[0], singles=singles)
        whole = [*([] if alone is None else [alone]), *family]
        if len({run.num_devices for run in whole}) > 1:
            found.append(sorted(whole, key=lambda run: (run.num_devices, run.facts(("layout",)))))
    return found
