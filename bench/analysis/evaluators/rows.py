"""Ratios of measured rows: one column over another, one phase over another, one link over another.

Trials of a configuration are one estimate with a 95 % interval; where there is a single trial the
figure stands alone and says so. Rows that only differ in the link are never mixed with others.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from bench.analysis.claims import Bounds, Case, ClaimTest, Outcome, Span
from bench.analysis.claims_facts import Facts
from bench.analysis.estimates import LogEstimate, estimate
from bench.analysis.evaluators.links import check_links
from bench.hardware.loader import Number, Text
from bench.hardware.topology import parse_topology
from bench.results.schema import BY_NAME
from bench.results.schema import Row as ResultRow

SETTING = ("device_name", "device_type", "size", "params_json", "dtype", "compile", "data")
"""What two phases of one ratio must have in common."""
SPREAD = (
    *("workload", "workload_version", "size", "params_json", "dtype", "compile", "device_name"),
    *("mode", "layout", "parallel", "mitigation", "grad_accum", "bucket_bytes", "schedule"),
)
"""What two runs over different links must have in common."""


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

    def outcome(self, facts: Facts, *, bounds: Bounds, unit: str) -> Outcome:
        """Compute the cases."""
        over, over_on = self.over or self.workload, self.over_device
        is_ratio = over != self.workload or over_on is not None
        aboves = _groups(facts.rows, self.workload, on=self.device)
        belows = _groups(facts.rows, over, on=over_on or self.device) if is_ratio else {}
        # Two workloads are compared on one device, two devices at one setting.
        skipped = 2 if over_on is not None else 0
        cases = []
        for key, above in aboves.items():
            others = [below for at, below in belows.items() if at[skipped:] == key[skipped:]]
            for below in others if is_ratio else [None]:
                told = _told(above, below, column=self.column)
                if told is not None:
                    told = told.times(self.times)
                    cases.append(_case(told, above, below or [], what=self.label or self.column,
                                       parameter=self.parameter, bounds=bounds, unit=unit,
                                       counts=self.counts))  # fmt: skip
        return Outcome(cases=tuple(cases), missing=() if cases else (self.otherwise,))


def _groups(
    rows: Sequence[ResultRow], workload: str, *, on: str | None
) -> dict[tuple[str, ...], list[ResultRow]]:
    """Usable rows of one real device by setting; `on` as `device` above, None for any."""
    found: dict[tuple[str, ...], list[ResultRow]] = {}
    for one in rows:
        kind = "cpu" if one["device_type"] == "cpu" else "accelerator"
        is_alone = one["mode"] == "real" and one["device_count"] in (None, 1)
        is_meant = one["workload"] == workload and on in (None, kind, one["chip"])
        if is_meant and is_alone and one["device_type"] != "fake":
            key = tuple(str(one[name]) for name in SETTING)
            found.setdefault(key, []).append(one)
    return found


def _estimate(rows: Sequence[ResultRow], column: str) -> LogEstimate | None:
    values = [float(one[column]) for one in rows if _is_positive(one[column])]  # type: ignore[arg-type]
    return estimate(values)


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e60


def _told(
    above: Sequence[ResultRow], below: Sequence[ResultRow] | None, *, column: str
) -> LogEstimate | None:
    one = _estimate(above, column)
    if below is None or one is None:
        return one
    two = _estimate(below, column)
    return None if two is None else one.over(two)


def _ids(rows: Sequence[ResultRow]) -> str:
    """Row ids: run and trials, `9882376c trials 0-4 (imaging-train)`."""
    by_run: dict[tuple[str, str], list[int]] = {}
    for one in rows:
        key = str(one["run_id"]), str(one["workload"])
        by_run.setdefault(key, []).append(int(str(one["trial"])))
    return ", ".join(
        f"run {run} {workload} trial{'s' * (len(trials) > 1)} {', '.join(map(str, sorted(trials)))}"
        for (run, workload), trials in by_run.items()
    )


def _case(
    told: LogEstimate,
    above: Sequence[ResultRow],
    below: Sequence[ResultRow],
    *,
    what: str,
    parameter: str | None,
    bounds: Bounds,
    unit: str,
    counts: bool,
) -> Case:
    low, high = told.interval or (told.value, told.value)
    value = Span(low=low, mid=told.value, high=high)
    more = {} if parameter is None else {parameter: _parameter(above[0], parameter)}
    against = f" over {below[0]['workload']} on {below[0]['device_name']}" if below else ""
    return bounds.case(
        value,
        factors={
            "measured": what,
            "device": str(above[0]["device_name"]),
            "size": str(above[0]["size"]),
            **more,
        },
        unit=unit,
        how=f"{what} of {above[0]['workload']} on {above[0]['device_name']}{against}, "
        f"{told.num or len(above)} trials{'' if told.interval else ', no interval'}; "
        f"asked {bounds.words}",
        basis="measured",
        source=_ids([*above, *below]),
        counts=counts,
    )


def _parameter(row: ResultRow, name: str) -> str | float:
    """One parameter of the workload that a row ran."""
    try:
        value = json.loads(str(row["params_json"] or "{}")).get(name)
    except (ValueError, AttributeError):
        return "unknown"
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else str(value)


class EmulatedSlowdown(ClaimTest, tag="emulated-slowdown", frozen=True, kw_only=True):
    """Step over link `narrow` against the step over `wide`, minus 1, in rows that have both.

    Rows of a CPU are shown beside, without a say.
    """

    wide: Text
    narrow: Text
    otherwise: Text

    def __post_init__(self) -> None:
        check_links(self.wide, self.narrow)

    def outcome(self, facts: Facts, *, bounds: Bounds, unit: str) -> Outcome:
        """Compute the cases."""
        wide, narrow = (parse_topology(name).name for name in (self.wide, self.narrow))
        groups: dict[tuple[str, ...], dict[str, list[ResultRow]]] = {}
        for one in facts.rows:
            if one["link"] in (wide, narrow) and one["device_type"] != "fake":
                key = tuple(str(one[name]) for name in SPREAD)
                groups.setdefault(key, {}).setdefault(str(one["link"]), []).append(one)
        cases = []
        for links in groups.values():
            if len(links) == 2:
                told = _told(links[narrow], links[wide], column="step_median_ms")
                if told is not None:
                    cases.append(_link_case(told, links[narrow], links[wide], bounds, unit))
        return Outcome(cases=tuple(cases), missing=() if cases else (self.otherwise,))


def _link_case(
    told: LogEstimate,
    narrow: Sequence[ResultRow],
    wide: Sequence[ResultRow],
    bounds: Bounds,
    unit: str,
) -> Case:
    low, high = told.interval or (told.value, told.value)
    value = Span(low=low - 1, mid=told.value - 1, high=high - 1)
    first = narrow[0]
    split = "tensor" if "tp" in str(first["layout"]) else "data"
    return bounds.case(
        value,
        factors={
            "net": str(first["workload"]),
            "split": split,
            "ranks": float(str(first["device_count"] or 1)),
            "overlap": str(first["overlap"] or "no").split()[0],
        },
        unit=unit,
        how=f"[{first['mode']}] {first['workload']} {first['size']}, {first['layout']}, on "
        f"{first['device_name']}: step over {first['link']} against {wide[0]['link']}; "
        f"asked {bounds.words}",
        basis="emulated",
        source=_ids([*narrow, *wide]) + f" [{first['mode']}]",
        # A processor's compute beside an accelerator's link says nothing about that accelerator.
        counts=first["device_type"] != "cpu",
    )
