"""Ratios of measured rows: one column over another, one phase over another, one link over another.

Trials of a configuration are one estimate with a 95 % interval; where there is a single trial the
figure stands alone and says so. Rows that only differ in the link are never mixed with others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from bench.analysis.claims.claim_cases import ClaimCase, ClaimFacts, ClaimTest, span_of
from bench.analysis.claims.evaluators.link_claims import check_links
from bench.analysis.trials.configuration import DEVICE, LogEstimate, Trials
from bench.analysis.trials.titles import params_of
from bench.hardware.links.topology import parse_topology
from bench.hardware.loader import Number, Text
from bench.results.schema import BY_NAME

_Ratio = tuple[LogEstimate, Trials, Trials]
"""One figure over another, and the configurations that have them."""


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
    label: Text | None = None
    times: Number = 1.0
    parameter: Text | None = None

    def __post_init__(self) -> None:
        if self.column not in BY_NAME or BY_NAME[self.column].kind not in ("float", "int"):
            raise ValueError(f"column: {self.column!r} is no column of numbers")

    def _cases(self, facts: ClaimFacts) -> Iterator[ClaimCase | str]:
        aboves = _real(facts.configurations, self.workload, on=self.device)
        if self.over or self.over_device:
            on = self.over_device or self.device
            belows = _real(facts.configurations, self.over or self.workload, on=on)
            # Two workloads are compared on one device, two devices at one setting.
            apart = ("workload", "scenario", *(DEVICE if self.over_device else ()))
            ratios = _ratios(aboves, belows, apart=apart, column=self.column)
            cases = [self._case(*ratio) for ratio in ratios]
        else:
            estimates = [(one.estimate(self.column), one) for one in aboves]
            cases = [self._case(found, one) for found, one in estimates if found]
        yield from cases
        if not cases:
            yield self.otherwise

    def _case(self, ratio: LogEstimate, above: Trials, below: Trials | None = None) -> ClaimCase:
        what, ratio = self.label or self.column, ratio.times(self.times)
        factors: dict[str, str | float] = {
            "measured": what,
            "device": above.text("device_name"),
            "size": above.text("size"),
        }
        if self.parameter is not None:
            value = params_of(above.first).get(self.parameter)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            factors[self.parameter] = float(value) if is_number else str(value)  # type: ignore[arg-type]
        against = "" if below is None else f" over {_on_device(below)}"
        return ClaimCase(
            value=span_of(ratio.value, *(ratio.interval or ())),
            factors=factors,
            how=f"{what} of {_on_device(above)}{against}, {ratio.num} trials"
            + ("" if ratio.interval else ", no interval"),
            basis="measured",
            source=_ids(above, below),
        )


def _ratios(
    aboves: Sequence[Trials], belows: Sequence[Trials], *, apart: Collection[str], column: str
) -> list[_Ratio]:
    """A column of each of `aboves` over that of what differs from it in `apart` alone."""
    return [
        (one.over(two), above, below)
        for above in aboves
        for below in belows
        if above.terms(but=apart) == below.terms(but=apart)
        and (one := above.estimate(column))
        and (two := below.estimate(column))
    ]


def _real(found: Sequence[Trials], workload: str, *, on: str | None) -> list[Trials]:
    """Configurations of one real device; `on` as `device` above, None for any."""
    return [
        one
        for one in found
        if one.text("workload") == workload
        and one.mode == "real"
        and one.num_devices == 1
        and one.text("device_type") != "fake"
        and on in (None, one.text("chip"),
                   "cpu" if one.text("device_type") == "cpu" else "accelerator")
    ]  # fmt: skip


def _ids(*several: Trials | None) -> str:
    """Row ids: run and trials, `run 9882376c imaging-train trials 0, 1`."""
    by_run: dict[tuple[str, str], list[int]] = {}
    for row in (row for one in several if one for row in one.used):
        key = str(row["run_id"]), str(row["workload"])
        by_run.setdefault(key, []).append(int(str(row["trial"])))
    return ", ".join(
        f"run {run} {workload} trial{'s' * (len(trials) > 1)} {', '.join(map(str, sorted(trials)))}"
        for (run, workload), trials in by_run.items()
    )


def _on_device(trials: Trials) -> str:
    return f"{trials.text('workload')} on {trials.text('device_name')}"


class EmulatedSlowdown(ClaimTest, tag="emulated-slowdown", frozen=True, kw_only=True):
    """Step over link `narrow` against the step over `wide`, minus 1, in rows that have both.

    Rows of a CPU are shown beside, without a say.
    """

    wide: Text
    narrow: Text
    otherwise: Text

    def __post_init__(self) -> None:
        check_links(self.wide, self.narrow)

    def _cases(self, facts: ClaimFacts) -> Iterator[ClaimCase | str]:
        links = (parse_topology(name).name for name in (self.narrow, self.wide))
        found = [one for one in facts.configurations if one.text("device_type") != "fake"]
        narrow, wide = ([one for one in found if one.link == link] for link in links)
        ratios = _ratios(narrow, wide, apart=("link",), column="step_median_ms")
        yield from (_link_case(*ratio) for ratio in ratios)
        if not ratios:
            yield self.otherwise


def _link_case(ratio: LogEstimate, narrow: Trials, wide: Trials) -> ClaimCase:
    layout = narrow.text("layout")
    return ClaimCase(
        value=span_of(*(end - 1 for end in (ratio.value, *(ratio.interval or ())))),
        factors={
            "net": narrow.text("workload"),
            "split": "tensor" if "tp" in layout else "data",
            "ranks": float(narrow.num_devices),
            "overlap": (narrow.text("overlap") or "no").split()[0],
        },
        how=f"[{narrow.mode}] {narrow.text('workload')} {narrow.text('size')}, {layout}, on "
        f"{narrow.text('device_name')}: step over {narrow.link} against {wide.link}",
        basis="emulated",
        source=f"{_ids(narrow, wide)} [{narrow.mode}]",
        # A processor's compute beside an accelerator's link says nothing about that accelerator.
        counts=narrow.text("device_type") != "cpu",
    )
