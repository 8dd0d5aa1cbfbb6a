"""How many of which chips meet a target, worked by hand where it can be."""

import pytest

from bench.analysis.projection.sizing import (
    Target,
    parse_target,
    size,
    start_for,
    undecided,
    usual_link,
)
from bench.core.errors import UsageError
from bench.hardware.chips import chip as catalogue_chip
from bench.hardware.links.presets import load_links
from tests.analysis.projection_parts import chip, measured


def test_targets_are_read_or_refused_in_one_line() -> None:
    assert parse_target("imaging-infer < 30s") == Target(workload="imaging-infer", item_s=30.0)
    rate = parse_target("llm-train 8.64e9 tokens/day")
    assert rate.items_per_s == pytest.approx(1e5) and rate.unit == "tokens"
    for text in ("", "imaging-infer", "imaging-infer < 30", "imaging-infer < 0s",
                 "llm-train 0 tokens/s", "llm-train 1e9 tokens/week", "llm-train 1e999 tokens/s",
                 "llm-train x tokens/s"):  # fmt: skip
        with pytest.raises(UsageError) as raised:
            parse_target(text)
        assert "\n" not in str(raised.value), text


def test_the_fastest_start_is_taken_and_another_workload_or_unit_refused() -> None:
    with pytest.raises(UsageError, match="imaging-train"):
        start_for(parse_target("llm-train 5 tokens/s"), [measured()])
    with pytest.raises(UsageError, match="is a patch"):
        start_for(parse_target("imaging-train 5 tokens/s"), [measured()])
    slow, fast = measured(size="base"), measured(size="tiny", step_s=0.1)
    other = measured(workload="llm-train", step_s=0.01)
    assert start_for(parse_target("imaging-train 5 patches/s"), [slow, fast, other]) is fast


def test_inference_takes_as_many_as_the_rate_needs() -> None:
    start = measured(workload="imaging-infer")
    # One projects to 4 items in 0.75 s in the middle, 5.33/s: 21.4/s need five.
    choices, missed = size(
        Target(workload="imaging-infer", items_per_s=21.4), start, [chip(), chip(peak_per_s={})]
    )
    assert [one.projected.devices for one in choices] == [5]
    assert choices[0].watts == 5 * 500.0
    assert choices[0].devices is not None
    low, middle, high = choices[0].devices
    assert low <= middle <= high and low < high
    assert len(missed) == 1 and "not known" in missed[0].reason


def test_a_time_is_met_by_one_or_not_at_all() -> None:
    start = measured(workload="imaging-infer")
    within, _ = size(Target(workload="imaging-infer", item_s=2.0), start, [chip()])
    assert [one.devices for one in within] == [(1, 1, 1)]
    perhaps, _ = size(Target(workload="imaging-infer", item_s=0.75), start, [chip()])
    assert [one.devices for one in perhaps] == [None], "only a part of the interval meets it"
    none, missed = size(Target(workload="imaging-infer", item_s=0.1), start, [chip()])
    assert not none and "even at the fast end" in missed[0].reason


def test_a_narrow_link_takes_more_of_them_for_training() -> None:
    target = Target(workload="imaging-train", items_per_s=30.0)
    wide, _ = size(target, measured(), [chip()], link="infinite")
    narrow, _ = size(target, measured(), [chip()], link="bw=20GB/s,latency=5us")
    assert wide[0].projected.devices == 6
    assert narrow[0].projected.devices > 6
    hopeless, missed = size(target, measured(), [chip()], link="bw=1MB/s,latency=5us")
    assert not hopeless and "not met" in missed[0].reason


def test_the_order_is_devices_then_watts_and_what_leaves_it_open_is_said() -> None:
    start = measured(workload="imaging-infer")
    chips = [chip(id="hot", tdp_w=900.0), chip(id="cool", tdp_w=100.0), chip(
        id="near", peak_per_s={"bf16": 300e12}, memory_bytes_per_s=1.8e12)]  # fmt: skip
    choices, _ = size(Target(workload="imaging-infer", items_per_s=50.0), start, chips)
    assert [one.projected.chip.id for one in choices] == ["cool", "hot", "near"]
    lines = undecided(choices)
    assert len(lines) == 1 and lines[0].startswith("hot before near is not decided")


def test_every_usual_link_is_a_preset_of_its_own_chip() -> None:
    presets = {row.id for row in load_links()}
    expected = {
        "h20-96g": "h20-nvlink",
        "a800-sxm-80g": "a800-nvlink",
        "ascend-910": "ascend910-hccs",
        "ascend-910b3": "ascend910b-hccs",
        "ascend-910c": "pcie5",
        "mi250x": "mi250-if",
        "l4": "pcie4",
        "h100-pcie-80g": "pcie5",
    }
    assert {name: usual_link(catalogue_chip(name)) for name in expected} == expected
    assert set(expected.values()) <= presets
