"""Projection against figures worked by hand, and what must hold for every chip."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.analysis.projection.projected import Projected, project
from bench.analysis.projection.roofs import (
    SAME_VENDOR,
    Unknown,
    catalogue_roofs,
    on_chip,
    relatedness,
)
from bench.core.nouns import Chip
from bench.hardware.chips import chip as catalogue_chip
from bench.hardware.chips import load_chips
from bench.hardware.costs.cost import CostModel
from bench.hardware.links.topology import parse_topology
from tests.analysis.projection_parts import COPY, GEMM, SOURCE, chip, measured, operators


def reported(answer: Projected | Unknown) -> Projected:
    assert isinstance(answer, Projected), answer
    return answer


def test_work_at_its_roof_moves_by_that_roof_and_the_doubt_is_about_architecture() -> None:
    # 1 s of products on 4 x the matrix rate and 1 s of copies on 2 x the bandwidth.
    one = reported(project(measured(), chip()))
    assert one.time_s.mid == pytest.approx(0.25 + 0.5, rel=1e-6)
    assert one.throughput_per_s.mid == pytest.approx(4 / 0.75, rel=1e-6)
    assert one.shares == {
        "matrix": pytest.approx(1 / 3, rel=1e-6),
        "memory": pytest.approx(2 / 3, rel=1e-6),
    }
    assert one.binds == "memory"
    # The doubt about architecture is even in the logarithm between 1/k and k: the 10th percentile
    # is k to the power -0.8.
    assert one.time_s.low == pytest.approx(0.75 * SAME_VENDOR**-0.8, rel=0.01)
    assert one.time_s.high == pytest.approx(0.75 * SAME_VENDOR**0.8, rel=0.01)
    assert any("chip built like round" in words for words in one.narrowing)


def test_work_that_crosses_the_ridge_is_bound_by_the_other_roof() -> None:
    # 1 s at the matrix roof, 0.8 s of bytes: on 4 x the rate and 2 x the bandwidth, 0.4 s.
    ridge = operators("gemm", time_s=1.0, flops=100e12, bytes=0.8e12)
    one = reported(project(measured(operators=(ridge,), step_s=1.0), chip()))
    assert one.time_s.mid == pytest.approx(0.4, rel=1e-6)
    assert one.binds == "memory"


def test_time_that_no_roof_explains_is_wider() -> None:
    slow = operators("gemm", time_s=2.0, flops=100e12, bytes=1e6)
    sharp = reported(project(measured(operators=(GEMM,), step_s=1.0), chip()))
    wide = reported(project(measured(operators=(slow,), step_s=2.0), chip()))
    assert wide.time_s.width > sharp.time_s.width
    # Half is explained (0.25 s); the rest of 1 s lies between the fastest and slowest roof.
    assert 0.25 + 1 / 4 < wide.time_s.mid < 0.25 + 1 / 1
    assert any("operator profile" in words for words in wide.narrowing)


def test_gaps_between_operators_are_kept() -> None:
    one = reported(project(measured(step_s=2.5, overhead_s=0.5), chip()))
    assert one.time_s.mid == pytest.approx(0.75 + 0.5, rel=1e-6)
    assert one.shares["launch"] == pytest.approx(0.5 / 1.25, rel=0.03)


def test_a_host_that_cannot_feed_an_accelerator_is_charged() -> None:
    many = operators("vector", time_s=1.0, bytes=1e12, calls=10**6)
    cpu = replace(SOURCE, kind="cpu", vendor="amd")
    one = reported(project(measured(roofs=cpu, operators=(many,), step_s=1.0), chip()))
    assert one.time_s.low > 3.0, "a million operators of at least 3 us each"
    assert one.binds == "launch"


def test_without_a_profile_it_says_so_and_is_wider() -> None:
    whole = operators("gemm", time_s=2.0, flops=100e12, bytes=0.1e12)
    one = reported(project(measured(operators=(whole,), has_profile=False), chip()))
    assert any("no operator profile" in note for note in one.notes)
    assert one.time_s.width > reported(project(measured(), chip())).time_s.width
    one = reported(project(measured(operators=(), has_profile=False), chip()))
    assert set(one.shares) == {"matrix", "memory", "on chip"}


# Memory -------------------------------------------------------------------------------------------


def test_a_smaller_memory_takes_a_smaller_batch() -> None:
    # 16 GB do not grow, 6 GB a sample do; 30e9 x 0.93 holds (27.9 - 16) / 6 = 1 sample.
    one = reported(project(measured(), chip(memory_bytes=30e9)))
    assert one.batch == 1
    assert one.time_s.mid == pytest.approx(0.75 / 4, rel=1e-6)
    assert one.throughput_per_s.mid == pytest.approx(4 / 0.75, rel=1e-6)
    assert any("batch 1 fits" in note for note in one.notes)


def test_nothing_is_told_where_not_even_one_sample_fits() -> None:
    answer = project(measured(), chip(memory_bytes=16e9))
    assert isinstance(answer, Unknown) and "not even batch 1 fits" in answer.reason
    # The memory of one of two dies counts.
    two = chip(memory_bytes=30e9, facts={"torch_devices": 2})
    assert isinstance(project(measured(), two), Unknown)


# What is not known --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "unknown",
    [chip(peak_per_s={}), chip(peak_per_s={"int8": 1e15}), chip(memory_bytes_per_s=None),
     chip(memory_bytes_per_s=0.0)],
)  # fmt: skip
def test_unknown_peaks_give_no_number(unknown: Chip) -> None:
    answer = project(measured(), unknown)
    assert isinstance(answer, Unknown)
    assert "not known" in answer.reason and "\n" not in answer.reason


def test_every_catalogue_chip_gives_an_interval_or_a_reason() -> None:
    answers = {one.id: project(measured(), one) for one in load_chips()}
    for name in ("hanguang800", "tianjic", "xuantie-910", "kunlun3-p800"):
        assert isinstance(answers[name], Unknown), name
    for answer in answers.values():
        if isinstance(answer, Projected):
            assert 0.0 < answer.time_s.low <= answer.time_s.mid <= answer.time_s.high
            assert answer.time_s.width > 1.05, "never one number"


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ({"peak_per_s": {"fp16": 400e12}}, "fp16 stands in for bf16"),
        ({"derates": {}}, "its own is not known"),
    ],
)
def test_a_missing_dtype_or_derate_widens(cells: dict[str, Any], said: str) -> None:
    other = reported(project(measured(), chip(**cells)))
    assert other.time_s.width > reported(project(measured(), chip())).time_s.width
    assert any(said in words for words in (*other.notes, *other.basis.values()))


def test_relatives_are_told_from_strangers() -> None:
    h100, h200, a100, mi300 = (
        catalogue_roofs(catalogue_chip(name), dtype="bf16")
        for name in ("h100-sxm-80g", "h200-sxm", "a100-sxm-80g", "mi300x")
    )
    factors = [relatedness(h200, other, dtype="bf16")[0] for other in (h200, h100, a100, mi300)]  # type: ignore[arg-type]
    assert factors == sorted(factors) and len(set(factors)) == 4
    assert on_chip(h200, h100).mid == pytest.approx(1.0)  # type: ignore[arg-type, union-attr]


def test_the_chip_that_was_measured_is_projected_to_itself() -> None:
    h200 = catalogue_chip("h200-sxm")
    roofs = replace(SOURCE, chip=h200)
    slow = operators("gemm", time_s=2.0, flops=100e12, bytes=1e6)
    one = reported(project(measured(roofs=roofs, operators=(slow,)), h200))
    assert [one.time_s.low, one.time_s.mid, one.time_s.high] == pytest.approx([2.0, 2.0, 2.0])


# Several devices ----------------------------------------------------------------------------------


def test_an_infinite_link_costs_nothing_and_a_narrow_one_does() -> None:
    infinite = CostModel(parse_topology("infinite"))
    narrow = CostModel(parse_topology("bw=1GB/s,latency=5us"))
    alone = reported(project(measured(), chip()))
    free = reported(project(measured(), chip(), devices=8, link=infinite))
    slow = reported(project(measured(), chip(), devices=8, link=narrow))
    assert free.time_s.mid == pytest.approx(alone.time_s.mid, rel=1e-6)
    assert free.throughput_per_s.mid == pytest.approx(8 * alone.throughput_per_s.mid, rel=1e-6)
    # 4 GB of gradients, 7/4 of them over 1 GB/s: 7 s, of which backward hides at most 0.5 s.
    assert slow.time_s.low > 6.0
    assert slow.binds == "link"

    infer = measured(workload="imaging-infer")
    one = reported(project(infer, chip(), devices=8, link=narrow))
    assert one.time_s.mid == pytest.approx(0.75, rel=1e-6) and "link" not in one.shares


# Properties ---------------------------------------------------------------------------------------

rates = st.floats(0.1, 10.0)
times = st.floats(0.01, 10.0)


@settings(max_examples=40, deadline=None)
@given(
    matrix=rates, memory=rates, vector=rates, faster=st.floats(1.0, 5.0), gemm_s=times, copy_s=times
)
def test_a_chip_faster_in_every_roof_is_never_projected_slower(
    matrix: float, memory: float, vector: float, faster: float, gemm_s: float, copy_s: float
) -> None:
    start = measured(
        operators=(
            operators("gemm", time_s=gemm_s, flops=60e12, bytes=1e11),
            operators("norm", time_s=copy_s, bytes=0.4e12),
        ),
        step_s=gemm_s + copy_s,
    )

    def made(factor: float) -> Chip:
        return chip(
            peak_per_s={"bf16": 100e12 * matrix * factor},
            memory_bytes_per_s=1e12 * memory * factor,
            facts={"vector_fp32_flops_per_s": 20e12 * vector * factor},
        )

    slow, fast = (
        reported(project(start, made(factor), is_explained=False)) for factor in (1.0, faster)
    )
    assert fast.time_s.mid <= slow.time_s.mid * (1 + 1e-9)
    for one in (slow, fast):
        assert one.time_s.low <= one.time_s.mid <= one.time_s.high
        assert sum(one.shares.values()) == pytest.approx(1.0)


@settings(max_examples=30, deadline=None)
@given(factor=st.floats(0.1, 10.0))
def test_a_uniformly_faster_chip_scales_the_middle_exactly(factor: float) -> None:
    faster = chip(peak_per_s={"bf16": 100e12 * factor}, memory_bytes_per_s=1e12 * factor)
    one = reported(project(measured(operators=(GEMM, COPY)), faster, is_explained=False))
    assert one.time_s.mid == pytest.approx(2.0 / factor, rel=1e-6)
