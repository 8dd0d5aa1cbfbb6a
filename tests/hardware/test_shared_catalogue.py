"""Row by row against the catalogue the project was handed, where that lies beside the checkout.

Differences are listed here with their reasons; anything else that differs is a slip.
"""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.core.nouns import Chip
from bench.hardware.chips import chip, load_chips, load_systems
from bench.hardware.export_rules import (
    export_status,
    performance_density,
    total_processing_performance,
)

PATH = Path(__file__).parents[3] / "shared" / "data" / "catalogue.yaml"

# Two-socket Xeon: the handed-over AMX rates are twice what 1024 bf16 and 2048 int8 operations per
# cycle and core give (https://en.wikipedia.org/wiki/Advanced_Matrix_Extensions), and the UPI sum of
# four links of 24 lanes at 16 GT/s is one direction, not both.
CORRECTED = {
    ("cpu-2s-xeon-8480", "bf16"): 0.5,
    ("cpu-2s-xeon-8480", "int8"): 0.5,
    ("cpu-2s-xeon-8480", "aggregate"): 2.0,
    ("cpu-2s-xeon-8480", "pair"): 2.0,
}


@cache
def handed_over() -> dict[str, Any]:
    if not PATH.is_file():
        pytest.skip("no ../shared/data/catalogue.yaml beside this checkout")
    return dict(yaml.safe_load(PATH.read_text(encoding="utf-8")))


def same(row: Chip, name: str, ours: object, theirs: float | None, *, scale: float) -> None:
    if theirs is None:
        assert ours is None, (row.id, name)
        return
    # The handed-over figures are rounded to three digits.
    expected = theirs * scale * CORRECTED.get((row.id, name), 1.0)
    assert ours == pytest.approx(expected, rel=2e-3), (row.id, name)


def test_both_catalogues_have_the_same_rows() -> None:
    assert [row.id for row in load_chips()] == [row["id"] for row in handed_over()["devices"]]
    assert {row.id for row in load_systems()} == {row["id"] for row in handed_over()["systems"]}


def test_every_rate_is_equal() -> None:
    for theirs in handed_over()["devices"]:
        row = chip(theirs["id"])
        for dtype, rate in theirs["peak_dense_tflops_or_tops"].items():
            matrix = row.facts.get("fp64_matrix_flops_per_s")
            ours = matrix if dtype == "fp64_tensor" else row.peak_per_s.get(dtype)
            same(row, dtype, ours, rate, scale=1e12)


def test_every_size_bandwidth_and_link_is_equal() -> None:
    for theirs in handed_over()["devices"]:
        row, memory, link = chip(theirs["id"]), theirs["memory"], theirs["chip_to_chip"]
        host = theirs["host_link"]["bidirectional_gb_per_s"]
        same(row, "memory", row.memory_bytes, memory["capacity_gb"], scale=1e9)
        same(row, "bandwidth", row.memory_bytes_per_s, memory["bandwidth_gb_per_s"], scale=1e9)
        same(row, "host", row.facts.get("host_bytes_per_s"), host, scale=0.5e9)
        if row.facts["link_topology"] == "none":
            assert link["aggregate_bidirectional_gb_per_s"] == 0
            continue
        for name, fact in [("aggregate", "link_bytes_per_s"), ("pair", "link_pair_bytes_per_s")]:
            both_ways = link[f"{name}_bidirectional_gb_per_s"]
            same(row, name, row.facts.get(fact), both_ways, scale=0.5e9)


def test_every_other_figure_is_equal() -> None:
    for theirs in handed_over()["devices"]:
        row, units = chip(theirs["id"]), dict(theirs["compute_units"])
        same(row, "tdp_w", row.tdp_w, theirs["tdp_w"], scale=1)
        same(row, "clock", row.facts.get("clock_hz"), theirs["boost_clock_mhz"], scale=1e6)
        same(row, "die", row.facts.get("die_area_mm2"), theirs["die_area_mm2"], scale=1)
        same(row, "process", row.facts.get("process_nm"), theirs["process_nm"], scale=1)
        same(row, "year", row.facts["release_year"], theirs["release_year"], scale=1)
        devices = theirs.get("torch_devices_per_card", 1)
        same(row, "torch", row.facts["torch_devices"], devices, scale=1)
        kind = str(row.facts.get("compute_unit_kind"))
        same(row, "units", row.facts.get("compute_units"), units.get(kind), scale=1)
        for name in ("cuda_cores", "tensor_cores"):
            same(row, name, row.facts.get(name), units.get(name), scale=1)
        assert row.confidence == theirs["confidence"], row.id
        assert str(row.facts.get("named_in", "")).split() == (theirs.get("named_in") or [])


def test_the_replayed_export_rules_agree_with_the_computed_ones() -> None:
    """Ours may say 'open' where theirs says no without knowing the die; never the opposite."""
    for theirs in handed_over()["devices"]:
        row, computed = chip(theirs["id"]), theirs["export_control_computed"]
        if row.id == "cpu-2s-xeon-8480":  # its rates are corrected, see above
            continue
        tpp, density = total_processing_performance(row), performance_density(row)
        if computed["tpp"] is None:
            assert tpp is None, row.id
        else:
            assert tpp == pytest.approx(computed["tpp"], rel=0.005, abs=0.5), row.id
        if computed["performance_density"] is None:
            assert density is None, row.id
        else:
            assert density == pytest.approx(computed["performance_density"], abs=0.011), row.id
        for rule, ours in export_status(row).items():
            verdict = computed[f"{rule.replace('-', '_')}_caught"]
            if ours is None:
                assert density is None and not verdict, (row.id, rule)
            else:
                assert ours == verdict, (row.id, rule)
