"""Figures of a row and of every table over it agree: kept rows, mixed volumes, a slow loader."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from bench.analysis.comparison.comparison import compare
from bench.analysis.comparison.verdicts import METRICS, WINDOW_TIME
from bench.analysis.gap.demand import Demand, Length, demands, training
from bench.analysis.gap.gap_result import Gap, measure_gap
from bench.analysis.projection.measured import Start, measured_of
from bench.analysis.projection.projected import Projected, project
from bench.analysis.scaling import step_parts_ms
from bench.analysis.trials.configuration import gather, number
from bench.analysis.trials.service_times import service_times
from bench.core.log_estimate import LogEstimate
from bench.core.nouns import Layout
from bench.core.units import counted
from bench.hardware.chips import chip, load_chips
from bench.hardware.costs.cost import model_of
from bench.hardware.operators import Operators, load_mixes, total
from bench.measure.communication.communication import communication_columns, fake_trace
from bench.measure.engine.engine import StepCount
from bench.measure.timing.summary import item_columns, speed_columns, wait_columns
from bench.measure.timing.window import Window
from bench.report.tables.cells import text_of
from bench.report.tables.links_tables import link_grids
from bench.results.reader import read_rows
from bench.results.schema import USABLE, Row
from tests.analysis.synthetic_rows import BASE
from tests.analysis.test_compare import THREE_PERCENT

KEPT = sorted((Path(__file__).parents[2] / "results").glob("*/*.csv"))
DAY_S = 86_400.0
ROOFS: Row = {"roof_flops_per_s": 1e11, "roof_bytes_per_s": 1e10}
Sizes = Sequence[tuple[int, float]]
"""Elements of each volume of a round, and the seconds it takes."""


def value(found: LogEstimate | None) -> float:
    assert found is not None
    return found.value


def recorded(counts: list[StepCount], step_s: list[float], **cells: object) -> Row:
    """A row of these steps as a run would write it, with its share of the roof."""
    window = Window(step_clock="host", start_s=0.0, end_s=sum(step_s), step_s=step_s, counts=counts)
    row: Row = {**BASE, **ROOFS, **speed_columns(window), **cells}  # type: ignore[dict-item]
    speed = float(str(row["flops_per_item"])) * float(str(row["throughput_per_s"]))
    num_ranks = int(str(row.get("device_count") or 1))
    return row | {"achieved_flops_per_s": speed, "roof_frac": speed / num_ranks / 1e11}


def trial(sizes: Sizes, *, rounds: int = 5, trial: int = 0) -> Row:
    """A trial of so many rounds of volumes; 2,000 FLOP and 40 bytes a voxel."""
    each = [
        StepCount(items=1, elements=one, flops=2e3 * one, least_bytes=40.0 * one)
        for one, _ in sizes
    ]
    cells = {"workload": "imaging-infer", "config_hash": "1nfe7", "items_unit": "volume"}
    step_s = [one_s for _, one_s in sizes] * rounds
    return recorded(each * rounds, step_s, trial=trial, batch=1, **cells, **item_columns(each))


def patches() -> Row:
    """A training trial: two patches of 32,768 voxels a step."""
    return recorded([StepCount(items=2, elements=2 * 32768, flops=8e8)] * 50, [0.36] * 50, trial=0)


def check_row(row: Row) -> None:
    """Throughput, work and shares of one row follow from one another."""

    def of(name: str) -> float:
        return number(row, name) or 0.0

    speed, done, share_of_roof = map(of, ("throughput_per_s", "achieved_flops_per_s", "roof_frac"))
    if speed and of("window_s"):
        assert speed * of("window_s") == pytest.approx(of("items"))
    if done and of("flops_per_item"):
        assert done == pytest.approx(of("flops_per_item") * speed)
    if share_of_roof:
        # What one rank reached, real or not, against the roof of its own threads.
        one_rank = done / (of("device_count") or 1.0)
        assert share_of_roof * of("roof_flops_per_s") == pytest.approx(one_rank)
    if parts := step_parts_ms(row):
        # Of an emulated row those of its simulation, which may be 3 % off.
        is_mean = "loader" in parts or row.get("mitigation")
        whole_ms = of("step_mean_ms" if is_mean else "step_median_ms")
        is_off = "simulation_disagrees" in str(row.get("reasons"))
        assert is_off or sum(parts.values()) == pytest.approx(whole_ms, rel=0.03)
    if of("elements_per_s"):
        assert of("elements_per_s") == pytest.approx(of("elements_per_item") * speed)


def check_demand(demand: Demand) -> None:
    """Time per item times items a day is a day, and what a user asks for follows from both."""
    time_s, speed = value(demand.time_per_item_s), value(demand.throughput_per_s)
    assert time_s * value(demand.items_per_day) == pytest.approx(DAY_S)
    assert time_s * speed == pytest.approx(1.0)
    day = training(demand, length=Length(num_items=value(demand.items_per_day)))
    assert day is None or day.time_s.value == pytest.approx(DAY_S)
    times = service_times(demand.trials, steps={})
    assert times is None or times.items_per_request / times.kind.mean == pytest.approx(speed)
    if demand.flops_per_item and demand.bytes_per_item:
        intensity = demand.flops_per_item / demand.bytes_per_item
        assert demand.flops_per_byte == pytest.approx(intensity)


def check_gap(gap: Gap) -> None:
    """Utilisation goes with work over time, where both phases have one roof."""
    if gap.time is None or gap.flops is None or gap.utilisation is None:
        return
    roofs = [side.roof_flops_per_s for side in (gap.train, gap.infer)]
    if roofs[0] == roofs[1] and gap.train.utilisation_kind == "of measured roof":
        assert gap.utilisation.value == pytest.approx(gap.flops.value / gap.time.value, rel=2e-3)


def check_tables(rows: Sequence[Row]) -> None:
    """Gap and projection of these rows agree with each other and with themselves."""
    found = {}
    for demand in demands(rows):
        if demand.num_trials:
            check_demand(demand)
            found[demand.trials.text("config_hash"), demand.device] = demand
    for gap in measure_gap(rows).gaps:
        check_gap(gap)
    for trials in gather(rows):
        if trials.step_ends_s and trials.step_s:
            assert trials.step_ends_s[0] <= trials.step_s.value <= trials.step_ends_s[1]
        if (total_ms := trials.mean("comm_total_ms")) and trials.mode == "simulated":
            assert (trials.mean("comm_exposed_ms") or 0.0) <= total_ms
    starts, _ = measured_of(rows, profiles={})
    for start in starts:
        demand = found[start.config_hash, start.device]
        # Middle of trials against their mean: no further apart than the trials are.
        apart = max(0.05, start.step_spread - 1.0)
        assert start.throughput_per_s == pytest.approx(value(demand.throughput_per_s), rel=apart)
        projected = project(start, chip("h20-96g"), is_explained=False)
        if isinstance(projected, Projected):
            assert sum(projected.shares.values()) == pytest.approx(1.0)
            time_s, speed = projected.time_s, projected.throughput_per_s
            per_step = start.items_per_step * projected.batch / start.batch
            assert time_s.mid * speed.mid == pytest.approx(per_step)


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_kept_rows_agree_with_themselves_and_in_every_table(path: Path) -> None:
    rows = read_rows(path)
    for row in rows:
        if row["status"] in USABLE:
            check_row(row)
    check_tables(rows)


@settings(max_examples=25)
@given(
    sizes=st.lists(
        st.tuples(st.integers(1000, 10**7), st.floats(1e-3, 10.0)), min_size=1, max_size=6
    ),
    rounds=st.integers(2, 6),
)
def test_volumes_of_any_sizes_agree_in_every_table(sizes: Sizes, rounds: int) -> None:
    rows = [trial(sizes, rounds=rounds, trial=number) for number in range(3)]
    for row in rows:
        check_row(row)
    check_tables([patches(), *rows])
    (demand,) = demands(rows)
    mean_s = sum(one_s for _, one_s in sizes) / len(sizes)
    assert value(demand.time_per_item_s) == pytest.approx(mean_s)
    # 2,000 FLOP and 40 bytes a voxel, of the same volumes.
    assert demand.flops_per_byte == pytest.approx(50.0)


ISSUE: Sizes = [(9216, 0.0487), (9216, 0.0487), (248832, 0.3648)]
"""Two small volumes and a large one: 462.2 ms for three, 154.07 ms a volume, 6.491 a second."""


def test_two_small_volumes_and_a_large_one_have_one_time_per_item_everywhere() -> None:
    rows = [trial(ISSUE, trial=number) for number in range(3)]
    assert rows[0]["step_median_ms"] == pytest.approx(48.7)
    (demand,) = demands(rows)
    assert value(demand.time_per_item_s) == pytest.approx(0.462200 / 3)
    assert value(demand.items_per_day) == pytest.approx(3 * 86_400 / 0.4622)  # 560,796
    ((start,), _) = measured_of(rows, profiles={})
    assert start.throughput_per_s == pytest.approx(3 / 0.4622)  # 6.491, not 20.5
    # 89,088 voxels a volume in 154.07 ms are 1.7294 us each, against 0.18 s / 32,768 = 5.4932 us.
    (gap,) = measure_gap([patches(), *rows]).gaps
    assert value(gap.time) == pytest.approx((0.18 / 32768) / (0.4622 / 3 / 89088))


@pytest.mark.parametrize(("large", "cells"), [(248832, {}), (9216, {"mitigation": "diloco-3"})])
def test_a_slower_large_volume_or_rare_message_is_found_though_the_middle_step_is_the_same(
    large: int, cells: Row
) -> None:
    sides = [[*ISSUE[:2], (large, large_s)] for large_s in (0.3648, 0.4648)]
    before, after = ([trial(one, trial=i) | cells for i in range(3)] for one in sides)
    files = [("a.csv", before), ("b.csv", after)]
    (row,) = compare(files, metric=METRICS["time"], strictness=THREE_PERCENT).rows
    assert (row.source, row.verdict) == (WINDOW_TIME, "REGRESSION")
    assert row.ratio == pytest.approx(0.5622 / 0.4622)


def test_a_noun_goes_with_its_number() -> None:
    words = ((1, "trial"), (0, "volume"), (7200, "patch"), (2, "voxel"), (2, "box"), (2, "study"))
    assert [counted(number, noun) for number, noun in words] == [
        "1 trial", "0 volumes", "7,200 patches", "2 voxels", "2 boxes", "2 studies"]  # fmt: skip


@pytest.mark.parametrize("waits_s", [(0.01,), (0.0, 0.0, 0.0, 0.04), (0.0,)])
def test_compute_loader_and_exposed_communication_are_the_step(waits_s: Sequence[float]) -> None:
    """Steps of 20 ms that wait 10 ms each for their batch, or every fourth one for four."""
    layout = Layout(mode="simulated", strategy="ddp", data=8, link="10gbe")
    model = model_of(layout.link)
    waited_s = list(waits_s) * (100 // len(waits_s))
    traces = [
        fake_trace(0.02 + wait_s, layout=layout, num_parameters=10**6, model=model)
        for wait_s in waited_s
    ]
    columns, _, step_s = communication_columns(traces, layout=layout, model=model)
    counts = [StepCount(items=16, elements=16, flops=8e8, data_wait_s=one) for one in waited_s]
    window = Window(step_clock="host", start_s=0.0, end_s=sum(step_s), step_s=step_s, counts=counts)
    spread: Row = {"mode": "simulated", "parallel": "ddp", "device_count": 8, "trial": 0}
    row = recorded(counts, step_s, **spread, **columns, **wait_columns(window, uses_loader=True))
    check_row(row)
    mean_wait_ms = 1e3 * sum(waits_s) / len(waits_s)
    parts = step_parts_ms(row)
    assert parts["compute"] == pytest.approx(20.0, rel=1e-3)
    assert parts.get("loader", 0.0) == pytest.approx(mean_wait_ms)
    (grid,) = (one for one in link_grids(gather([row])) if one.title.startswith("Speed"))
    cells = dict(zip(grid.heads, map(text_of, grid.rows[0]), strict=True))
    assert (cells["compute"], cells["loader"]) == ("20 ms", "10 ms" if mean_wait_ms else "")


def profiled(start: Start, *, weigh: Callable[[Operators], float], covered: float) -> Start:
    """The start with a profile: the shipped mix at its roofs, the rest of the step as weighed.

    Operators take their host 5 us or more; caches and fusion spare the bytes that had no time.
    """
    mixes = [one for one in load_mixes() if f"{one.workload}-{one.phase}" == start.workload]
    mix = next((one for one in mixes if one.size == start.size), mixes[0])
    work = total(start.operators, "flops") / total(mix.operators, "flops")
    called = min(1.0, start.step_s / 5e-6 / total(mix.operators, "calls"))
    each_s = [work * one.flops * one.is_matrix / start.roofs.matrix.mid for one in mix.operators]
    busy_s = max(start.step_s * covered, 1.02 * sum(each_s))
    bytes_s = total(mix.operators, "bytes") / start.roofs.memory.mid
    moved = min(work, (busy_s - sum(each_s)) / bytes_s)
    rest_s = busy_s - sum(each_s) - moved * bytes_s
    weights = list(map(weigh, mix.operators))
    operators = tuple(
        structs.replace(
            one,
            calls=round(one.calls * called),
            flops=one.flops * work,
            bytes=one.bytes * moved,
            time_s=own_s + moved * one.bytes / start.roofs.memory.mid + rest_s * weight,
        )
        for one, own_s, weight in zip(
            mix.operators, each_s, (one / sum(weights) for one in weights), strict=True
        )
    )
    overhead_s = start.step_s - busy_s
    return replace(start, operators=operators, has_profile=True, overhead_s=overhead_s)


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_a_profile_narrows_the_interval_and_does_not_contradict_it(path: Path) -> None:
    """A row gave 477 to 949 volume/s on an H20 without, and 58.8 to 177 with: both at 80 %."""
    mixed = {f"{one.workload}-{one.phase}" for one in load_mixes()}
    starts = measured_of(read_rows(path), profiles={})[0]
    for start in (one for one in starts if one.workload in mixed):  # else nothing to profile with
        gaps = 0.0 if start.roofs.kind == "cpu" else 0.3  # a CPU's operators are the whole step
        known = [
            profiled(start, weigh=lambda one: one.calls, covered=1.0 - gaps),
            profiled(start, weigh=lambda one: one.is_matrix, covered=1.0 - gaps / 10),
            profiled(start, weigh=lambda one: not one.is_matrix, covered=1.0 - gaps / 10),
        ]
        for to in load_chips():
            found = [project(one, to, is_explained=False) for one in (start, *known)]
            intervals = [one.time_s for one in found if isinstance(one, Projected)]
            for sharp in intervals[1:]:
                wide, where = intervals[0], (start.workload, start.size, to.id, sharp)
                assert wide.low <= sharp.high and sharp.low <= wide.high, where
                assert wide.width >= 0.98 * sharp.width, where  # ends repeat to about 1 %
