"""Ratios of measured rows: one column over another, one phase over another, one link over another.

Trials of a configuration are one estimate with a 95 % interval; where there is a single trial the
figure stands alone and says so. Rows that only differ in the link are never mixed with others.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.analysis.claims.claim import Bounds, Case, ClaimCases, ClaimTest, Span
from bench.analysis.claims.claims_facts import ClaimFacts
from bench.analysis.claims.evaluators.link_claims import check_links
from bench.analysis.trials.configuration import Trials
from bench.analysis.trials.estimates import LogEstimate
from bench.analysis.trials.identity import DEVICE
from bench.analysis.trials.titles import params_of
from bench.hardware.links.topology import parse_topology
from bench.hardware.loader import Number, Text
from bench.results.schema import BY_NAME


class MeasuredRatio(ClaimTest, tag="measured-ratio", frozen=True, kw_only=True):
    """Ratio of `column` of `workload` to that of workload `over`; without `over`, its own figure.

    Rows of one real device only. `device` chooses them: cpu, accelerator, or a catalogue chip; with
    `over_device` two kinds of device are compared instead of two workloads. `times` multiplies,
    `otherwise` is the command that measures what is missing, `parameter` one more circumstance.
    """

    column: Text
    workload: Text
    over: Text | None = None
    otherwise: Text
    device: Text | None = None
    over_device: Text | None = None
    counts: bool = True
    label: Text | None = None
    times: Number = 1.0
    parameter: Text | None = None

    def __post_init__(self) -> None:
        if self.column not in BY_NAME or BY_NAME[self.column].kind not in ("float", "int"):
            raise ValueError(f"column: {self.column!r} is no column of numbers")

    def outcome(self, facts: ClaimFacts, *, bounds: Bounds, unit: str) -> ClaimCases:
        """Compute the cases."""
        over, over_on = self.over or self.workload, self.over_device
        is_ratio = over != self.workload or over_on is not None
        aboves = _real(facts.configurations, self.workload, on=self.device)
        belows = _real(facts.configurations, over, on=over_on or self.device) if is_ratio else []
        # Two workloads are compared on one device, two devices at one setting.
        apart = ("workload", "scenario", *(DEVICE if over_on is not None else ()))
        cases = []
        for above in aboves:
            others = [one for one in belows if one.terms(but=apart) == above.terms(but=apart)]
            for below in others if is_ratio else [None]:
                told = _told(above, below, column=self.column)
                if told is not None:
                    cases.append(_case(told.times(self.times), above, below,
                                       what=self.label or self.column, parameter=self.parameter,
                                       bounds=bounds, unit=unit, counts=self.counts))  # fmt: skip
        return ClaimCases(cases=tuple(cases), missing=() if cases else (self.otherwise,))


def _real(found: Sequence[Trials], workload: str, *, on: str | None) -> list[Trials]:
    """Configurations of one real device; `on` as `device` above, None for any."""
    return [
        one
        for one in found
        if one.text("workload") == workload
        and one.mode == "real"
        and one.num_devices == 1
        and one.text("device_type") != "fake"
        and on in (None, _kind(one), one.text("chip"))
    ]


def _kind(trials: Trials) -> str:
    return "cpu" if trials.text("device_type") == "cpu" else "accelerator"


def _told(above: Trials, below: Trials | None, *, column: str) -> LogEstimate | None:
    one = above.estimate(column)
    if below is None or one is None:
        return one
    two = below.estimate(column)
    return None if two is None else one.over(two)


def _ids(*several: Trials | None) -> str:
    """Row ids: run and trials, `9882376c trials 0-4 (imaging-train)`."""
    by_run: dict[tuple[str, str], list[int]] = {}
    for row in (row for one in several if one for row in one.used):
        key = str(row["run_id"]), str(row["workload"])
        by_run.setdefault(key, []).append(int(str(row["trial"])))
    return ", ".join(
        f"run {run} {workload} trial{'s' * (len(trials) > 1)} {', '.join(map(str, sorted(trials)))}"
        for (run, workload), trials in by_run.items()
    )


def _case(
    told: LogEstimate,
    above: Trials,
    below: Trials | None,
    *,
    what: str,
    parameter: str | None,
    bounds: Bounds,
    unit: str,
    counts: bool,
) -> Case:
    low, high = told.interval or (told.value, told.value)
    value = Span(low=low, mid=told.value, high=high)
    more = {} if parameter is None else {parameter: _parameter(above, parameter)}
    device = above.text("device_name")
    against = "" if below is None else f" over {_on_device(below)}"
    return bounds.case(
        value,
        factors={"measured": what, "device": device, "size": above.text("size"), **more},
        unit=unit,
        how=f"{what} of {_on_device(above)}{against}, "
        f"{told.num} trials{'' if told.interval else ', no interval'}; asked {bounds.words}",
        basis="measured",
        source=_ids(above, below),
        counts=counts,
    )


def _on_device(trials: Trials) -> str:
    return f"{trials.text('workload')} on {trials.text('device_name')}"


def _parameter(trials: Trials, name: str) -> str | float:
    """One parameter of the workload that was run."""
    value = params_of(trials.first).get(name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else str(value)  # type: ignore[arg-type]


class EmulatedSlowdown(ClaimTest, tag="emulated-slowdown", frozen=True, kw_only=True):
    """Step over link `narrow` against the step over `wide`, minus 1, in rows that have both.

    Rows of a CPU are shown beside, without a say.
    """

    wide: Text
    narrow: Text
    otherwise: Text

    def __post_init__(self) -> None:
        check_links(self.wide, self.narrow)

    def outcome(self, facts: ClaimFacts, *, bounds: Bounds, unit: str) -> ClaimCases:
        """Compute the cases."""
        wide, narrow = (parse_topology(name).name for name in (self.wide, self.narrow))
        groups: dict[tuple[str, ...], dict[str, Trials]] = {}
        for one in facts.configurations:
            if one.link in (wide, narrow) and one.text("device_type") != "fake":
                groups.setdefault(one.terms(but=("link",)), {})[one.link] = one
        cases = []
        for links in groups.values():
            if len(links) == 2:
                told = _told(links[narrow], links[wide], column="step_median_ms")
                if told is not None:
                    cases.append(_link_case(told, links[narrow], links[wide], bounds, unit))
        return ClaimCases(cases=tuple(cases), missing=() if cases else (self.otherwise,))


def _link_case(told: LogEstimate, narrow: Trials, wide: Trials, bounds: Bounds, unit: str) -> Case:
    low, high = told.interval or (told.value, told.value)
    value = Span(low=low - 1, mid=told.value - 1, high=high - 1)
    layout = narrow.text("layout")
    return bounds.case(
        value,
        factors={
            "net": narrow.text("workload"),
            "split": "tensor" if "tp" in layout else "data",
            "ranks": float(narrow.num_devices),
            "overlap": (narrow.text("overlap") or "no").split()[0],
        },
        unit=unit,
        how=f"[{narrow.mode}] {narrow.text('workload')} {narrow.text('size')}, {layout}, on "
        f"{narrow.text('device_name')}: step over {narrow.link} against {wide.link}; "
        f"asked {bounds.words}",
        basis="emulated",
        source=f"{_ids(narrow, wide)} [{narrow.mode}]",
        # A processor's compute beside an accelerator's link says nothing about that accelerator.
        counts=narrow.text("device_type") != "cpu",
    )
