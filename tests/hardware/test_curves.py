"""Measured curves: exact at what was measured, monotone, and scored without their own points."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.errors import DataError
from bench.hardware.links.curves import FOLDER, Curve, Point, load_curve, read_points, read_table
from bench.hardware.links.link_check import check_link
from bench.hardware.links.presets import load_links
from bench.hardware.links.topology import parse_topology

HEAD = "op,num_gpus,message_bytes,latency_us\n"


def curve_of(*points: tuple[int, float]) -> Curve:
    return Curve(
        points=tuple(
            Point(op="all_reduce", num_ranks=2, message_bytes=size, latency_s=seconds)
            for size, seconds in points
        )
    )


def at(curve: Curve, size: float) -> float:
    return curve.series("all_reduce", num_ranks=2).seconds(size)


def test_a_curve_is_exact_where_measured_straight_between_and_outliers_do_not_set_it() -> None:
    curve = curve_of((1000, 1.0), (2000, 1.5), (4000, 2.5))
    assert [at(curve, size) for size in (1000, 2000, 4000)] == [1.0, 1.5, 2.5]
    assert at(curve, 3000) == pytest.approx(2.0)
    assert at(curve, 1) == 1.0
    assert at(curve, 8000) == pytest.approx(4.5)
    clean = curve_of((1000, 1.0), (2000, 2.0), (4000, 4.0), (8000, 8.0))
    noisy = curve_of((1000, 1.0), (2000, 2.0), (4000, 4.0), (8000, 4.1))
    assert at(clean, 16000) == pytest.approx(16.0)
    assert at(noisy, 16000) == pytest.approx(4.1 + 8.0)
    slow = curve_of((1000, 1.0), (2000, 9.0), (4000, 1.2))
    assert at(slow, 2000) == pytest.approx(1.2), "no slower than the next larger message"
    assert at(curve_of((1000, 1.0), (1000, 7.0), (1000, 2.0)), 1000) == 2.0


@given(
    st.lists(st.tuples(st.integers(1, 2**40), st.floats(1e-7, 10.0)), min_size=1, max_size=20),
    st.integers(0, 2**42),
    st.integers(0, 2**42),
)
def test_no_curve_lets_a_larger_message_be_faster(
    points: list[tuple[int, float]], one: int, other: int
) -> None:
    curve = curve_of(*points)
    small, large = sorted((one, other))
    assert at(curve, small) <= at(curve, large) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no column 'op'"),
        (HEAD, "no rows"),
        ("op,num_gpus,message_bytes\nall_reduce,2,8\n", "no column 'latency_us'"),
        (HEAD + "all_reduce,2,8,fast\n", "line 2: latency_us: .*'fast'"),
        (HEAD + "all_reduce,2,8,-1\n", "line 2: latency_us"),
        (HEAD + "all_reduce,2,8,nan\n", "line 2: latency_us"),
        (HEAD + "all_reduce,2,8\n", "line 2 has 3 cells"),
        (HEAD + "all_reduce,1,8,1\n", "line 2: num_gpus"),
        (HEAD + "all_reduce,2.5,8,1\n", "line 2: num_gpus: expected a whole number"),
        (HEAD + "all_reduce,2,8,1\nfly,2,8,1\n", "line 3: op: 'fly' is not one of all_reduce"),
    ],
)
def test_a_damaged_table_is_one_line_with_row_and_column(text: str, words: str) -> None:
    (spaced,) = read_points(HEAD + "All-Reduce , 2, 8.0, 1e6 ", what="by hand")
    assert spaced == Point(op="all_reduce", num_ranks=2, message_bytes=8, latency_s=1.0)
    with pytest.raises(DataError, match=words) as raised:
        read_points(text, what="table.csv")
    assert "\n" not in str(raised.value)


@given(st.text(max_size=200))
def test_no_table_ends_in_a_traceback(text: str) -> None:
    for head in ("", HEAD):
        try:
            assert read_points(head + text, what="table.csv")
        except DataError as error:
            assert str(error).startswith("table.csv")


TABLES = {"a100-nvlink": "a100_sxm", "h100-nvlink": "h100_sxm", "l40s-pcie": "l40s"}


def test_every_shipped_curve_is_used_and_says_where_it_comes_from() -> None:
    named = {row.curve for row in load_links() if row.curve is not None}
    assert named == {path.stem for path in FOLDER.glob("*.csv")} == {*TABLES}
    for name in named:
        assert "095f58a51" in (FOLDER / f"{name}.csv").read_text(encoding="utf-8")
        assert len(load_curve(name).points) == 252


def test_the_shipped_curves_are_the_published_tables() -> None:
    folder = Path(__file__).parents[3] / "shared" / "data" / "nccl"
    if not folder.is_dir():
        pytest.skip("the measured tables are not beside this checkout")
    for link, table in TABLES.items():
        published = read_table(folder / f"{table}.csv")
        assert sorted(load_curve(link).points, key=repr) == sorted(published, key=repr), link


@pytest.mark.parametrize(
    ("link", "most"), [("a100-nvlink", 0.05), ("h100-nvlink", 0.05), ("l40s-pcie", 0.08)]
)
def test_a_curve_predicts_sizes_it_never_saw_as_well_as_stated(link: str, most: float) -> None:
    """The goal is 5 %; the L40S server falls short of it at 8 devices, where its table is noise.

    The formula alone stays within a quarter on NVLink. What the preset states is what the check
    finds, so the band is no promise.
    """
    stated = next(row for row in load_links() if row.id == link)
    topology, points = parse_topology(link), load_curve(link).points
    check = check_link(points, topology=topology, use_curves=True)
    assert (check.methods, check.is_rated) == (("curve",), True)
    assert check.overall.num_points == 252
    assert 0.01 < check.overall.mean_abs_error < most
    assert stated.curve_error_fraction == pytest.approx(check.overall.mean_abs_error, abs=0.005)
    check = check_link(points, topology=topology, use_curves=False)
    if stated.tuner == "pci":  # no formula on PCI Express is rated
        for other in ("pcie4", "pcie4-cross-socket"):
            found = check_link(points, topology=parse_topology(other), use_curves=False)
            assert not found.is_rated, other
        assert not check.is_rated
        return
    assert (check.methods, check.is_rated) == (("tuner",), True)
    wholes = {score.op: score.mean_abs_error for score in check.scores if score.size_class == "all"}
    assert set(wholes) == {"all_reduce", "all_gather", "reduce_scatter", "all_to_all", "all"}
    assert all(error < 0.25 for error in wholes.values()), wholes
    assert stated.error_fraction == pytest.approx(check.overall.mean_abs_error, abs=0.02)
