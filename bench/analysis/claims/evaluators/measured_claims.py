"""Ratios of measured rows: one column over another, one phase over another, one link over another.

Trials of a configuration are one estimate with a 95 % interval; where there is a single trial the
figure stands alone and says so. Rows that only differ in the link are never mixed with others.

Chips that nobody measured side by side are set against each other by projection, workload by
workload, from the counted operators; the intervals are those of `bench project --score`, and every
case says projected.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from statistics import median

from bench.analysis.claims.claim_cases import ClaimCase, ClaimFacts, ClaimTest, Factors, span_of
from bench.analysis.claims.evaluators.link_claims import check_links
from bench.analysis.projection.exchange import GRADIENT_BYTES
from bench.analysis.projection.projected import LAUNCH_S
from bench.analysis.projection.roofs import Unknown
from bench.analysis.projection.scaled_operators import speed_ratio
from bench.analysis.projection.sizing import device_counts, usual_link
from bench.analysis.trials.configuration import PLACE, Trials, grouped, number
from bench.analysis.trials.titles import params_of
from bench.core.log_estimate import LogEstimate
from bench.core.nouns import Chip
from bench.hardware.costs.cost import data_parallel_step, model_of
from bench.hardware.links.topology import parse_topology
from bench.hardware.loader import Number, Text
from bench.hardware.operators import Mix, load_mixes, total
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
            apart = ("workload", "scenario", *(PLACE if self.over_device else ()))
            ratios = _ratios(aboves, belows, apart=apart, column=self.column)
            cases = [self._case(*ratio) for ratio in ratios]
        else:
            cases = [self._case(it, one) for one in aboves if (it := one.estimate(self.column))]
        yield from cases or (self.otherwise,)

    def _case(self, ratio: LogEstimate, above: Trials, below: Trials | None = None) -> ClaimCase:
        what, ratio = self.label or self.column, ratio.times(self.times)
        factors: dict[str, str | float] = {"measured": what, "device": above.one_device}
        factors["size"] = above.text("size")
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
            source=row_ids(above, below),
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


def row_ids(*several: Trials | None) -> str:
    """Row ids: run and trials, `run 9882376c imaging-train trials 0, 1`."""
    used = (row for one in several if one for row in one.used)
    by_run = grouped(used, lambda row: f"run {row['run_id']} {row['workload']}")
    trials = {run: sorted(int(str(row["trial"])) for row in rows) for run, rows in by_run.items()}
    return ", ".join(
        f"{run} trial{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"
        for run, numbers in trials.items()
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
        yield from [_link_case(*ratio) for ratio in ratios] or (self.otherwise,)


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
        source=f"{row_ids(narrow, wide)} [{narrow.mode}]",
        # A processor's compute beside an accelerator's link says nothing about that accelerator.
        counts=narrow.text("device_type") != "cpu",
    )


COMPUTE_FRACTION = 0.4
"""Share of its peak that the fast chip is assumed to reach; sets the share of the exchange."""
MOST_CHIPS = 1024


def _mix_named(name: str) -> Mix:
    mixes = {mix.id: mix for mix in load_mixes()}
    if name not in mixes:
        raise ValueError(f"mixes: {name!r} is not one of {', '.join(mixes)}")
    return mixes[name]


def _factors(mix: Mix, chips: str) -> Factors:
    return {"workload": f"{mix.workload}-{mix.phase}", "chips": chips}


class _OnMixes(ClaimTest, frozen=True, kw_only=True):
    """A test on the operators of shipped workloads."""

    mixes: tuple[Text, ...]
    dtype: Text = "bf16"

    def __post_init__(self) -> None:
        for name in self.mixes:
            _mix_named(name)


class ProjectedRatio(_OnMixes, tag="projected-ratio", frozen=True, kw_only=True):
    """Project `mixes` from chip `a` to each of `b`."""

    a: Text
    b: tuple[Text, ...]
    counts: bool = True

    def _cases(self, facts: ClaimFacts) -> Iterator[ClaimCase | str]:
        for name, mix in ((name, _mix_named(mix)) for name in self.b for mix in self.mixes):
            a, b = facts.chips[self.a], facts.chips[name]
            speed = speed_ratio(a, b, operators=mix.operators, dtype=self.dtype)
            if isinstance(speed, Unknown):
                yield f"{self.a} or {name}: {speed.reason}"
                continue
            yield ClaimCase(
                value=speed,
                factors=_factors(mix, f"{name} over {self.a}"),
                how=f"speed on the operators of {mix.id} in {self.dtype}",
                basis="projected",
                source="catalogue peaks, achieved shares and counted operators",
                counts=self.counts,
            )


class Stacking(_OnMixes, tag="stacking", frozen=True, kw_only=True):
    """Nominal power of the `slow` chips that do the work of one `fast`, over the fast one's.

    For every pair and each of `mixes`. Training also pays for the exchange of gradients, over the
    slow chip's usual link.
    """

    fast: Text
    slow: tuple[Text, ...]

    def _cases(self, facts: ClaimFacts) -> Iterator[ClaimCase | str]:
        for name, mix in ((name, _mix_named(mix)) for name in self.slow for mix in self.mixes):
            yield self._case(facts.chips[self.fast], facts.chips[name], mix=mix)

    def _case(self, fast: Chip, slow: Chip, *, mix: Mix) -> ClaimCase | str:
        speed = speed_ratio(fast, slow, operators=mix.operators, dtype=self.dtype)
        if isinstance(speed, Unknown):
            return f"{slow.id}: {speed.reason}"
        if not fast.tdp_w or not slow.tdp_w:
            return f"{slow.id}: its power is not known"
        peak = fast.peak_per_s.get(self.dtype) or math.inf
        step_s = total(mix.operators, "flops") / (COMPUTE_FRACTION * peak)
        speeds = (speed.high, speed.mid, speed.low)
        low, mid, high = (_needed(ratio, mix, slow=slow, step_s=step_s) for ratio in speeds)
        if low is None or mid is None or high is None:
            return f"{slow.id}: {MOST_CHIPS} of them do not reach it on {mix.id}"
        link = usual_link(slow, devices=mid) if mix.phase == "train" else None
        over = f" over {link}" if link else ""
        return ClaimCase(
            value=span_of(*(number * (slow.tdp_w / fast.tdp_w) for number in (mid, low, high))),
            factors=_factors(mix, f"{slow.id} for one {fast.id}"),
            unit="ratio",
            how=f"{low} to {high} (middle {mid}) of {slow.tdp_w:g} W{over} for one of "
            f"{fast.tdp_w:g} W at {speed.low:.2g} to {speed.high:.2g} of its speed each; nominal "
            "power over the fast one's",
            basis="projected",
            source="catalogue peaks and watts, counted operators, cost model of the link",
        )


def _needed(speed: float, mix: Mix, *, slow: Chip, step_s: float) -> int | None:
    """Fewest chips, each `speed` times the fast one, that reach its rate with their exchange."""
    fewest = math.ceil(1.0 / speed - 1e-9)
    most = usual_link(slow, devices=MOST_CHIPS) if mix.phase == "train" else None
    if most is None:
        return fewest
    size_bytes = GRADIENT_BYTES * mix.parameters
    for chips in device_counts(parse_topology(most), most=MOST_CHIPS):
        link = usual_link(slow, devices=chips)
        if chips < fewest or link is None:
            continue
        step = data_parallel_step(
            step_s / speed, gradient_bytes=size_bytes, num_devices=chips, model=model_of(link)
        )
        if step.seconds <= chips * step_s:
            return chips
    return None


class Crossover(ClaimTest, tag="crossover", frozen=True, kw_only=True):
    """Speed of `chip` over the CPU that was measured, for each number of `samples` in a step.

    `parameters` of the model (6 FLOP each and sample, training), `operators` in a step. A step
    costs host time for each operator on either side; beyond that the CPU computes at its measured
    roof and the accelerator at its listed one, beside the host.
    """

    chip: Text
    samples: tuple[Number, ...]
    parameters: Number
    operators: Number

    def _cases(self, facts: ClaimFacts) -> Iterator[ClaimCase | str]:
        kinds = [one for one in facts.configurations if one.text("device_type") == "cpu"]
        used = [row for one in kinds for row in one.used if row["dtype"] == "fp32"]
        known = [roof for row in used if (roof := number(row, "roof_flops_per_s")) is not None]
        peak = facts.chips[self.chip].peak_per_s.get("fp32")
        if not known or peak is None:
            yield "a measured CPU roof: bench run -w tabular"
            return
        roof = median(known)
        for samples in self.samples:
            flops = 6.0 * self.parameters * samples
            hosts_s = [self.operators * s for s in (LAUNCH_S.mid, LAUNCH_S.low, LAUNCH_S.high)]
            yield ClaimCase(
                # CPU: host time and compute one after the other; accelerator: side by side.
                value=span_of(*((s + flops / roof) / max(s, flops / peak) for s in hosts_s)),
                factors={"rows in a step": samples},
                how=f"{flops:.3g} FLOP at {roof:.3g}/s (measured roof) or {peak:.3g}/s (listed), "
                f"{self.operators:g} operators of {LAUNCH_S.low * 1e6:g} to "
                f"{LAUNCH_S.high * 1e6:g} us on the host",
                basis="projected",
                source=f"rows of run {', '.join(sorted({str(one['run_id']) for one in used}))}; "
                f"catalogue: {self.chip}",
            )
