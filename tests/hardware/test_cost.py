"""Costs equal the closed forms, never fall with size, never rise with bandwidth."""

import math
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bench.hardware.costs.collectives import OPS, Group, Op
from bench.hardware.costs.cost import CostModel
from bench.hardware.links.presets import load_links
from bench.hardware.links.topology import Topology, parse_topology

IDS = [row.id for row in load_links()]
ops = st.sampled_from(OPS)
num_bytes = st.integers(0, 2**36)
ranks = st.integers(2, 512)
rate = st.floats(0.01, 1000.0)
latency = st.floats(0.01, 1e5)


def closed_ring(op: Op, size: float, n: int, bandwidth: float, alpha: float) -> float:
    """Textbook forms, written out one by one and not through the code under test."""
    share = (n - 1) / n * size / bandwidth
    return {
        "all_reduce": 2 * (n - 1) * alpha + 2 * share,
        "all_gather": (n - 1) * alpha + share,
        "reduce_scatter": (n - 1) * alpha + share,
        "all_to_all": (n - 1) * alpha + share,
        "broadcast": (n - 1) * alpha + size / bandwidth,
        "reduce": (n - 1) * alpha + size / bandwidth,
        "gather": alpha + share,
        "scatter": alpha + share,
        "send": alpha + size / bandwidth,
        "barrier": 2 * (n - 1) * alpha,
    }[op]


def closed_tree(op: Op, size: float, n: int, bandwidth: float, alpha: float) -> float:
    depth = math.floor(math.log2(n))
    forms = {
        "all_reduce": 2 * depth * alpha + 2 * size / bandwidth,
        "broadcast": depth * alpha + size / bandwidth,
        "reduce": depth * alpha + size / bandwidth,
        "barrier": 2 * depth * alpha,
    }
    return forms.get(op, closed_ring(op, size, n, bandwidth, alpha))


def closed_mesh(op: Op, size: float, n: int, bandwidth: float, alpha: float) -> float:
    """Every pair has its own link and all work at once: one chunk of size / n on each."""
    chunk = size / n / bandwidth
    return {
        "all_reduce": 2 * alpha + 2 * chunk,
        "broadcast": alpha + size / bandwidth / (n - 1),
        "reduce": alpha + size / bandwidth / (n - 1),
        "send": alpha + size / bandwidth,
        "barrier": 2 * alpha,
    }.get(op, alpha + chunk)


CLOSED = {"ring": closed_ring, "tree": closed_tree, "mesh": closed_mesh}


def seconds(text: str, op: Op, size: int, group: Group, *, use_curves: bool = True) -> float:
    model = CostModel(parse_topology(text), use_curves=use_curves)
    return model.cost(op, num_bytes=size, group=group).seconds


@given(ops, num_bytes, ranks, rate, latency, st.sampled_from(sorted(CLOSED)))
def test_one_level_equals_the_closed_form(
    op: Op, size: int, n: int, gb_per_s: float, alpha_us: float, algorithm: str
) -> None:
    text = f"bw={gb_per_s!r}GB/s,latency={alpha_us!r}us,algorithm={algorithm}"
    expected = CLOSED[algorithm](op, size, n, gb_per_s * 1e9, alpha_us * 1e-6)
    assert seconds(text, op, size, Group(n)) == pytest.approx(expected, rel=1e-3)


@given(num_bytes, st.integers(2, 16), st.integers(2, 64), rate, rate, latency, latency)
def test_two_levels_equal_the_pipelined_closed_form(
    size: int, g: int, k: int, near: float, far: float, near_us: float, far_us: float
) -> None:
    """Reduce-scatter inside, all-reduce of a share across, all-gather inside; the longer level."""
    text = f"bw={near!r}GB/s,latency={near_us!r}us*{g}/bw={far!r}GB/s,latency={far_us!r}us"
    inside = 2 * (g - 1) / g * size / (near * 1e9)
    across = 2 * (k - 1) / k * (size / g) / (far * 1e9)
    hops = 2 * (g - 1) * near_us * 1e-6 + 2 * (k - 1) * far_us * 1e-6
    assert seconds(text, "all_reduce", size, Group(g * k, k)) == pytest.approx(
        hops + max(inside, across), rel=1e-3
    )
    gathered = (g - 1) * near_us * 1e-6 + (k - 1) * far_us * 1e-6
    assert seconds(text, "all_gather", size, Group(g * k, k)) == pytest.approx(
        gathered + max(inside, across) / 2, rel=1e-3
    )


one_level = st.tuples(st.sampled_from(IDS), ranks).map(lambda x: (x[0], Group(x[1])))
two_levels = st.tuples(
    st.sampled_from(IDS), st.sampled_from(IDS), st.integers(2, 8), st.integers(2, 64)
).map(lambda x: (f"{x[0]}*{x[2]}/{x[1]}", Group(x[2] * x[3], x[3])))


@given(one_level | two_levels, ops, num_bytes, num_bytes, st.booleans())
def test_a_larger_message_is_never_faster(
    link: tuple[str, Group], op: Op, one: int, other: int, use_curves: bool
) -> None:
    small, large = sorted((one, other))
    times = [seconds(link[0], op, size, link[1], use_curves=use_curves) for size in (small, large)]
    assert times[0] <= times[1] * (1 + 1e-9)


def widened(topology: Topology, factor: float) -> Topology:
    level = topology.inner
    wider = replace(
        level,
        bytes_per_s=level.bytes_per_s * factor,
        pair_bytes_per_s=level.pair_bytes_per_s * factor,
        nvls_bytes_per_s=level.nvls_bytes_per_s and level.nvls_bytes_per_s * factor,
        alltoall_bytes_per_s=level.alltoall_bytes_per_s and level.alltoall_bytes_per_s * factor,
        curve_factor=(level.curve_factor or 1.0) / factor,
    )
    return replace(topology, inner=wider)


@given(st.sampled_from(IDS), ops, num_bytes, ranks, st.floats(1.0, 100.0), st.booleans())
def test_more_bandwidth_is_never_slower(
    name: str, op: Op, size: int, n: int, factor: float, use_curves: bool
) -> None:
    topology = parse_topology(name)
    models = [
        CostModel(each, use_curves=use_curves) for each in (topology, widened(topology, factor))
    ]
    narrow, wide = (model.cost(op, num_bytes=size, group=Group(n)).seconds for model in models)
    assert wide <= narrow * (1 + 1e-9)


@given(st.sampled_from(IDS), ops, num_bytes, st.integers(2, 8), st.integers(2, 64))
def test_two_levels_have_the_right_limits(name: str, op: Op, size: int, g: int, k: int) -> None:
    """One node only: the inner link alone. One device a node: the outer alone."""
    text = f"{name}*{g}/ndr"
    assert seconds(text, op, size, Group(g)) == seconds(name, op, size, Group(g))
    assert seconds(text, op, size, Group(k, k)) == seconds("ndr", op, size, Group(k))
    across = seconds(f"infinite*{g}/{name}", op, size, Group(g * k, k))
    both = seconds(f"h100-nvlink*{g}/{name}", op, size, Group(g * k, k))
    assert across <= both * (1 + 1e-9)
    if op == "all_reduce":  # each device sends its share through its own adapter
        assert across == pytest.approx(
            CostModel(parse_topology(name)).parts(op, size / g, group=Group(k)).seconds
        )


@given(ops, num_bytes, ranks)
def test_nothing_costs_nothing(op: Op, size: int, n: int) -> None:
    assert seconds("infinite", op, size, Group(n)) == 0.0
    assert seconds("infinite*8/infinite", op, size, Group(8 * n, n)) == 0.0
    assert seconds("bw=1GB/s,latency=1ms", op, size, Group(1)) == 0.0


@given(st.sampled_from(IDS), ops, num_bytes, ranks)
def test_the_band_holds_the_value(name: str, op: Op, size: int, n: int) -> None:
    cost = CostModel(parse_topology(name)).cost(op, num_bytes=size, group=Group(n))
    assert 0 < cost.low_s < cost.seconds < cost.high_s
    assert math.isfinite(cost.high_s)


@given(st.integers(3, 8), num_bytes)
def test_a_group_between_two_measured_ones_costs_between_them(n: int, size: int) -> None:
    assume(n not in (4, 8))
    below, above = (4, 8) if n > 4 else (2, 4)
    times = [seconds("h100-nvlink", "all_gather", size, Group(m)) for m in (below, n, above)]
    # Latency and level are weighted apart, so that it may lie a little beyond either end.
    assert 0.97 * min(times[0], times[2]) <= times[1] <= 1.03 * max(times[0], times[2])


def test_in_switch_reduction_enters_only_where_it_was_seen_to_gain() -> None:
    model = CostModel(parse_topology("h100-nvlink"), use_curves=False)
    large, small = 2**29, 2**12
    assert model.cost("all_reduce", num_bytes=large, group=Group(8)).algorithm == "nvls"
    assert model.cost("all_reduce", num_bytes=small, group=Group(8)).algorithm != "nvls"
    assert model.cost("all_reduce", num_bytes=large, group=Group(4)).algorithm == "ring"
    assert model.cost("all_gather", num_bytes=large, group=Group(8)).algorithm == "ring"
    across = CostModel(parse_topology("h100-nvlink*8/ndr"), use_curves=False)
    assert across.cost("all_reduce", num_bytes=large, group=Group(16, 2)).algorithm == (
        "hierarchical"
    )


def test_a_mesh_is_bound_by_the_links_to_its_peers() -> None:
    """Ascend 910B: 18 GB/s bus bandwidth between two, 72 among eight, as published."""
    for n, bus_bytes_per_s in ((2, 18e9), (8, 72e9)):
        size = 2**32
        took = seconds("ascend910b-hccs", "all_reduce", size, Group(n))
        assert 2 * (n - 1) / n * size / took == pytest.approx(bus_bytes_per_s, rel=0.01)


def test_the_h800_reaches_what_was_published() -> None:
    """All-reduce in the switch 215 GB/s, all-to-all 153 and 158: within the stated 15 %."""
    size = 2**29
    all_reduce = seconds("h800-nvlink", "all_reduce", size, Group(8))
    assert 2 * 7 / 8 * size / all_reduce == pytest.approx(215e9, rel=0.15)
    all_to_all = seconds("h800-nvlink", "all_to_all", size, Group(8))
    assert 7 / 8 * size / all_to_all == pytest.approx(155e9, rel=0.15)


def test_a_measured_group_is_a_curve_and_a_larger_one_a_scaled_curve() -> None:
    model = CostModel(parse_topology("h100-nvlink"))
    method = [
        model.cost("all_reduce", num_bytes=2**20, group=Group(n)).method for n in (2, 6, 8, 72)
    ]
    assert method == ["curve", "curve", "curve", "scaled-curve"]
    assert model.cost("broadcast", num_bytes=2**20, group=Group(8)).method == "tuner"
    relative = CostModel(parse_topology("h800-nvlink"))
    assert relative.cost("all_reduce", num_bytes=2**20, group=Group(8)).method == "scaled-curve"
    worse = CostModel(parse_topology("h100-nvlink*8/10gbe"))
    assert worse.cost("all_reduce", num_bytes=2**20, group=Group(16, 2)).method == "alpha-beta"


def test_a_known_answer_is_not_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = CostModel(parse_topology("h100-nvlink*8/ndr"))
    first = model.cost("all_reduce", num_bytes=2**20, group=Group(16, 2))

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("computed twice")

    monkeypatch.setattr(model, "parts", refuse)
    assert model.cost("all_reduce", num_bytes=2**20, group=Group(16, 2)) is first
