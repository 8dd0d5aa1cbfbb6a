"""Training against inference: like for like, in one unit, with intervals, and in a user's terms."""

from typing import Any

import pytest

from bench.analysis.gap.demand import Length, demands
from bench.analysis.gap.gap_documents import gap_document
from bench.analysis.gap.gap_result import Gap, GapResult, measure_gap
from bench.analysis.gap.load import Load, parse_wanted
from bench.analysis.gap.served import ServedLoad
from bench.core.errors import UsageError
from bench.core.log_estimate import LogEstimate
from bench.results.schema import Row, Value
from tests.analysis.synthetic_rows import trials

INFER: dict[str, Value] = {
    "workload": "imaging-infer",
    "config_hash": "1nfe7",
    "items_unit": "volume",
    "elements_per_item": 8 * 32768.0,
    "items": 100,
}
GPU: dict[str, Value] = {"device": "cuda:0", "device_type": "cuda", "device_name": "GPU X"}
LLM: dict[str, Value] = {
    "items_unit": "token",
    "elements_unit": None,
    "elements_per_item": None,
    "roof_flops_per_s": 4e11,
    "roof_bytes_per_s": 2e10,
}


def measured(*parts: list[Row], **asked: Any) -> GapResult:
    return measure_gap([row for part in parts for row in part], **asked)


def only_gap(*parts: list[Row]) -> Gap:
    (gap,) = measured(*parts).gaps
    return gap


def value(found: LogEstimate | None) -> float:
    assert found is not None
    return found.value


def test_different_items_are_compared_per_element_equal_ones_per_item_two_kinds_not() -> None:
    # 300 ms for 2 patches of 32^3 against 100 ms for one volume of 8 x 32^3, without noise:
    # 150 ms / 1 against 100 ms / 8 per 32^3 voxels is a factor of 12.
    gap = only_gap(
        trials(noise_frac=0.0, step_ms=300.0, flops_per_item=3e9, energy_per_item_j=2.0),
        trials(noise_frac=0.0, flops_per_item=8e9, energy_per_item_j=4.0, **INFER),
    )
    assert (gap.unit, gap.is_per_element) == ("voxel", True)
    assert [value(one) for one in (gap.time, gap.flops, gap.energy)] == pytest.approx([12, 3, 4])
    assert gap.flops is not None and gap.flops.interval is None
    odd = {**INFER, "elements_unit": None, "elements_per_item": None}
    gap = only_gap(trials(rss_peak_bytes=2 * 10**9), trials(rss_peak_bytes=10**9, **odd))
    assert (gap.unit, gap.time, gap.flops, gap.energy) == (None, None, None, None)
    assert value(gap.memory) == pytest.approx(2.0)
    train = trials(num=1, energy_per_item_j=1.0, mem_alloc_peak_bytes=2 * 10**9)
    gap = only_gap(train, trials(num=1, rss_peak_bytes=10**9, **INFER))
    assert (gap.energy, gap.memory) == (None, None)
    assert gap.time is not None and gap.time.interval is None, "one trial"
    board: dict[str, Value] = {"energy_per_item_j": 1.0, "energy_scope": "module"}
    assert only_gap(train, trials(num=1, **INFER, **board)).energy is None
    gap = only_gap(
        trials(step_ms=300.0, workload="llm-train", config_hash="a", **LLM),
        trials(seed=1, workload="llm-decode", config_hash="b", **LLM),
    )
    assert (gap.unit, gap.is_per_element) == ("token", False)
    low, high = (gap.time.interval if gap.time else None) or (9.0, 0.0)
    assert low <= 3.0 <= high < 1.15 * low


def test_a_half_without_a_usable_trial_is_named() -> None:
    lost = trials(status="FAILED", reasons="out_of_memory", step_median_ms=None, **INFER)
    (missing,) = measured(trials(), lost).missing
    assert missing.tried is not None and missing.tried.name == "imaging-infer"
    assert missing.tried.trials.lost_reasons == "out_of_memory"
    # Nor are phases paired that were run differently.
    for cells in ({"dtype": "bf16"}, {"params_json": '{"batch": 4}'}, {"compile": True},
                  {"mode": "emulated"}):  # fmt: skip
        result = measured(trials(), trials(**{**INFER, **cells}))
        assert result.gaps == ()
        assert [missing.lacks_training for missing in result.missing] == [False, True]


def test_prefill_and_decode_lie_under_opposite_roofs() -> None:
    prefill = trials(workload="llm-prefill", flops_per_item=2e8, bytes_per_item=1e5, **LLM)
    decode = trials(workload="llm-decode", flops_per_item=2e8, bytes_per_item=4e8, **LLM)
    found = demands([*prefill, *decode])
    assert found[0].ridge_flops_per_byte == pytest.approx(20.0)
    assert [(one.trials.phase, one.flops_per_byte, one.roof) for one in found] == [
        ("prefill", 2000.0, "compute"),
        ("decode", 0.5, "bandwidth"),
    ]
    # 20 items a second of 2e8 FLOP are 4e9 FLOP/s; bandwidth allows 0.5 x 2e10 = 1e10.
    assert found[1].reached_frac == pytest.approx(0.4, rel=0.05)
    (demand,) = demands(trials(flops_per_item=2e8, bytes_per_item=1e5))
    assert demand.flops_per_byte == pytest.approx(2000.0)
    assert (demand.roof, demand.reached_frac) == (None, None), "without measured roofs"


def test_a_users_terms_and_the_ratios_of_two_devices_and_of_the_document() -> None:
    # 2 patches in 100 ms are 20 a second: 7,200 patches take 6 minutes, at 5 J each 36 kJ.
    result = measured(
        trials(noise_frac=0.0, energy_per_item_j=5.0), length=Length(num_items=7200.0)
    )
    ((_, plan),) = result.trainings
    assert plan.time_s.value == pytest.approx(360.0)
    assert value(plan.energy_j) == pytest.approx(36_000.0)
    ((_, plan),) = measured(trials(), length=Length(num_items=10.0)).trainings
    assert plan.energy_j is None
    # 3,600 steps of 2 patches are as many items. In 100 s 3.6 such devices would do: 4; two at
    # once, each half of the 20 a second, 7.2: 8. Six minutes by the minute are one device each.
    rows = trials(noise_frac=0.0)
    two = trials(noise_frac=0.0, device_count=2, parallel="ddp")
    deadlines = ((rows, 100.0, 4), (two, 100.0, 8), (rows, 360.0, 1), (rows, 1e12, 1))
    for found, within_s, devices in deadlines:
        length = Length(num_steps=3600.0, within_s=within_s)
        ((_, plan),) = measured(found, length=length).trainings
        assert plan.num_items == 7200.0 and plan.time_s.value == pytest.approx(360.0)
        assert plan.num_devices == devices
    result = measured(
        trials(noise_frac=0.0, step_ms=1000.0),
        trials(noise_frac=0.0, step_ms=200.0, **INFER),
        trials(noise_frac=0.0, step_ms=50.0, **GPU),
        trials(noise_frac=0.0, step_ms=40.0, **{**INFER, **GPU}),
    )
    (between,) = result.device_gaps
    ratios = (between.train, between.infer, between.train_over_infer)
    assert [one.value for one in ratios] == pytest.approx([1 / 20, 1 / 5, 1 / 4])
    result = measured(trials(seed=1), trials(seed=2, **INFER))
    gaps = gap_document(result, commands=[])["gaps"]
    assert isinstance(gaps, list)
    ratio = gaps[0]["time_ratio"]
    assert ratio["low"] < ratio["value"] < ratio["high"] < 100.0 and ratio["num_trials"] == 5


def served(rows: list[Row], *loads: str, **asked: Any) -> ServedLoad:
    steps = {
        (row["run_id"], row["config_hash"], row["device"], row["trial"], row["attempt"]): [
            float(str(row["step_median_ms"])) * 1e-3
        ]
        * 300
        for row in rows
    }
    result = measured(rows, wanted=parse_wanted(loads, **asked), steps=steps)
    (one,) = result.served
    return one


def test_a_load_needs_the_part_of_a_device_that_a_queue_leaves() -> None:
    """One volume in 100 ms; p99 within 10 of them lets 0.774 of the device be used."""
    rows = trials(noise_frac=0.0, **INFER)
    one = served(rows, "5/s", latency="1s", at="p99")
    assert one.used_frac == pytest.approx(0.5)
    assert one.usable_frac == pytest.approx(0.774, rel=0.01)
    assert value(one.share) == pytest.approx(0.5 / 0.774, rel=0.01)
    assert value(one.carries_per_s) == pytest.approx(7.74, rel=0.01)
    assert value(one.device_s_per_item) == pytest.approx(0.1 / 0.774, rel=0.01)
    assert one.mean_waits_s == pytest.approx((0.05,)) and one.devices == (1, 1, 1)
    middle = one.sojourns[0]
    assert middle is not None and 0.1 <= middle.half < 0.15 < middle.most < 0.6
    # The old arithmetic called 0.99 of a device enough; here it needs a second one.
    assert served(rows, "9.9/s", latency="1s", at="p99").devices == (2, 2, 2)
    assert served(rows, "9/s", latency="1s", at="p99").devices == (2, 2, 2)
    assert served(rows, "9/s", latency="1s", at="p50").devices == (1, 1, 1)
    # 12 % of 72,000 a day is 2.4 a second in the busiest hour, evenly 0.83; p1 is the other end.
    assert served(rows, "72000/day", busy_hour="12%").used_frac == pytest.approx(0.24)
    assert served(rows, "72000/day").used_frac == pytest.approx(0.0833, rel=0.01)
    assert served(rows, "72000/day").share is None, "without a limit"
    over = served(rows, "31/s", latency="1s")
    assert over.sojourns == (None, None, None) and over.devices[0] == 4
    assert served(rows, "31/s", latency="1s", servers=4).used_frac == pytest.approx(0.775)
    assert served(rows, "1/s", latency="50ms").carries_per_s is None
    # Urgent ones wait for what has begun and for one another alone.
    urgent = served(rows, "8/s", latency="10s", urgent="5%:300ms")
    assert [one.urgent_most < 0.25 < one.most for one in urgent.sojourns if one] == [True] * 3
    assert len(urgent.mean_waits_s) == 2 and urgent.mean_waits_s[0] == pytest.approx(
        0.2 * urgent.mean_waits_s[1]
    )
    # Trials that differ by 10 % leave as much open, and so does every figure.
    noisy = served(trials(noise_frac=0.1, num=3, **INFER), "5/s", latency="1s")
    low, high = (noisy.carries_per_s and noisy.carries_per_s.interval) or (0.0, 0.0)
    assert high > 1.2 * low > 0.0
    ends = [one.most for one in noisy.sojourns if one]
    assert ends[1] < ends[0] < ends[2]


def test_services_without_samples_are_said_and_have_no_interval() -> None:
    load = parse_wanted(["5/s"], latency="1s")
    rows = trials(noise_frac=0.0, **INFER)
    (one,) = measured(rows, wanted=load).served
    assert one.times.no_interval == one.times.spread == "their spread assumed: 0.3"
    assert one.times.kind.mean == pytest.approx(0.1) and one.times.kind.cv2**0.5 == pytest.approx(
        0.3, rel=0.02
    )
    assert one.carries_per_s is not None and one.carries_per_s.interval is None
    percentiles: dict[str, Value] = {"lat_p50_ms": 100.0, "lat_p90_ms": 190.0}
    (one,) = measured(trials(noise_frac=0.0, **INFER, **percentiles), wanted=load).served
    assert one.times.spread == "their spread from p50 and p90"
    assert one.times.kind.cv2 == pytest.approx(0.285, rel=0.05)
    few = served(trials(num=1, **INFER), "5/s", latency="1s")
    assert few.times.no_interval == "one trial"


def test_loads_as_they_are_typed() -> None:
    def load(text: str) -> Load:
        found = parse_wanted([text])
        assert found is not None
        return found.loads[0]

    for text, expected in (("200/day", 200 / 86400), ("5/h", 5 / 3600), (" 6 / MIN ", 0.1)):
        assert load(text).items_per_s == pytest.approx(expected)
    assert load("imaging:infer:5/h").workload == "imaging:infer"
    for text in ("200", "200/fortnight", "0/day", "-1/day", "many/day", "imaging-infer:", ""):
        with pytest.raises(UsageError, match="such as 200/day"):
            load(text)
    assert parse_wanted([]) is None
