"""Slowdown, efficiency and recovery against numbers worked out by hand.

Trials are at 0.99, 1 and 1.01 of the step: the squared error of the mean logarithm is
1.000075e-4 / 3 on each side, which gives a ratio of two sides 4 degrees of freedom (t = 2.7764).
"""

import math

import pytest

from bench.analysis import scaling
from bench.analysis.trials.configuration import gather
from bench.results.schema import Row
from tests.report.link_rows import device_sweep, link_run, real_run, three_links

HALF_WIDTH = 2.776445 * math.sqrt(2 * 1.000075e-4 / 3)


def slowdowns(rows: list[Row]) -> dict[tuple[str, str], scaling.Slowdown | None]:
    runs = gather(rows)
    fastest = scaling.fastest_links(runs)
    return {(run.mode, run.link): scaling.slowdown(run, fastest=fastest) for run in runs}


def over(link: str, rows: list[Row]) -> scaling.Slowdown:
    found = slowdowns(rows)["emulated", link]
    assert found is not None
    return found


def mitigated(rows: list[Row]) -> scaling.Mitigated:
    (found,) = scaling.find_mitigated(gather(rows))
    return found


def reached(rows: list[Row], place: int) -> tuple[str, float] | None:
    """What the efficiency of a run is of, and how much."""
    runs = gather(rows)
    found = scaling.efficiency(runs[place], singles=scaling.single_runs(runs))
    return None if found is None else (found[1], found[0].value)


def test_slowdown_is_against_the_fastest_link_of_one_mode_device_count_and_layout() -> None:
    assert slowdowns(three_links())["emulated", "h100-nvlink"] is None
    h800 = over("h800-nvlink", three_links())
    assert h800.fastest.link == "h100-nvlink"
    assert h800.ratio.value == pytest.approx(109.0 / 104.0)
    ends = [109.0 / 104.0 * math.exp(sign * HALF_WIDTH) for sign in (-1, 1)]
    assert list(h800.ratio.interval or ()) == pytest.approx(ends, rel=1e-5)
    # The error band has both links at the same end.
    assert h800.ends == pytest.approx((107.2 / 103.2, 116.25 / 110.0))
    # The fastest link is chosen by the model and not by noise.
    lucky = [{**row, "step_median_ms": 90.0} for row in link_run("h800-nvlink", 9.0)]
    found = over("h800-nvlink", [*link_run("h100-nvlink", 4.0), *lucky])
    assert found.ratio.value == pytest.approx(90.0 / 104.0, rel=1e-3)
    # Where the model states no time, the shortest step is the fastest link's.
    blank = {"comm_total_ms": None, "step_low_ms": None}
    h800 = over("h800-nvlink", [{**row, **blank} for row in three_links()])
    assert h800.fastest.link == "h100-nvlink" and h800.ends is None
    pcie = over("pcie5", [row for row in three_links() if row["trial"] == 1])
    assert pcie.ratio.value == pytest.approx(160.0 / 104.0)
    assert pcie.ratio.interval is None
    rows = three_links()
    rows[3] |= {"status": "INVALID", "step_median_ms": 9e9}
    assert over("h800-nvlink", rows).ratio.value == pytest.approx(109.0 / 104.0, rel=0.01)
    rows = [
        *link_run("h100-nvlink", 4.0),
        *link_run("pcie5", 60.0, cells={"mode": "throttled"}),
        *link_run("pcie4", 80.0, devices=4),
        *link_run("ndr", 50.0, cells={"layout": "tp4 x dp2", "parallel": "tp"}),
        *link_run("hdr", 50.0, cells={"dtype": "bf16", "config_hash": "other"}),
        *real_run(2.0, devices=8),
    ]
    assert set(slowdowns(rows).values()) == {None}
    found = scaling.families(gather(device_sweep()))
    assert [[run.num_devices for run in family] for family in found] == [[2, 8, 64, 512]] * 3
    assert all(len({run.link for run in family}) == 1 for family in found)
    real = scaling.families(gather([*real_run(), *real_run(9.0, devices=4)]))
    assert [[run.num_devices for run in family] for family in real] == [[1, 4]]


def test_slowdown_of_steps_replayed_over_both_links_is_trial_by_trial() -> None:
    rows = three_links(mode="simulated")
    for row, factor in zip(rows[3:6], (0.999, 1.0, 1.001), strict=True):
        row["step_median_ms"] = float(str(row["step_median_ms"])) * factor
    found = slowdowns(rows)["simulated", "h800-nvlink"]
    # Logarithms of 0.999, 1 and 1.001 have a standard deviation of 0.001; t of 2 degrees is 4.3027.
    assert found is not None and found.ratio.half_width == pytest.approx(0.0024841, rel=1e-3)
    # Measured one by one they are as unsure as any two configurations.
    for row in rows[3:6]:
        row["started_utc"] = f"2026-01-02T03:05:0{row['trial']}Z"
    found = slowdowns(rows)["simulated", "h800-nvlink"]
    assert found is not None and found.ratio.half_width == pytest.approx(HALF_WIDTH, rel=0.1)


def test_efficiency_is_against_one_device_of_the_same_mode_or_against_compute() -> None:
    together = [*real_run(), *real_run(25.0, devices=8)]
    # 20 items/s alone; 16 items in 125 ms together, a sixteenth of 8 x 20 less: 128 / 160.
    assert reached(together, 1) == ("one device", pytest.approx(0.8))
    assert reached(together, 0) is None
    mixed = [*real_run(), *link_run("pcie5", 60.0)]
    assert reached(mixed, 1) == ("compute", pytest.approx(100.0 / 160.0, rel=1e-4))
    blank = link_run("pcie5", 60.0, cells={"compute_step_ms": None})
    assert reached(blank, 0) is None, "nothing shows"


def test_a_mitigation_recovers_a_share_of_the_slowdown_with_its_interval() -> None:
    helped = link_run("pcie5", 20.0, cells={"mitigation": "powersgd-2"})
    found = mitigated([*three_links(), *helped])
    assert found.change.value == pytest.approx(120.0 / 160.0)
    assert found.ends is not None and found.why_not == ""
    # (160 - 120) / (160 - 104); by logarithms of b, m and f the slopes are 160 x 16 / 56^2,
    # -120 / 56 and 104 x 40 / 56^2, the root of their squares sum is 2.6491; t(4.00) = 2.7764.
    assert found.recovered == pytest.approx(40.0 / 56.0, rel=1e-9)
    half_width = 2.776445 * 2.64913 * math.sqrt(1.000075e-4 / 3)
    expected = (40.0 / 56.0 - half_width, 40.0 / 56.0 + half_width)
    assert found.ends == pytest.approx(expected, abs=1e-4)
    # A median would hide rare steps, so the mean is looked at.
    rare = [{**row, "mitigation": "diloco-64", "step_median_ms": 100.0} for row in helped]
    found = mitigated([*three_links(), *rare])
    assert found.run.shows_mean and found.run.step_s is not None
    assert found.run.step_s.value == pytest.approx(0.120, rel=1e-3)
    assert found.recovered == pytest.approx(40.0 / 56.0)
    # Four micro-batches of 100 ms and one exchange of 60 ms.
    rows = link_run("pcie5", 0.0, cells={"grad_accum": 4})
    for row in rows:
        row |= {"items": 4 * int(str(row["items"])), "window_s": float(str(row["window_s"])) * 4.6}
    found = mitigated([*three_links(), *rows])
    assert found.change.value == pytest.approx(115.0 / 160.0)
    assert found.recovered == pytest.approx((160.0 - 115.0) / (160.0 - 104.0))
    # Nothing is recovered where nothing was lost.
    fp16 = link_run("pcie5", 0.2, cells={"mitigation": "fp16"})
    for exposed_ms, others, why in (
        (60.0, [], "no other link to compare with"),
        (60.0, link_run("10gbe", 400.0), "this is the fastest link"),
        (0.4, link_run("h100-nvlink", 0.2), "no clear slowdown to recover"),
    ):
        found = mitigated([*link_run("pcie5", exposed_ms), *others, *fp16])
        assert (found.recovered, found.why_not) == (None, why)
