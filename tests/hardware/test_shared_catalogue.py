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


def figures(row: Chip, theirs: dict[str, Any]) -> dict[str, tuple[object, float | None, float]]:
    """Ours, theirs, and what theirs is multiplied with to be in base units."""
    facts, memory, units = row.facts, theirs["memory"], theirs["compute_units"]
    rates = row.peak_per_s | {"fp64_tensor": facts.get("fp64_matrix_flops_per_s")}
    peaks = theirs["peak_dense_tflops_or_tops"]
    host = theirs["host_link"]["bidirectional_gb_per_s"]
    kind = str(facts.get("compute_unit_kind"))
    found = {
        **{dtype: (rates.get(dtype), rate, 1e12) for dtype, rate in peaks.items()},
        "memory": (row.memory_bytes, memory["capacity_gb"], 1e9),
        "bandwidth": (row.memory_bytes_per_s, memory["bandwidth_gb_per_s"], 1e9),
        "host": (facts.get("host_bytes_per_s"), host, 0.5e9),
        "tdp_w": (row.tdp_w, theirs["tdp_w"], 1),
        "clock": (facts.get("clock_hz"), theirs["boost_clock_mhz"], 1e6),
        "die": (facts.get("die_area_mm2"), theirs["die_area_mm2"], 1),
        "process": (facts.get("process_nm"), theirs["process_nm"], 1),
        "year": (facts["release_year"], theirs["release_year"], 1),
        "torch": (facts["torch_devices"], theirs.get("torch_devices_per_card", 1), 1),
        "units": (facts.get("compute_units"), units.get(kind), 1),
        **{name: (facts.get(name), units.get(name), 1) for name in ("cuda_cores", "tensor_cores")},
    }
    link = theirs["chip_to_chip"]
    if facts["link_topology"] == "none":
        assert link["aggregate_bidirectional_gb_per_s"] == 0
        return found
    for name, fact in [("aggregate", "link_bytes_per_s"), ("pair", "link_pair_bytes_per_s")]:
        found[name] = (facts.get(fact), link[f"{name}_bidirectional_gb_per_s"], 0.5e9)
    return found


def test_every_figure_is_equal() -> None:
    assert [row.id for row in load_chips()] == [row["id"] for row in handed_over()["devices"]]
    assert {row.id for row in load_systems()} == {row["id"] for row in handed_over()["systems"]}
    for theirs in handed_over()["devices"]:
        row = chip(theirs["id"])
        for name, (ours, figure, scale) in figures(row, theirs).items():
            if figure is None:
                assert ours is None, (row.id, name)
                continue
            # The handed-over figures are rounded to three digits.
            expected = figure * scale * CORRECTED.get((row.id, name), 1.0)
            assert ours == pytest.approx(expected, rel=2e-3), (row.id, name)
        assert row.confidence == theirs["confidence"], row.id
        assert str(row.facts.get("named_in", "")).split() == (theirs.get("named_in") or [])


def test_the_replayed_export_rules_agree_with_the_computed_ones() -> None:
    """Ours may say 'open' where theirs says no without knowing the die; never the opposite."""
    for theirs in handed_over()["devices"]:
        row, computed = chip(theirs["id"]), theirs["export_control_computed"]
        if row.id == "cpu-2s-xeon-8480":  # its rates are corrected, see above
            continue
        tpp, density = total_processing_performance(row), performance_density(row)
        for ours, name, rel, within in [
            (tpp, "tpp", 0.005, 0.5), (density, "performance_density", 0.0, 0.011)
        ]:  # fmt: skip
            expected = computed[name]
            same = None if expected is None else pytest.approx(expected, rel=rel, abs=within)
            assert ours == same, (row.id, name)
        for rule, verdict in export_status(row).items():
            told = computed[f"{rule.replace('-', '_')}_caught"]
            if verdict is None:
                assert density is None and not told, (row.id, rule)
            else:
                assert verdict == told, (row.id, rule)
