"""The export rules replayed over the catalogue, against what is on record: its self-test too."""

from dataclasses import replace

import pytest

from bench.core.errors import DataError, UsageError
from bench.core.nouns import Chip
from bench.hardware.chips import chip
from bench.hardware.export_rules import (
    ExportRules,
    export_rule,
    export_status,
    is_caught,
    performance_density,
    total_processing_performance,
)
from bench.hardware.loader import parse_document

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


@pytest.mark.parametrize("name", ON_RECORD)
def test_the_replay_gives_the_outcome_on_record(name: str) -> None:
    assert replayed(chip(name)) == ON_RECORD[name]


def with_sparse(row: Chip, dtype: str) -> Chip:
    return replace(row, peak_per_s={**row.peak_per_s, dtype: 2 * row.peak_per_s[dtype]})


def test_one_sparse_figure_in_place_of_a_dense_one_breaks_the_replay() -> None:
    broken = {
        name
        for name, outcome in ON_RECORD.items()
        for dtype in ("fp16", "int8")
        if dtype in chip(name).peak_per_s and replayed(with_sparse(chip(name), dtype)) != outcome
    }
    assert {"h20-96g", "l20", "l2", "rtx4090d", "v100-sxm2-32g", "a10", "t4"} <= broken


def test_both_directions_in_place_of_one_would_catch_the_cut_links() -> None:
    for name in ("a800-sxm-80g", "h800-sxm"):
        row = chip(name)
        one_way = row.facts["link_bytes_per_s"]
        assert isinstance(one_way, float)
        doubled = replace(row, facts={**row.facts, "link_bytes_per_s": 2 * one_way})
        assert replayed(row)[0] is False and replayed(doubled)[0] is True


def test_processing_performance_and_density_of_known_parts() -> None:
    """989.4 TFLOP/s at 16 bits gives 15,830; fp8 and int8 round to the same."""
    assert total_processing_performance(chip("h100-sxm-80g")) == pytest.approx(15_832)
    assert performance_density(chip("h20-96g")) == pytest.approx(2.91, abs=0.005)
    assert total_processing_performance(chip("rtx4090")) == pytest.approx(5285, abs=1)
    assert performance_density(chip("l20")) == pytest.approx(3.14, abs=0.005)


def test_an_unknown_die_leaves_a_verdict_open() -> None:
    row = chip("mlu370-x8")
    assert performance_density(row) is None
    assert is_caught(export_rule("oct2023-3a090a"), chip=row) is None
    assert is_caught(export_rule("oct2022-3a090"), chip=row) is False


def test_a_part_without_any_rate_is_not_called_unrestricted() -> None:
    assert set(export_status(chip("xuantie-910")).values()) <= {None, False}
    assert is_caught(export_rule("oct2023-3a090a"), chip=chip("xuantie-910")) is None


def test_consumer_parts_are_exempt_from_density_only() -> None:
    row = chip("rtx3090")
    as_data_centre = replace(row, facts={**row.facts, "form_factor": "pcie"})
    assert replayed(row)[1] is False
    assert replayed(as_data_centre)[1] is True


def test_an_unknown_rule_is_answered_with_the_list() -> None:
    with pytest.raises(UsageError, match="oct2022-3a090"):
        export_rule("oct2021")


def test_a_rule_that_defers_to_an_unknown_rule_is_refused() -> None:
    text = """
sources: {here: {title: A page}}
rules:
- {id: b, title: B, published: x, unless: a, clauses: [{id: c, tpp_from: 1}], sources: [here]}
"""
    with pytest.raises(DataError, match="'a' is no rule above it"):
        parse_document(text, into=ExportRules, what="rules.yaml")
