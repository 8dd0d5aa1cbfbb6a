"""Projection and sizing against figures worked by hand, and what must hold for every chip."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.analysis.projection import on_chip, roofs, scaled_operators, sizing
from bench.analysis.projection.measured import Start, in_dtype
from bench.analysis.projection.projected import Projected, project
from bench.analysis.projection.roofs import SAME_VENDOR, Roofs, Unknown, band
from bench.analysis.projection.sizing import Choice, Target, parse_target, start_for, usual_link
from bench.core.errors import UsageError
from bench.core.nouns import Chip, Reach
from bench.hardware.chips import chip as catalogue_chip
from bench.hardware.chips import load_chips
from bench.hardware.costs.cost import CostModel
from bench.hardware.links.presets import load_links
from bench.hardware.links.topology import parse_topology
from bench.hardware.operators import Operators
from bench.report.tables.project_tables import size_grid

SHEET = Chip(
    id="round", name="Round", vendor="nvidia", kind="gpu", confidence="high", sources=(),
    peak_per_s={"bf16": 400e12, "fp32": 50e12},
    memory_bytes=80e9, memory_bytes_per_s=2e12, tdp_w=500.0,
    facts={"vector_fp32_flops_per_s": 50e12, "torch_devices": 1, "form_factor": "sxm5",
           "link_topology": "none"},
)  # fmt: skip
MATRIX, MEMORY = (band(rate, basis="measured here") for rate in (100e12, 1e12))
SOURCE = Roofs(kind="gpu", vendor="nvidia", dtype="bf16", chip=None, matrix=MATRIX, memory=MEMORY)


def operators(kind: str, *, time_s: float, bytes: float, **figures: float) -> Operators:
    whole: Any = {"calls": 1, "flops": 0.0, "bytes": bytes, "least_bytes": bytes, **figures}
    return Operators(kind=kind, dtype="bf16", time_s=time_s, **whole)  # type: ignore[arg-type]


GEMM = operators("gemm", time_s=1.0, flops=100e12, bytes=1e6)  # one second at the matrix roof
COPY = operators("copy", time_s=1.0, bytes=1e12)  # one second at the memory roof
SLOW = operators("gemm", time_s=2.0, flops=100e12, bytes=1e6)  # a roof explains half
MEASURED = Start(
    workload="imaging-train", is_training=True, size="base", config_hash="c0ffee", dtype="bf16",
    device="Source", num_trials=3, batch=4, items_per_step=4.0, items_unit="patch", step_s=2.0,
    step_spread=1.0,
    roofs=SOURCE, operators=(GEMM, COPY), has_profile=True, overhead_s=0.0,
    num_parameters=10**9, memory_bytes=40e9,
)  # fmt: skip
INFER = replace(MEASURED, workload="imaging-infer", is_training=False)


def reach(low: float, high: float | None = None) -> Reach:
    return Reach(low=low, high=high or low, basis="measured", sources=("somebody",))


def chip(**changes: Any) -> Chip:
    """A chip that reaches all of its sheet, unless `reaches` says otherwise."""
    facts = {**SHEET.facts, **changes.pop("facts", {})}
    made = replace(SHEET, facts=facts, **changes)
    peaks = {"gemm": made.peak16_per_s, "memory": made.memory_bytes_per_s}
    whole = {name: reach(rate) for name, rate in peaks.items() if rate}
    return replace(made, reaches=changes.get("reaches", whole))


CHIP = chip()


def projected(start: Start = MEASURED, to: Chip = CHIP, **how: Any) -> Projected:
    answer = project(start, to, **how)
    assert isinstance(answer, Projected), answer
    return answer


def test_work_at_its_roof_moves_by_that_roof_and_the_doubt_is_about_architecture() -> None:
    # 1 s of products on 4 x the matrix rate and 1 s of copies on 2 x the bandwidth.
    one = projected()
    assert one.time_s.mid == pytest.approx(0.25 + 0.5, rel=1e-6)
    assert one.throughput_per_s.mid == pytest.approx(4 / 0.75, rel=1e-6)
    assert one.shares == pytest.approx({"matrix": 1 / 3, "memory": 2 / 3}, rel=1e-6)
    assert one.binds == "memory"
    # The doubt about architecture is even in the logarithm between 1/k and k: the 10th percentile
    # is k to the power -0.8.
    assert one.time_s.low == pytest.approx(0.75 * SAME_VENDOR**-0.8, rel=0.01)
    assert one.time_s.high == pytest.approx(0.75 * SAME_VENDOR**0.8, rel=0.01)
    assert any("chip built like round" in words for words in one.narrowing)
    # 1 s at the matrix roof, 0.8 s of bytes: on 4 x the rate and 2 x the bandwidth, 0.4 s.
    ridge = operators("gemm", time_s=1.0, flops=100e12, bytes=0.8e12)
    one = projected(replace(MEASURED, operators=(ridge,), step_s=1.0))
    assert (one.time_s.mid, one.binds) == (pytest.approx(0.4, rel=1e-6), "memory")
    for factor in (0.1, 0.7, 3.0, 10.0):
        faster = chip(peak_per_s={"bf16": 100e12 * factor}, memory_bytes_per_s=1e12 * factor)
        assert projected(to=faster).time_s.mid == pytest.approx(2.0 / factor, rel=1e-6)


def test_another_dtype_than_ran_has_its_own_roof_and_says_what_is_assumed() -> None:
    """Products of 1 s at 100 TFLOP/s take 0.25 s at bf16's 400, 2 s at fp32's 50. Copies of 1 s at
    1 TB/s take 0.5 s at 2 TB/s: in half the bytes 0.25 s, in twice as many 1 s; the middle of the
    logarithm is x2 ** 0.5 from either.
    """
    for ran, asked, product_s, copy_s in (("fp32", "bf16", 0.25, 0.5 / 2**0.5),
                                          ("bf16", "fp32", 2.0, 0.5 * 2**0.5)):  # fmt: skip
        start = replace(MEASURED, roofs=replace(SOURCE, dtype=ran), dtype=ran, memory_bytes=20e9)
        (start,) = in_dtype([start], asked)
        one = projected(start)
        assert one.time_s.mid == pytest.approx(product_s + copy_s, rel=0.01)
        assert one.time_s.width > 1.5 * projected().time_s.width
        assert any(note.startswith(f"{asked} of a run in {ran}") for note in one.notes)
        copies = replace(start, operators=(COPY,), step_s=1.0)
        same = projected(replace(copies, roofs=replace(start.roofs, chip=CHIP)))
        assert same.dtype == asked, "the chip that was measured, too, has another roof in it"
        like = replace(start, dtype=ran)
        assert in_dtype([like, replace(start, config_hash="0f")], asked)[0].dtype == asked
    # 40 GB in bf16 may be 80 in fp32, which a chip of 80 GB does not hold at batch 4.
    assert projected(in_dtype([MEASURED], "fp32")[0]).batch < 4


def test_time_that_no_roof_explains_is_wider_and_the_host_and_a_narrow_link_are_charged() -> None:
    sharp = projected(replace(MEASURED, operators=(GEMM,), step_s=1.0))
    wide = projected(replace(MEASURED, operators=(SLOW,), step_s=2.0))
    assert wide.time_s.width > sharp.time_s.width
    # Half is explained (0.25 s); the rest of 1 s lies between the fastest and slowest roof.
    assert 0.25 + 1 / 4 < wide.time_s.mid < 0.25 + 1 / 1
    assert any("operator profile" in words for words in wide.narrowing)
    whole = operators("gemm", time_s=2.0, flops=100e12, bytes=0.1e12)
    one = projected(replace(MEASURED, operators=(whole,), has_profile=False))
    assert any("nobody profiled" in note for note in one.notes)
    assert one.time_s.width > projected().time_s.width
    one = projected(replace(MEASURED, operators=(), has_profile=False))
    assert set(one.shares) == {"matrix", "memory", "on chip", "launch"}
    one = projected(replace(MEASURED, step_s=2.5, overhead_s=0.5))
    assert one.time_s.mid == pytest.approx(0.75 + 0.5, rel=1e-6)
    assert one.shares["launch"] == pytest.approx(0.5 / 1.25, rel=0.03)
    # A device that worked for 0.5 s of 2 s and waited for its host: four times as fast it waits
    # longer, as slow as an eighth it needs 4 s and waits no more. The host is known to x1.5.
    short = operators("gemm", time_s=0.5, flops=50e12, bytes=1e6)
    paced = replace(MEASURED, operators=(short,), overhead_s=1.5, is_host_bound=True)
    one = projected(paced)
    assert one.time_s.mid == pytest.approx(2.0, rel=0.02) and one.binds == "launch"
    assert one.time_s.low == pytest.approx(2.0 / 1.5**0.8, rel=0.01)
    assert one.time_s.high == pytest.approx(2.0 * 1.5**0.8, rel=0.01)
    assert any("host_bound" in note for note in one.notes)
    one = projected(paced, chip(peak_per_s={"bf16": 100e12 / 8}))
    assert one.time_s.mid == pytest.approx(4.0, rel=1e-6)
    # Without a profile it worked for 0.5 s to 2 s: a chip four times slower needs 2 s to 8 s.
    one = projected(replace(paced, has_profile=False), chip(peak_per_s={"bf16": 25e12}))
    assert 1.3 < one.time_s.low < one.time_s.mid < one.time_s.high < 8.0 * SAME_VENDOR
    many = operators("vector", time_s=1.0, bytes=1e12, calls=10**6)
    cpu = replace(SOURCE, kind="cpu", vendor="amd")
    one = projected(replace(MEASURED, roofs=cpu, operators=(many,), step_s=1.0))
    assert one.time_s.low > 3.0, "a million operators of at least 3 us each"
    assert one.binds == "launch"
    # A profile may have no operator in it, as that of a net whose kernels torch does not see.
    one = projected(replace(MEASURED, roofs=cpu, operators=(), step_s=1.0))
    assert 0.0 < one.time_s.low < one.time_s.high and one.binds != "launch"
    infinite = CostModel(parse_topology("infinite"))
    narrow = CostModel(parse_topology("bw=1GB/s,latency=5us"))
    free, slow = (projected(devices=8, link=link) for link in (infinite, narrow))
    assert free.time_s.mid == pytest.approx(0.75, rel=1e-6)
    assert free.throughput_per_s.mid == pytest.approx(8 * 4 / 0.75, rel=1e-6)
    # 4 GB of gradients, 7/4 of them over 1 GB/s: 7 s, of which backward hides at most 0.5 s.
    assert slow.time_s.low > 6.0
    assert slow.binds == "link"
    one = projected(INFER, devices=8, link=narrow)
    assert one.time_s.mid == pytest.approx(0.75, rel=1e-6) and "link" not in one.shares


def test_a_smaller_memory_takes_a_smaller_batch_and_every_chip_an_interval_or_a_reason() -> None:
    # 16 GB do not grow, 6 GB a sample do; 30e9 x 0.93 holds (27.9 - 16) / 6 = 1 sample.
    one = projected(to=chip(memory_bytes=30e9))
    assert one.batch == 1
    assert one.time_s.mid == pytest.approx(0.75 / 4, rel=1e-6)
    assert one.throughput_per_s.mid == pytest.approx(4 / 0.75, rel=1e-6)
    assert any("batch 1 fits" in note for note in one.notes)
    whole = one.training_s(100.0)  # of 4 samples each, as measured
    assert whole is not None and whole.mid == pytest.approx(100 * 0.75, rel=1e-6)
    answer = project(MEASURED, chip(memory_bytes=16e9))
    assert isinstance(answer, Unknown) and "not even batch 1 fits" in answer.reason
    # The memory of one of two dies counts.
    two = chip(memory_bytes=30e9, facts={"torch_devices": 2})
    assert isinstance(project(MEASURED, two), Unknown)
    answers = {one.id: project(MEASURED, one, is_explained=False) for one in load_chips()}
    for name in ("hanguang800", "tianjic", "xuantie-910", "kunlun3-p800"):
        assert isinstance(answers[name], Unknown), name
    for answer in answers.values():
        if isinstance(answer, Projected):
            assert 0.0 < answer.time_s.low <= answer.time_s.mid <= answer.time_s.high
            assert answer.time_s.width > 1.05, "never one number"
    for cells in ({"peak_per_s": {}}, {"peak_per_s": {"int8": 1e15}},
                  {"memory_bytes_per_s": None}, {"memory_bytes_per_s": 0.0}):  # fmt: skip
        answer = project(MEASURED, chip(**cells))
        assert isinstance(answer, Unknown)
        assert "not known" in answer.reason and "\n" not in answer.reason


def test_what_is_missing_or_a_stranger_widens_and_a_chip_is_projected_to_itself() -> None:
    for cells, said in (
        ({"peak_per_s": {"fp16": 400e12}}, "fp16 stands in for bf16"),
        ({"reaches": {}}, "its own is not known"),
    ):
        other = projected(to=chip(**cells))
        assert other.time_s.width > projected().time_s.width
        assert any(said in words for words in (*other.notes, *other.basis.values()))
    h100, h200, a100, mi300 = (
        roofs.catalogue_roofs(catalogue_chip(name), dtype="bf16")
        for name in ("h100-sxm-80g", "h200-sxm", "a100-sxm-80g", "mi300x")
    )
    factors = [
        roofs.relatedness(h200, other, dtype="bf16")[0] for other in (h200, h100, a100, mi300)
    ]  # type: ignore[arg-type]
    assert factors == sorted(factors) and len(set(factors)) == 4
    own = catalogue_chip("h200-sxm")
    one = projected(replace(MEASURED, roofs=replace(SOURCE, chip=own), operators=(SLOW,)), own)
    assert [one.time_s.low, one.time_s.mid, one.time_s.high] == pytest.approx([2.0, 2.0, 2.0])


def test_a_power_limit_lowers_the_clock_and_the_cache_is_a_limit_beside_it() -> None:
    """Half of the unthrottled rate is half the clock of the peak, and none is over the highest."""
    clocks = {"compute_units": 100, "compute_unit_kind": "sm", "max_clock_hz": 2e9,
              "tensor_clock_hz": 1.6e9}  # fmt: skip
    full = 400e12 * on_chip.UNTHROTTLED_FRACTION

    def made(*gemm: float, cache: float | None = None) -> Chip:
        known = {"gemm": reach(*(gemm or (full,))), "memory": reach(2e12)}
        return chip(facts=clocks, reaches=known | ({"cache": reach(cache)} if cache else {}))

    def clock(*gemm: float) -> tuple[float, float]:
        found = roofs.catalogue_roofs(made(*gemm), dtype="bf16")
        assert isinstance(found, Roofs)
        span = on_chip.sustained_clock(made(), dtype="bf16", matrix=found.matrix)
        assert span is not None
        return span.low, span.high

    assert clock(0.5 * full, full) == pytest.approx((0.8e9, 1.6e9))
    assert clock(full, 1.5 * full) == pytest.approx((1.6e9, 2e9)), "no faster than the highest"
    other = roofs.band(100e12)
    assert on_chip.sustained_clock(chip(), dtype="bf16", matrix=other) is None
    amd = replace(made(), vendor="amd")
    assert on_chip.sustained_clock(amd, dtype="bf16", matrix=other) == roofs.band(2e9)
    # On-chip work alone: half the clock takes twice the time, half the cache alike; a cache that
    # is as fast leaves it anywhere between once and twice.
    fast, slow = made(full, cache=4e12), made(0.5 * full, cache=2e12)
    source, target, same_cache = (
        roofs.catalogue_roofs(one, dtype="bf16")
        for one in (fast, slow, made(0.5 * full, cache=4e12))
    )
    assert isinstance(source, Roofs) and isinstance(target, Roofs) and isinstance(same_cache, Roofs)
    target, same_cache = (
        replace(one, chip=replace(one.chip, id="other")) for one in (target, same_cache) if one.chip
    )
    unknown = scaled_operators.draws()
    for there, ends in ((target, (2.0, 2.0)), (same_cache, (1.0, 2.0))):
        held = on_chip.limits(source, there)
        assert [limit.name for limit in held] == ["units x clock", "cache"]
        slowdown = scaled_operators.rates_of(source, there, held, unknown).slowdown[2]
        assert (slowdown.min(), slowdown.max()) == pytest.approx(ends, rel=1e-3)


rates = st.floats(0.1, 10.0)
times = st.floats(0.01, 10.0)


@settings(max_examples=40)
@given(
    matrix=rates, memory=rates, vector=rates, faster=st.floats(1.0, 5.0), gemm_s=times, copy_s=times
)
def test_a_chip_faster_in_every_roof_is_never_projected_slower(
    matrix: float, memory: float, vector: float, faster: float, gemm_s: float, copy_s: float
) -> None:
    gemm = operators("gemm", time_s=gemm_s, flops=60e12, bytes=1e11)
    norm = operators("norm", time_s=copy_s, bytes=0.4e12)
    start = replace(MEASURED, operators=(gemm, norm), step_s=gemm_s + copy_s)

    def made(factor: float) -> Chip:
        return chip(
            peak_per_s={"bf16": 100e12 * matrix * factor},
            memory_bytes_per_s=1e12 * memory * factor,
            facts={"vector_fp32_flops_per_s": 20e12 * vector * factor},
        )

    slow, fast = (projected(start, made(factor), is_explained=False) for factor in (1.0, faster))
    assert fast.time_s.mid <= slow.time_s.mid * (1 + 1e-9)
    for one in (slow, fast):
        assert one.time_s.low <= one.time_s.mid <= one.time_s.high
        assert sum(one.shares.values()) == pytest.approx(1.0)


def sized(
    start: Start, *chips: Chip, link: str | None = None, **target: float
) -> tuple[Sequence[Choice], Sequence[Unknown]]:
    asked: Any = {"workload": start.workload, **target}
    return sizing.size(Target(**asked), start, chips or [CHIP], link=link)


def test_targets_are_read_or_refused_and_every_usual_link_is_a_preset() -> None:
    within = parse_target("imaging-infer < 30s")
    assert (within.item_s, within.items_per_s, within.asked) == (30.0, None, "within 30s")
    rate = parse_target("llm-train 8.64e9 tokens/day")
    assert rate.items_per_s == pytest.approx(1e5) and rate.unit == "tokens"
    assert parse_target("llm-train .5 tokens/s").items_per_s == 0.5
    for text in ("", "imaging-infer", "imaging-infer < 30", "imaging-infer < 0s",
                 "llm-train 0 tokens/s", "llm-train 1e9 tokens/week", "llm-train 1e999 tokens/s",
                 "llm-train x tokens/s"):  # fmt: skip
        with pytest.raises(UsageError) as raised:
            parse_target(text)
        assert "\n" not in str(raised.value), text
    with pytest.raises(UsageError, match="imaging-train"):
        start_for(parse_target("llm-train 5 tokens/s"), [MEASURED])
    with pytest.raises(UsageError, match="is a patch"):
        start_for(parse_target("imaging-train 5 tokens/s"), [MEASURED])
    # The fastest start is taken.
    fast = replace(MEASURED, step_s=0.1)
    other = replace(MEASURED, workload="llm-train", step_s=0.01)
    assert start_for(parse_target("imaging-train 5 patches/s"), [MEASURED, fast, other]) is fast
    expected = {"h20-96g": "h20-nvlink", "a800-sxm-80g": "a800-nvlink",
                "ascend-910": "ascend910-hccs", "ascend-910b3": "ascend910b-hccs",
                "ascend-910c": "pcie5", "mi250x": "mi250-if", "l4": "pcie4",
                "h100-pcie-80g": "pcie5", "l40s": "l40s-pcie"}  # fmt: skip
    assert {name: usual_link(catalogue_chip(name), devices=4) for name in expected} == expected
    assert set(expected.values()) <= {row.id for row in load_links()}
    beyond = {("h20-96g", 8): "h20-nvlink", ("h20-96g", 112): "h20-nvlink*8/ndr",
              ("ascend-910", 8): "ascend910-hccs*4/100gbe", ("l40s", 8): "l40s-pcie",
              ("a100-sxm-80g", 16): "a100-nvlink*8/hdr", ("l4", 8): "pcie4-cross-socket",
              ("l4", 16): "pcie4-cross-socket*8/100gbe"}  # fmt: skip
    for (name, devices), text in beyond.items():
        assert usual_link(catalogue_chip(name), devices=devices) == text
        parse_topology(text).check_devices(devices)


def test_as_many_are_taken_as_the_target_needs_in_an_order_that_says_what_is_open() -> None:
    # One projects to 4 items in 0.75 s in the middle, 5.33/s: 21.4/s need five.
    ((choice,), missed) = sized(INFER, CHIP, chip(peak_per_s={}), items_per_s=21.4)
    assert (choice.projected.devices, choice.watts) == (5, 5 * 500.0)
    low, middle, high = choice.devices or (0, 0, 0)
    assert low <= middle <= high and low < high
    assert ["not known" in one.reason for one in missed] == [True]
    for item_s, devices in ((2.0, (1, 1, 1)), (0.75, None)):
        ((choice,), _) = sized(INFER, item_s=item_s)
        assert choice.devices == devices, "None: only a part of the interval meets it"
    none, missed = sized(INFER, item_s=0.1)
    assert not none and "even at the fast end" in missed[0].reason
    ((wide,), _) = sized(MEASURED, link="infinite", items_per_s=30.0)
    ((narrow,), _) = sized(MEASURED, link="bw=20GB/s,latency=5us", items_per_s=30.0)
    assert wide.projected.devices == 6 < narrow.projected.devices
    hopeless, missed = sized(MEASURED, link="bw=1MB/s,latency=5us", items_per_s=30.0)
    assert not hopeless and "not met" in missed[0].reason
    near = chip(id="near", peak_per_s={"bf16": 300e12}, memory_bytes_per_s=1.8e12)
    chips = (chip(id="hot", tdp_w=900.0), chip(id="cool", tdp_w=100.0), near)
    choices, _ = sized(INFER, *chips, items_per_s=50.0)
    assert [one.projected.chip.id for one in choices] == ["cool", "hot", "near"]
    (line,) = sizing.undecided(choices)
    assert line.startswith("hot before near is not decided")
    # Like is ranked with like: one that is faster in a stand-in's dtype stands after them.
    other = chip(id="other", peak_per_s={"fp16": 900e12}, memory_bytes_per_s=9e12)
    choices, _ = sized(INFER, other, near, CHIP, items_per_s=50.0)
    found = [(one.projected.chip.id, one.projected.dtype) for one in choices]
    assert found == [("round", "bf16"), ("near", "bf16"), ("other", "fp16")]
    assert choices[2].projected.devices < choices[0].projected.devices
    assert not any("other" in line for line in sizing.undecided(choices))
    grid = size_grid(Target(workload="imaging-infer"), choices, start=INFER, others=())
    column = grid.heads.index("dtype")
    assert [row[column] for row in grid.rows] == ["bf16", "bf16", "fp16"]
    assert any("dtype by dtype" in note for note in grid.notes)
