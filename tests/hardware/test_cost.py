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
latency = st.one_of(st.just(0.0), st.floats(0.01, 1e5))


def closed_forms(size: float, n: int, rate: float, alpha: float) -> dict[str, dict[str, float]]:
    """Textbook forms, written out one by one and not through the code under test."""
    depth, hops = math.floor(math.log2(n)), n - 1
    whole, share, chunk = size / rate, hops / n * size / rate, size / n / rate
    passed_on = dict.fromkeys(("all_gather", "reduce_scatter", "all_to_all"), hops * alpha + share)
    ring = {
        "all_reduce": 2 * hops * alpha + 2 * share,
        **passed_on,
        **dict.fromkeys(("broadcast", "reduce"), hops * alpha + whole),
        **dict.fromkeys(("gather", "scatter"), alpha + share),
        "send": alpha + whole,
        "barrier": 2 * hops * alpha,
    }
    tree = {
        "all_reduce": 2 * depth * alpha + 2 * whole,
        **dict.fromkeys(("broadcast", "reduce"), depth * alpha + whole),
        "barrier": 2 * depth * alpha,
    }
    # In a mesh every pair has its own link and all work at once: a chunk of size / n on each.
    mesh = {
        **dict.fromkeys(OPS, alpha + chunk),
        "all_reduce": 2 * alpha + 2 * chunk,
        **dict.fromkeys(("broadcast", "reduce"), alpha + whole / hops),
        "send": alpha + whole,
        "barrier": 2 * alpha,
    }
    return {"ring": ring, "tree": ring | tree, "mesh": mesh}


def seconds(text: str, op: Op, size: int, group: Group, *, use_curves: bool = True) -> float:
    model = CostModel(parse_topology(text), use_curves=use_curves)
    return model.cost(op, num_bytes=size, group=group).seconds


@given(ops, num_bytes, ranks, rate, latency, st.sampled_from(["ring", "tree", "mesh"]))
def test_one_level_equals_the_closed_form(
    op: Op, size: int, n: int, gb_per_s: float, alpha_us: float, algorithm: str
) -> None:
    text = f"bw={gb_per_s!r}GB/s,latency={alpha_us!r}us,algorithm={algorithm}"
    expected = closed_forms(size, n, gb_per_s * 1e9, alpha_us * 1e-6)[algorithm][op]
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


@given(st.sampled_from(IDS), ops, num_bytes, ranks)
def test_nothing_costs_nothing_and_a_link_lies_within_its_band(
    name: str, op: Op, size: int, n: int
) -> None:
    assert seconds("infinite", op, size, Group(n)) == 0.0
    assert seconds("infinite*8/infinite", op, size, Group(8 * n, n)) == 0.0
    assert seconds("bw=1GB/s,latency=1ms", op, size, Group(1)) == 0.0
    cost = CostModel(parse_topology(name)).cost(op, num_bytes=size, group=Group(n))
    assert 0 < cost.low_s < cost.seconds < cost.high_s < math.inf


@given(st.integers(3, 8), num_bytes)
def test_a_group_between_two_measured_ones_costs_between_them(n: int, size: int) -> None:
    assume(n not in (4, 8))
    below, above = (4, 8) if n > 4 else (2, 4)
    times = [seconds("h100-nvlink", "all_gather", size, Group(m)) for m in (below, n, above)]
    # Latency and level are weighted apart, so that it may lie a little beyond either end.
    assert 0.97 * min(times[0], times[2]) <= times[1] <= 1.03 * max(times[0], times[2])


def test_in_switch_reduction_enters_where_it_gains_and_a_measured_group_is_a_curve() -> None:
    for op, size, group, algorithm in (
        ("all_reduce", 2**29, Group(8), "nvls"),
        ("all_reduce", 2**12, Group(8), "ring"),
        ("all_reduce", 2**29, Group(4), "ring"),
        ("all_gather", 2**29, Group(8), "ring"),
        ("all_reduce", 2**29, Group(16, 2), "hierarchical"),
    ):
        link = "h100-nvlink" if group.num_nodes == 1 else "h100-nvlink*8/ndr"
        model = CostModel(parse_topology(link), use_curves=False)
        assert model.cost(op, num_bytes=size, group=group).algorithm == algorithm, (op, size)
    for link, op, group, method in (
        *[("h100-nvlink", "all_reduce", Group(n), "curve") for n in (2, 6, 8)],
        ("h100-nvlink", "all_reduce", Group(72), "scaled-curve"),
        ("h100-nvlink", "broadcast", Group(8), "tuner"),
        ("h800-nvlink", "all_reduce", Group(8), "scaled-curve"),
        ("h100-nvlink*8/10gbe", "all_reduce", Group(16, 2), "alpha-beta"),
    ):
        model = CostModel(parse_topology(link))
        assert model.cost(op, num_bytes=2**20, group=group).method == method, (link, op, group)


def test_published_bus_bandwidths_are_reached() -> None:
    """Ascend 910B's mesh, bound by the links to its peers; H800 in the switch, within its 15 %."""
    for link, op, n, bytes_per_s, within in (
        ("ascend910b-hccs", "all_reduce", 2, 18e9, 0.01),
        ("ascend910b-hccs", "all_reduce", 8, 72e9, 0.01),
        ("h800-nvlink", "all_reduce", 8, 215e9, 0.15),
        ("h800-nvlink", "all_to_all", 8, 155e9, 0.15),
    ):
        size = 2**29 if link == "h800-nvlink" else 2**32
        moved_bytes = (2 if op == "all_reduce" else 1) * (n - 1) / n * size
        reached = moved_bytes / seconds(link, op, size, Group(n))
        assert reached == pytest.approx(bytes_per_s, rel=within), (link, op, n)


def test_a_known_answer_is_not_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = CostModel(parse_topology("h100-nvlink*8/ndr"))
    first = model.cost("all_reduce", num_bytes=2**20, group=Group(16, 2))
    monkeypatch.setattr(model, "parts", None)  # whoever calls it fails
    assert model.cost("all_reduce", num_bytes=2**20, group=Group(16, 2)) is first
