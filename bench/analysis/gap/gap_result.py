"""Everything `bench gap` answers: how different the demands of training and inference are.

Phases of one workload share net, precision and parameters, so their ratio is like for like. Where
their items are not the same thing (a patch, a volume) the ratio is per element (a voxel), and says
so. Ratios between devices are taken phase by phase, and so is how far those ratios lie apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from bench.analysis.gap.demand import (
    TRAIN,
    Demand,
    Length,
    Training,
    demands,
    per,
    shared_unit,
    training,
)
from bench.analysis.gap.load import Wanted
from bench.analysis.gap.published_bracket import PublishedBracket, bracket
from bench.analysis.gap.served import ServedLoad, serve
from bench.analysis.trials.configuration import PLACE, grouped, is_served
from bench.analysis.trials.service_times import Steps
from bench.core.log_estimate import LogEstimate, exact
from bench.hardware.chips import load_chips
from bench.hardware.published import load_published
from bench.results.schema import Row


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Training over one inference phase on one device."""

    train: Demand
    infer: Demand
    unit: str | None
    """What time, FLOPs and energy are per; None when the phases count different things."""
    is_per_element: bool
    time: LogEstimate | None
    time_at_limit: LogEstimate | None
    """Time, with inference's over the part of a device that it may use where a limit is held."""
    flops: LogEstimate | None
    memory: LogEstimate | None
    energy: LogEstimate | None
    utilisation: LogEstimate | None
    published: PublishedBracket | None = None
    """What others' time ratio of such a net lies between."""


@dataclass(frozen=True, kw_only=True)
class Missing:
    """A half that is not there, so that a gap cannot be shown."""

    present: Demand
    lacks_training: bool
    tried: Demand | None
    """The half's own demand when it ran without a usable trial."""

    @property
    def why_never(self) -> str:
        """Why this half cannot be measured on such terms; '' where it can."""
        trials = self.present.trials
        fact = trials.text
        if trials.is_script:
            half = f"{trials.net}-{'train' if self.lacks_training else 'infer'}"
            start = f"bench wrap --name {half}{'' if self.lacks_training else ' --step forward'}"
            return f"no row holds a program's command; measure it with: {start} -- PROGRAM"
        if self.lacks_training:
            return ""
        if "dp" in fact("layout") and fact("parallel") != "fsdp":
            return "copies of a net send nothing in inference: take one device, times their number"
        if fact("mitigation") or fact("grad_accum") not in ("", "1"):
            return "inference has no gradients to send less of, or less often"
        return ""


@dataclass(frozen=True, kw_only=True)
class DeviceGap:
    """Two devices: time per item in training and in an inference phase, B over A."""

    demand: Demand
    """One of the phases, to name what was run."""
    infer_phase: str
    device_a: str
    device_b: str
    train: LogEstimate
    infer: LogEstimate

    @property
    def train_over_infer(self) -> LogEstimate:
        """Over 1: going from A to B costs training more than it costs inference."""
        return self.train.over(self.infer)


@dataclass(frozen=True, kw_only=True)
class GapResult:
    """Demands, their ratios, and what was asked in a user's terms."""

    demands: tuple[Demand, ...]
    gaps: tuple[Gap, ...]
    missing: tuple[Missing, ...]
    device_gaps: tuple[DeviceGap, ...]
    trainings: tuple[tuple[Demand, Training], ...]
    wanted: Wanted | None = None
    served: tuple[ServedLoad, ...] = ()
    unserved: tuple[str, ...] = ()
    """What no load could be put on, and why."""
    num_wide: int = 0
    """Configurations over several devices or a modelled link that were left out."""
    num_by_schedule: int = 0
    """Rows in which requests came by themselves, which were left out."""


def measure_gap(
    rows: Sequence[Row],
    *,
    wanted: Wanted | None = None,
    steps: Steps | None = None,
    length: Length | None = None,
    has_all_layouts: bool = False,
) -> GapResult:
    """Analyse the rows; `steps` are their service times, `length` that of a whole training.

    Requests that came by themselves are another question: their rows are left out.
    One device is the question, so rows of several devices or over a modelled link are left out
    where one device has usable rows, unless `has_all_layouts`. Layouts are never mixed.
    """
    stepped = [row for row in rows if not is_served(row)]
    found = demands(stepped)
    alone = [demand for demand in found if not demand.trials.is_wide]
    left_out = set()
    if not has_all_layouts and any(demand.num_trials for demand in alone):
        wide = (demand.trials for demand in found if demand.trials.is_wide)
        left_out = {row["config_hash"] for trials in wide for row in trials.rows}
        found = alone
    served, unserved = serve(found, wanted=wanted, steps=steps or {}) if wanted else ([], [])
    gaps, missing = _find_gaps(found, served=served)
    return GapResult(
        demands=tuple(found),
        gaps=tuple(gaps),
        missing=tuple(missing),
        device_gaps=tuple(_device_gaps(found)),
        trainings=tuple((d, plan) for d in found if (plan := training(d, length=length))),
        wanted=wanted,
        served=tuple(served),
        unserved=tuple(unserved),
        num_wide=len(left_out),
        num_by_schedule=len(rows) - len(stepped),
    )


def _find_gaps(
    found: Sequence[Demand], *, served: Sequence[ServedLoad]
) -> tuple[list[Gap], list[Missing]]:
    gaps, missing = [], []
    at_limit = {one.demand: one.device_s_per_item for one in served}
    together = grouped(found, lambda one: (*one.setting, *map(one.trials.text, PLACE)))
    for phases in together.values():
        trains = [demand for demand in phases if demand.trials.phase == TRAIN]
        others = [demand for demand in phases if demand.trials.phase != TRAIN]
        done = [[demand for demand in half if demand.num_trials] for half in (trains, others)]
        gaps += [
            _gap(train, infer, at_limit=at_limit.get(infer))
            for train in done[0]
            for infer in done[1]
        ]
        if bool(done[0]) != bool(done[1]):
            present, lost = (done[0], others) if done[0] else (done[1], trains)
            tried = lost[0] if lost else None
            missing.append(Missing(present=present[0], lacks_training=not done[0], tried=tried))
    return gaps, missing


def _ratio(above: LogEstimate | None, below: LogEstimate | None) -> LogEstimate | None:
    return None if above is None or below is None else above.over(below)


def _gap(train: Demand, infer: Demand, *, at_limit: LogEstimate | None) -> Gap:
    unit, is_per_element = shared_unit(train, infer)

    def both(above: LogEstimate | None, below: LogEstimate | None) -> LogEstimate | None:
        if unit is None:
            return None
        return _ratio(per(train, unit, quantity=above), per(infer, unit, quantity=below))

    energy = both(train.energy_per_item_j, infer.energy_per_item_j)
    is_same_memory = train.memory_kind == infer.memory_kind
    is_same_utilisation = train.utilisation_kind == infer.utilisation_kind
    flops = [exact(d.flops_per_item) if d.flops_per_item else None for d in (train, infer)]
    return Gap(
        train=train,
        infer=infer,
        unit=unit,
        is_per_element=is_per_element,
        time=both(train.time_per_item_s, infer.time_per_item_s),
        time_at_limit=both(train.time_per_item_s, at_limit),
        flops=both(*flops),
        memory=_ratio(train.memory_bytes, infer.memory_bytes) if is_same_memory else None,
        energy=energy if train.energy_scope == infer.energy_scope else None,
        utilisation=_ratio(train.utilisation, infer.utilisation) if is_same_utilisation else None,
        published=_bracket(infer, unit=unit),
    )


def _bracket(infer: Demand, *, unit: str | None) -> PublishedBracket | None:
    """Published bounds for shipped workloads, measured on one real device."""
    trials = infer.trials
    if trials.is_script or trials.is_wide or trials.mode != "real":
        return None
    chips = {chip.id: chip for chip in load_chips()}
    return bracket(infer.name, unit=unit, published=load_published(), chips=chips)


def _device_gaps(found: Sequence[Demand]) -> list[DeviceGap]:
    """For each setting and each two devices: how the training and inference ratios differ."""
    settings: dict[tuple[str, ...], dict[str, dict[str, LogEstimate]]] = {}
    named: dict[tuple[str, ...], Demand] = {}
    for demand in found:
        if demand.time_per_item_s is not None:
            named.setdefault(demand.setting, demand)
            phases = settings.setdefault(demand.setting, {}).setdefault(demand.device, {})
            phases[demand.trials.phase] = demand.time_per_item_s
    return [
        DeviceGap(
            demand=named[setting],
            infer_phase=phase,
            device_a=a,
            device_b=b,
            train=devices[b][TRAIN].over(devices[a][TRAIN]),
            infer=devices[b][phase].over(devices[a][phase]),
        )
        for setting, devices in settings.items()
        for a, b in combinations(devices, 2)
        if TRAIN in devices[a] and TRAIN in devices[b]
        for phase in devices[a]
        if phase != TRAIN and phase in devices[b]
    ]
