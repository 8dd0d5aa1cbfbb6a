"""What `bench gap` shows: ratios of training to inference, rooflines, and a user's own figures.

A title has what is always named (size, precision, layout) and, of all else, only that in which two
settings of the same table differ. The mode is a badge, and says the link.
"""

from collections.abc import Iterable, Sequence

from bench.analysis.gap.demand import Demand, Training
from bench.analysis.gap.gap_result import DeviceGap, Gap, GapResult, Missing
from bench.analysis.trials.titles import differing
from bench.core.units import in_unit_of, plural
from bench.report.tables import cells
from bench.report.tables.cells import AnyCell
from bench.report.tables.grid import Grid
from bench.report.tables.run_table import data_lines
from bench.report.tables.served_table import served_grid

_ALWAYS = ("size", "dtype", "compile", "compile_mode",
           "device_count", "parallel", "layout", "mitigation")  # fmt: skip
_APART = ("channels_last", "data", "workload_version", "chip_limit")


def title(demand: Demand, *, name: str | None = None, shown: Sequence[str] = ()) -> AnyCell:
    """Workload with what it was run with; `shown` is what `apart` found for the table."""
    return cells.title_cell(demand.trials.first, shown=(*_ALWAYS, *shown), name=name)


def full_title(demand: Demand, *, name: str | None = None, shown: Sequence[str] = ()) -> str:
    """Title with the batch, in which many demands differ."""
    return cells.text_of(title(demand, name=name, shown=(*shown, "batch")))


def apart(found: Iterable[Demand]) -> list[str]:
    """Names of parameters and facts in which two settings of one net and size differ."""
    # Two programs are two files with arguments of their own: their names tell them apart.
    rows = [
        {**one.trials.first, "workload": one.name if one.trials.is_script else one.trials.net}
        for one in found
    ]
    return differing(rows, columns=_APART)


def pair_of(gap: Gap) -> str:
    """'imaging-train/infer'."""
    return f"{gap.train.name}/{gap.infer.trials.phase}"


def gap_grid(gaps: Sequence[Gap], *, limit: str = "") -> Grid:
    """Training over inference: time, FLOPs, memory, energy, utilisation.

    With a limit ('p95 10min') also time where inference may use only a part of a device.
    """
    shown = apart(gap.train for gap in gaps)
    at_limit = f"time at {limit}"
    notes = [f"{at_limit}: inference's time over the part of a device that may be used there"]
    return Grid.of(
        gaps,
        {
            "train/infer": lambda gap: title(gap.train, name=pair_of(gap), shown=shown),
            "device": lambda gap: gap.train.device,
            "per": lambda gap: gap.unit or "",
            "time": lambda gap: cells.ratio(gap.time),
            "published": _published,
            at_limit: lambda gap: cells.ratio(gap.time_at_limit),
            "FLOPs": lambda gap: cells.ratio(gap.flops),
            "memory": lambda gap: cells.ratio(gap.memory),
            "energy": lambda gap: cells.ratio(gap.energy),
            "utilisation": lambda gap: cells.ratio(gap.utilisation),
            "trials": lambda gap: f"{gap.train.num_trials}, {gap.infer.num_trials}",
        },
        title="Training over inference [95 %]",
        notes=[*(notes if limit else []), *_published_notes(gaps), *_gap_notes(gaps)],
        names=("device",),
        spare=("per", "trials", "utilisation", "FLOPs"),
    )


def _published(gap: Gap) -> AnyCell:
    """Where others' time ratio lies if both phases compute in one precision."""
    if gap.time is None or gap.published is None:
        return ""
    return cells.ratio_span(gap.published.in_one_precision)


def _published_notes(gaps: Sequence[Gap]) -> list[str]:
    notes: dict[str, None] = {}
    for gap in gaps:
        like = gap.published
        if like is None or gap.time is None:
            continue
        said, one = (
            cells.ratio_span(ends).plain for ends in (like.published, like.in_one_precision)
        )
        trained, inferred = like.dtypes
        notes[
            f"published for {like.net} on {', '.join(like.chips)}: {said} per {like.unit}, trained "
            f"in {trained}, inferred in {inferred}; so {one} in one precision. Chips, volumes and "
            "software are not those here: a bracket, no target"
        ] = None
        size = gap.train.trials.text("size")
        other = "" if size == like.size else f"; the published net is nearest to size {like.size}"
        ratio = cells.text_of(cells.ratio(gap.time))
        notes[f"{pair_of(gap)} {size} {ratio} is {like.place_of(gap.time)} it{other}"] = None
    return list(notes)


def _gap_notes(gaps: Sequence[Gap]) -> list[str]:
    notes: dict[str, None] = {}
    no_energy: dict[str, dict[str, None]] = {}
    for gap in gaps:
        pair = f"{gap.train.name} and {gap.infer.name}"
        units = gap.train.items_unit, gap.infer.items_unit
        if gap.is_per_element:
            reported = f"count different items ({', '.join(map(str, units))})"
            notes[f"{pair} {reported}, so they are compared per {gap.unit}"] = None
        elif gap.unit is None:
            reported = f"have no unit in common ({', '.join(unit or 'blank' for unit in units)})"
            notes[f"{pair} {reported}: only memory and utilisation are compared"] = None
        threads = [side.trials.text("threads") for side in (gap.train, gap.infer)]
        is_cpu = gap.train.trials.text("device_type") == "cpu"
        if is_cpu and gap.utilisation and all(threads) and threads[0] != threads[1]:
            ran = f"{pair} ran on {' and '.join(threads)} threads, each share is of that roof"
            notes[f"{ran}, so utilisation is not FLOPs over time"] = None
        if gap.energy is None:
            sides = [side.energy_per_item_j is not None for side in (gap.train, gap.infer)]
            why = "measured in different ways"
            if not all(sides):
                why = "not measured" + (" in one of the two" if any(sides) else "")
            no_energy.setdefault(why, {})[pair_of(gap)] = None
    lost = [f"no energy ratio of {', '.join(pairs)}: {why}" for why, pairs in no_energy.items()]
    return [*notes, *lost]


ROOF_HEADS = ("FLOP/byte", "ridge", "lower roof", "of it")
"""Columns that say where a phase lies under its device's roofs."""


def demand_grid(found: Sequence[Demand]) -> Grid:
    """Each phase by itself: absolute figures, and where it lies under its device's roofs."""
    shown = apart(found)
    return Grid.of(
        [demand for demand in found if demand.num_trials],
        {
            "phase": lambda demand: title(demand, shown=shown),
            "device": lambda demand: demand.device,
            "item": lambda demand: demand.items_unit,
            "time/item": lambda demand: cells.figure(demand.time_per_item_s, cells.seconds),
            "work/item": lambda demand: cells.quantity(
                demand.flops_per_item or None, cells.of("FLOP")
            ),
            "memory": lambda demand: cells.figure(demand.memory_bytes, cells.num_bytes),
            "energy/item": lambda demand: cells.figure(demand.energy_per_item_j, cells.of("J")),
            "utilisation": lambda demand: cells.figure(demand.utilisation, cells.percent),
            # Its interval is that of the time beside it.
            "items/day": lambda demand: cells.quantity(
                None if demand.items_per_day is None else demand.items_per_day.value
            ),
            "FLOP/byte": lambda demand: cells.quantity(demand.flops_per_byte),
            "ridge": lambda demand: cells.quantity(
                demand.ridge_flops_per_byte if demand.flops_per_byte else None
            ),
            "lower roof": lambda demand: (
                demand.roof or ("" if demand.flops_per_byte is None else "not measured")
            ),
            "of it": lambda demand: cells.share(demand.reached_frac),
        },
        title="Each phase by itself [95 %]",
        notes=[*_kinds(found), *data_lines(demand.trials for demand in found)],
        names=("device",),
        spare=("items/day", "ridge", "utilisation", "energy/item", "work/item", "FLOP/byte"),
    )


def _kinds(found: Sequence[Demand]) -> list[str]:
    memory = sorted({d.memory_kind for d in found if d.memory_kind})
    used = sorted({d.utilisation_kind for d in found if d.utilisation_kind})
    notes = [f"memory is the peak of: {', '.join(memory)}"] if memory else []
    notes += [f"utilisation is a share {', '.join(used)}"] if used else []
    if any(demand.flops_per_byte for demand in found):
        notes.append(
            "FLOP/byte: model work over least memory traffic; ridge: from how many on compute is "
            "the lower roof; of it: share of the lower measured roof that was reached"
        )
    return notes


def device_grid(gaps: Sequence[DeviceGap]) -> Grid:
    """Time per item on B over A, in training and in inference, and how far these lie apart."""
    shown = apart(gap.demand for gap in gaps)
    return Grid.of(
        gaps,
        {
            "workload": lambda gap: title(gap.demand, name=gap.demand.trials.net, shown=shown),
            "A": lambda gap: gap.device_a,
            "B": lambda gap: gap.device_b,
            "train B/A": lambda gap: cells.ratio(gap.train),
            "phase": lambda gap: gap.infer_phase,
            "inference B/A": lambda gap: cells.ratio(gap.infer),
            "train / inference": lambda gap: cells.ratio(gap.train_over_infer),
        },
        title="Between two devices: time per item [95 %]",
        notes=("train / inference over 1: training loses more than inference on the way to B",),
        names=("A", "B"),
    )


def training_grid(found: Sequence[tuple[Demand, Training]], *, within: str | None) -> Grid:
    """Time and energy of a training of stated length, and how many devices meet a deadline."""
    shown = apart(demand for demand, _ in found)
    devices = f"devices within {within}"
    note = f"{devices}: if none waits for another; bench project --size-for counts the exchange"
    time = in_unit_of(within) if within else cells.seconds
    return Grid.of(
        found,
        {
            "training": lambda one: title(one[0], shown=shown),
            "device": lambda one: one[0].device,
            "items": lambda one: cells.quantity(
                one[1].num_items, cells.plain_unit(plural(one[0].items_unit, one[1].num_items))
            ),
            "time": lambda one: cells.figure(one[1].time_s, time),
            devices: lambda one: cells.quantity(one[1].num_devices),
            "energy": lambda one: cells.figure(
                one[1].energy_j and one[1].energy_j.times(1.0 / 3600.0), cells.of("Wh")
            ),
        },
        title="A whole training [95 %]",
        notes=[note] if within else [],
        names=("device",),
    )


def grids(result: GapResult, *, within: str | None = None) -> list[Grid]:
    """Every table that has a row; the one that was asked for first."""
    wanted = result.wanted
    limit = f"{wanted.at} {wanted.latency}" if wanted and wanted.latency else ""
    found = [
        gap_grid(result.gaps, limit=limit),
        demand_grid(result.demands),
        device_grid(result.device_gaps),
        training_grid(result.trainings, within=within),
    ]
    if wanted:
        shown = (*_ALWAYS, *apart(one.demand for one in result.served))
        found.insert(0, served_grid(result.served, wanted=wanted, shown=shown))
    return [grid for grid in found if grid.rows]


def missing_lines(missing: Sequence[Missing], *, commands: Sequence[str]) -> list[str]:
    """What is missing for a ratio, and the command that would measure it."""
    lines = []
    shown = apart(half.present for half in missing)
    for half, command in zip(missing, commands, strict=True):
        there = f"{cells.text_of(title(half.present, shown=shown))} on {half.present.device}"
        lacks = "training" if half.lacks_training else "inference"
        tried = half.tried
        lost = f" ({tried.name} was tried: {tried.trials.lost_reasons})" if tried else ""
        how = half.why_never or f"measure it: {command}"
        lines.append(f"{there} has no {lacks} beside it{lost}; {how}")
    return lines
