"""Ratios of measured rows: one column over another, one phase over another, one link over another.

Trials of a configuration are one estimate with a 95 % interval; where there is a single trial the
figure stands alone and says so. Rows that only differ in the link are never mixed with others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.analysis.claims.claim_cases import ClaimCase, ClaimTest, span_of
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

    def cases(self, facts: ClaimFacts) -> Iterator[ClaimCase | str]:
        """One case for each configuration, or each pair of them."""
        found: list[ClaimCase | str] = [
            self._case(ratio.times(self.times), above, below)
            for above, below in self._pairs(facts.configurations)
            if (ratio := _ratio(above, below, column=self.column))
        ]
        yield from found or [self.otherwise]

    def _pairs(self, found: Sequence[Trials]) -> Iterator[tuple[Trials, Trials | None]]:
        over, over_on = self.over or self.workload, self.over_device
        is_ratio = over != self.workload or over_on is not None
        # Two workloads are compared on one device, two devices at one setting.
        apart = ("workload", "scenario", *(DEVICE if over_on is not None else ()))
        belows = _real(found, over, on=over_on or self.device)
        for above in _real(found, self.workload, on=self.device):
            terms = above.terms(but=apart)
            others = [one for one in belows if one.terms(but=apart) == terms]
            yield from ((above, below) for below in (others if is_ratio else [None]))

    def _case(self, ratio: LogEstimate, above: Trials, below: Trials | None) -> ClaimCase:
        what = self.label or self.column
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
            counts=self.counts,
        )


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


def _ratio(above: Trials, below: Trials | None, *, column: str) -> LogEstimate | None:
    one = above.estimate(column)
    if below is None or one is None:
        return one
    two = below.estimate(column)
    return None if two is None else one.over(two)


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

    def cases(self, facts: ClaimFacts) -> Iterator[ClaimCase | str]:
        """One case for each configuration that was run over both links."""
        wide, narrow = (parse_topology(name).name for name in (self.wide, self.narrow))
        groups: dict[tuple[str, ...], dict[str, Trials]] = {}
        for one in facts.configurations:
            if one.link in (wide, narrow) and one.text("device_type") != "fake":
                groups.setdefault(one.terms(but=("link",)), {})[one.link] = one
        found: list[ClaimCase | str] = [
            _link_case(ratio, links[narrow], links[wide])
            for links in groups.values()
            if len(links) == 2
            and (ratio := _ratio(links[narrow], links[wide], column="step_median_ms"))
        ]
        yield from found or [self.otherwise]


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
