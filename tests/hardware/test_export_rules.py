"""The export rules replayed over the catalogue, against what is on record: its self-test too."""

from dataclasses import replace

import pytest

from bench.core.errors import UsageError
from bench.core.nouns import Chip
from bench.hardware.chips import chip
from bench.hardware.query import (
    export_rule,
    export_status,
    performance_density,
    total_processing_performance,
)

# What is on record, by part: restricted in October 2022, in October 2023.
# NVIDIA on A100 and H100, August 2022:
#   http://stage.tradelawdaily.com/article/2022/09/02/new-license-requirements-for-nvidia-chips-suggest-isinformed-letter-from-bis-2209010059
# AMD MI250 and the A800 as a way around:
#   https://www.tomshw.it/hardware/nvidia-realizza-una-nuova-compute-gpu-solo-per-il-mercato-cinese/
# NVIDIA's filing of October 2023 (A100, A800, H100, H800, L40S, RTX 4090):
#   https://videocardz.com/newz/u-s-to-restrict-shipment-of-nvidia-h800-and-rtx-4090-gpus-to-china
# L4 by its performance density:
#   https://thetechnicalissue.com/nvidia-reportedly-creating-new-rtx-4090-d-dragon-gpu-to-comply-with-us-export-regulations-for-china/
# H20, L20 and L2 made to comply with the rules of 2023:
#   https://www.tomshardware.com/pc-components/gpus/new-nvidia-ai-gpus-designed-to-get-around-us-export-bans-come-to-china-h20-l20-and-l2-to-fill-void-left-by-restricted-models
# RTX 4090 D under the line, RTX 4090 over it:
#   https://winbuzzer.com/2023/12/29/nvidia-releases-downgraded-rtx-4090d-gpu-for-compliance-with-us-china-export-controls-xcxwbn/
# V100, T4, A10, A2 and RTX 3090 are named in none of them and stay under every line; H200 and
# MI300X came later and lie far above.
ON_RECORD = {
    name: outcome
    for outcome, names in {
        (True, True): "a100-sxm-40g a100-sxm-80g a100-pcie-40g a100-pcie-80g a100x h100-sxm-80g "
        "h100-pcie-80g h200-sxm mi250 mi250x mi300x",
        (False, True): "a800-sxm-80g h800-sxm h800-pcie l4 l40s rtx4090",
        (False, False): "v100-sxm2-32g rtx4090d rtx3090 h20-96g l20 l2 t4 a10 a2",
    }.items()
    for name in names.split()
}


def replayed(row: Chip) -> tuple[bool | None, bool | None]:
    first, second, third = export_status(row).values()
    return first, (True if second or third else None if None in (second, third) else False)


def with_facts(row: Chip, **facts: float | str) -> Chip:
    return replace(row, facts={**row.facts, **facts})


def test_the_replay_gives_the_outcomes_on_record_and_one_sparse_figure_breaks_it() -> None:
    assert {name: replayed(chip(name)) for name in ON_RECORD} == ON_RECORD
    broken = set()
    for name, outcome in ON_RECORD.items():
        row = chip(name)
        for dtype in {"fp16", "int8"} & set(row.peak_per_s):
            sparse = {**row.peak_per_s, dtype: 2 * row.peak_per_s[dtype]}
            if replayed(replace(row, peak_per_s=sparse)) != outcome:
                broken.add(name)
    assert {"h20-96g", "l20", "l2", "rtx4090d", "v100-sxm2-32g", "a10", "t4"} <= broken
    for name in ("a800-sxm-80g", "h800-sxm"):  # both directions in place of one
        row = chip(name)
        both_ways = 2 * float(row.facts["link_bytes_per_s"] or 0)
        assert replayed(with_facts(row, link_bytes_per_s=both_ways))[0] is True


def test_performance_and_density_are_known_or_leave_a_verdict_open_and_consumers_exempt() -> None:
    """989.4 TFLOP/s at 16 bits gives 15,830; fp8 and int8 round to the same."""
    assert total_processing_performance(chip("h100-sxm-80g")) == pytest.approx(15_832)
    assert performance_density(chip("h20-96g")) == pytest.approx(2.91, abs=0.005)
    assert total_processing_performance(chip("rtx4090")) == pytest.approx(5285, abs=1)
    assert performance_density(chip("l20")) == pytest.approx(3.14, abs=0.005)
    without_die = chip("mlu370-x8")
    assert performance_density(without_die) is None
    assert [*export_status(without_die).values()] == [False, None, None]
    assert [*export_status(chip("xuantie-910")).values()] == [False, None, None]
    consumer = chip("rtx3090")
    assert replayed(consumer)[1] is False
    assert replayed(with_facts(consumer, form_factor="pcie"))[1] is True
    with pytest.raises(UsageError, match="oct2022-3a090"):
        export_rule("oct2021")
