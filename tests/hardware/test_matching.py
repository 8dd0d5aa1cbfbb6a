"""Detected devices and catalogue rows: matched by name and memory, never by guessing."""

import pytest

from bench.hardware.chips import load_catalogue, match_device

GIB = 2**30


def ids(name: str, memory_bytes: int | None, compute_units: int | None = None) -> list[str]:
    return [row.id for row in match_device(name, memory_bytes, compute_units=compute_units)]


@pytest.mark.parametrize(
    ("name", "memory_bytes", "expected"),
    [
        # Bytes as drivers report them on these parts.
        ("NVIDIA H200", 150_120_000_000, "h200-sxm"),
        ("NVIDIA H100 80GB HBM3", 84_990_000_000, "h100-sxm-80g"),
        ("NVIDIA H100 PCIe", 85_020_000_000, "h100-pcie-80g"),
        ("NVIDIA A100-SXM4-40GB", 42_400_000_000, "a100-sxm-40g"),
        ("NVIDIA A100-SXM4-80GB", 85_100_000_000, "a100-sxm-80g"),
        ("NVIDIA A100 80GB PCIe", 85_100_000_000, "a100-pcie-80g"),
        ("NVIDIA H20", 102_600_000_000, "h20-96g"),
        ("NVIDIA GeForce RTX 4090", 25_393_692_672, "rtx4090"),
        ("NVIDIA GeForce RTX 4090 D", 25_393_692_672, "rtx4090d"),
        ("NVIDIA L4", 23_600_000_000, "l4"),
        ("Tesla T4", 15_830_000_000, "t4"),
        ("Tesla V100-SXM2-32GB", 34_079_000_000, "v100-sxm2-32g"),
        ("AMD Instinct MI300X", 192 * GIB, "mi300x"),
        ("AMD Instinct MI250X", 64 * GIB, "mi250x"),
        ("Ascend910B3", 65_500_000_000, "ascend-910b3"),
        ("ascend910_9392", 65_500_000_000, "ascend-910c"),
        ("  nvidia   l40s ", None, "l40s"),
    ],
)
def test_a_device_is_matched_to_its_row(name: str, memory_bytes: int, expected: str) -> None:
    assert ids(name, memory_bytes) == [expected]


def test_a_name_shared_by_two_parts_is_ambiguous_until_units_are_counted() -> None:
    name = "AMD Instinct MI250X / MI250"
    assert ids(name, 64 * GIB) == ["mi250", "mi250x"]
    assert ids(name, 64 * GIB, compute_units=104) == ["mi250"], "a device is one die of two"
    assert ids(name, 64 * GIB, compute_units=110) == ["mi250x"]
    assert ids(name, 64 * GIB, compute_units=55) == ["mi250", "mi250x"]


@pytest.mark.parametrize(
    ("name", "memory_bytes"),
    [
        ("NVIDIA H200 NVL", 150_000_000_000),
        ("NVIDIA A10G", 24_000_000_000),
        ("NVIDIA H20", 150_000_000_000),
        ("NVIDIA H200", 18 * GIB),
        ("Tesla V100-SXM2-16GB", 16 * GIB),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", 10 * GIB),
        ("Intel(R) Xeon(R) Processor", 64 * GIB),
        ("", 1),
        ("*", 1),
    ],
)
def test_a_device_that_is_not_in_the_catalogue_has_no_row(name: str, memory_bytes: int) -> None:
    assert ids(name, memory_bytes) == []


def test_a_processor_matches_only_when_all_its_cores_are_here() -> None:
    name = "Intel(R) Xeon(R) Platinum 8480+"
    assert ids(name, 64 * GIB) == []
    assert ids(name, 64 * GIB, compute_units=2) == []
    assert ids(name, 64 * GIB, compute_units=112) == ["cpu-2s-xeon-8480"]


def test_no_two_rows_share_a_name_and_a_memory_size_except_the_mi250_pair() -> None:
    for row in load_catalogue().chips:
        for name in row.device_names:
            found = [x.id for x in match_device(name.replace("*", "92"), None, compute_units=112)]
            assert found in ([row.id], ["mi250", "mi250x"], []) and (found or row.kind == "cpu")
