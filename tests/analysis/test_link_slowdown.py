"""Slowdown, efficiency and recovery against numbers worked out by hand.

Trials are at 0.99, 1 and 1.01 of the step: the squared error of the mean logarithm is
1.000075e-4 / 3 on each side, which gives a ratio of two sides 4 degrees of freedom (t = 2.7764).
"""

import math

import pytest

from bench.analysis.scaling import (
    Slowdown,
    efficiency,
    families,
    fastest_links,
    find_mitigated,
    single_runs,
    slowdown,
)
from bench.analysis.trials.configuration import gather
from bench.results.schema import Row
from tests.report.link_rows import device_sweep, link_run, real_run, three_links

HALF_WIDTH = 2.776445 * math.sqrt(2 * 1.000075e-4 / 3)


def slowdowns(rows: list[Row]) -> dict[tuple[str, str], Slowdown | None]:
    runs = gather(rows)
    fastest = fastest_links(runs)
    return {(run.mode, run.link): slowdown(run, fastest=fastest) for run in runs}


def over(link: str, rows: list[Row]) -> Slowdown:
    found = slowdowns(rows)["emulated", link]
    assert found is not None
    return found


def test_slowdown_is_against_the_fastest_link_with_its_interval() -> None:
    assert slowdowns(three_links())["emulated", "h100-nvlink"] is None
    h800 = over("h800-nvlink", three_links())
    assert h800.fastest.link == "h100-nvlink"
    assert h800.ratio.value == pytest.approx(109.0 / 104.0)
    ends = [109.0 / 104.0 * math.exp(sign * HALF_WIDTH) for sign in (-1, 1)]
    assert list(h800.ratio.interval or ()) == pytest.approx(ends, rel=1e-5)
    # The error band has both links at the same end.
    assert h800.ends == pytest.approx((107.2 / 103.2, 116.25 / 110.0))


def test_the_fastest_link_is_chosen_by_the_model_and_not_by_noise() -> None:
    lucky = [{**row, "step_median_ms": 90.0} for row in link_run("h800-nvlink", 9.0)]
    found = over("h800-nvlink", [*link_run("h100-nvlink", 4.0), *lucky])
    assert found.ratio.value == pytest.approx(90.0 / 104.0, rel=1e-3)


def test_modes_devices_and_layouts_are_never_in_one_ratio() -> None:
    rows = [
        *link_run("h100-nvlink", 4.0),
        *link_run("pcie5", 60.0, cells={"mode": "throttled"}),
        *link_run("pcie4", 80.0, devices=4),
        *link_run("ndr", 50.0, cells={"layout": "tp4 x dp2", "parallel": "tp"}),
        *link_run("hdr", 50.0, cells={"dtype": "bf16", "config_hash": "other"}),
        *real_run(2.0, devices=8),
    ]
    assert set(slowdowns(rows).values()) == {None}


def test_one_trial_an_invalid_one_and_rows_without_communication_columns() -> None:
    pcie = over("pcie5", [row for row in three_links() if row["trial"] == 1])
    assert pcie.ratio.value == pytest.approx(160.0 / 104.0)
    assert pcie.ratio.interval is None
    rows = three_links()
    rows[3] |= {"status": "INVALID", "step_median_ms": 9e9}
    assert over("h800-nvlink", rows).ratio.value == pytest.approx(109.0 / 104.0, rel=0.01)
    # Where the model states no time, the shortest step is the fastest link's.
    blank = {"comm_total_ms": None, "step_low_ms": None}
    h800 = over("h800-nvlink", [{**row, **blank} for row in three_links()])
    assert h800.fastest.link == "h100-nvlink" and h800.ends is None


def test_efficiency_is_against_one_device_of_the_same_mode() -> None:
    runs = gather([*real_run(), *real_run(25.0, devices=8)])
    found = efficiency(runs[1], singles=single_runs(runs))
    # 20 items/s alone; 16 items in 125 ms together, a sixteenth of 8 x 20 less: 128 / 160.
    assert found is not None and found.against == "one device"
    assert found.share.value == pytest.approx(0.8)
    assert efficiency(runs[0], singles=single_runs(runs)) is None


def test_a_real_device_is_no_reference_for_an_emulated_run() -> None:
    runs = gather([*real_run(), *link_run("pcie5", 60.0)])
    found = efficiency(runs[1], singles=single_runs(runs))
    assert found is not None and found.against == "compute"
    assert found.share.value == pytest.approx(100.0 / 160.0, rel=1e-4)
    (run,) = gather([{**row, "compute_step_ms": None} for row in link_run("pcie5", 60.0)])
    assert efficiency(run, singles={}) is None, "nothing shows"


def test_families_differ_in_the_number_of_devices_alone() -> None:
    found = families(gather(device_sweep()))
    assert [[run.num_devices for run in family] for family in found] == [[2, 8, 64, 512]] * 3
    assert all(len({run.link for run in family}) == 1 for family in found)
    real = families(gather([*real_run(), *real_run(9.0, devices=4)]))
    assert [[run.num_devices for run in family] for family in real] == [[1, 4]]


def test_a_remedy_recovers_a_share_of_the_slowdown_with_its_interval() -> None:
    rows = [*three_links(), *link_run("pcie5", 20.0, cells={"mitigation": "powersgd-2"})]
    (remedy,) = find_mitigated(gather(rows))
    assert remedy.change.value == pytest.approx(120.0 / 160.0)
    assert remedy.ends is not None and remedy.why_not == ""
    # (160 - 120) / (160 - 104); by logarithms of b, m and f the slopes are 160 x 16 / 56^2,
    # -120 / 56 and 104 x 40 / 56^2, the root of their squares sum is 2.6491; t(4.00) = 2.7764.
    assert remedy.recovered == pytest.approx(40.0 / 56.0, rel=1e-9)
    half_width = 2.776445 * 2.64913 * math.sqrt(1.000075e-4 / 3)
    expected = (40.0 / 56.0 - half_width, 40.0 / 56.0 + half_width)
    assert remedy.ends == pytest.approx(expected, abs=1e-4)


def test_recovery_looks_at_the_mean_because_a_median_hides_rare_steps() -> None:
    rows = link_run("pcie5", 20.0, cells={"mitigation": "diloco-64"})
    rare = [{**row, "step_median_ms": 100.0} for row in rows]
    (remedy,) = find_mitigated(gather([*three_links(), *rare]))
    assert remedy.run.shows_mean
    assert remedy.run.step_s is not None and remedy.run.step_s.value == pytest.approx(
        0.120, rel=1e-3
    )
    assert remedy.recovered == pytest.approx(40.0 / 56.0)


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (link_run("pcie5", 60.0), "no other link to compare with"),
        ([*link_run("pcie5", 0.4), *link_run("h100-nvlink", 0.2)], "no clear slowdown to recover"),
        ([*link_run("pcie5", 60.0), *link_run("10gbe", 400.0)], "this is the fastest link"),
    ],
)
def test_nothing_is_recovered_where_nothing_was_lost(rows: list[Row], why: str) -> None:
    helped = link_run("pcie5", 0.2, cells={"mitigation": "fp16"})
    (remedy,) = find_mitigated(gather([*rows, *helped]))
    assert (remedy.recovered, remedy.why_not) == (None, why)


def test_accumulated_batches_are_a_remedy_by_time_per_item() -> None:
    rows = link_run("pcie5", 0.0, cells={"grad_accum": 4})
    for row in rows:  # four micro-batches of 100 ms and one exchange of 60 ms
        row |= {"items": 4 * int(str(row["items"])), "window_s": float(str(row["window_s"])) * 4.6}
    (remedy,) = find_mitigated(gather([*three_links(), *rows]))
    assert remedy.change.value == pytest.approx(115.0 / 160.0)
    assert remedy.recovered == pytest.approx((160.0 - 115.0) / (160.0 - 104.0))
