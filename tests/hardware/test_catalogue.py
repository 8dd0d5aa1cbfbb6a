"""The shipped catalogue: complete, sourced, consistent with itself; and devices found in it."""

import pytest

from bench.core.errors import UsageError
from bench.hardware.chips import chip, load_catalogue, load_chips, load_systems, match_device

GIB = 2**30

NAMED_IN_THE_ARTICLES = set(
    """
v100-sxm2-32g a100-sxm-80g a100x h100-sxm-80g a800-sxm-80g h800-sxm h20-96g l20 l2 mi250 mi250x
ascend-910 ascend-910b1 ascend-910b2 ascend-910b3 ascend-910b4 ascend-910c hanguang800 xuantie-910
kunlun1-k200 kunlun2-r200 kunlun3-p800 br100 br104 mlu370-x8 mlu590 mtt-s4000 cloudblazer-t20
cloudblazer-t21 cloudblazer-i20 tianjic cpu-2s-xeon-8480 cpu-2s-epyc-9654 rtx3090 rtx4090
""".split()  # noqa: SIM905  # a list of 35 strings is harder to read
)


def number(id: str, name: str) -> float:
    value = chip(id).facts[name]
    assert isinstance(value, int | float)
    return value


def test_every_part_that_an_article_names_has_a_row() -> None:
    assert len(load_chips()) == 51
    assert {row.id for row in load_chips()} >= NAMED_IN_THE_ARTICLES
    systems = {row.id for row in load_systems()}
    assert systems >= {"dgx-a100", "atlas-900-2019", "kuae-1000", "shennong-1"}


def test_every_figure_is_in_base_units() -> None:
    for row in load_chips():
        assert all(1e11 <= rate <= 1e17 for rate in row.peak_per_s.values()), row.id
        size_bytes = row.memory_bytes
        assert size_bytes in (None, 0) or 1e9 <= size_bytes <= 1e13, row.id
        assert row.memory_bytes_per_s is None or 1e10 < row.memory_bytes_per_s < 1e14, row.id
        assert 1e8 < float(row.facts.get("clock_hz", 1e9) or 0) < 1e10, row.id
        pair, total = (row.facts.get(f"link{x}_bytes_per_s") for x in ("_pair", ""))
        if isinstance(pair, float) and isinstance(total, float):
            assert pair <= total, row.id


def test_dense_rates_keep_the_steps_of_matrix_units() -> None:
    """A sparse or doubled figure in one column would break the step to its neighbour."""
    for row in load_chips():
        rates = row.peak_per_s
        if "bf16" in rates and "fp16" in rates:
            assert rates["bf16"] == rates["fp16"], row.id
        if row.vendor == "nvidia" and "fp8" in rates and row.facts["form_factor"] != "consumer":
            assert rates["fp8"] == pytest.approx(2 * rates["fp16"], rel=0.02), row.id
            assert rates["int8"] == rates["fp8"], row.id
        if row.vendor == "nvidia" and "tf32" in rates:
            assert rates["tf32"] == pytest.approx(rates["bf16"] / 2, rel=0.02), row.id


def test_nvidia_vector_rate_follows_from_cores_and_clock() -> None:
    """Two operations per core and cycle; H100 is rated above its matrix clock, A100X is scaled."""
    for row in load_chips():
        cores, clock_hz = row.facts.get("cuda_cores"), row.facts.get("clock_hz")
        if isinstance(cores, int) and isinstance(clock_hz, float):
            assert row.peak_per_s["fp32"] == pytest.approx(2 * cores * clock_hz, rel=0.12), row.id


def test_intel_matrix_rate_follows_from_the_published_operations_per_cycle() -> None:
    """1024 bf16 and 2048 int8 operations per cycle and core, at the clock of the row."""
    row = chip("cpu-2s-xeon-8480")
    cycles_per_s = number(row.id, "compute_units") * number(row.id, "clock_hz")
    assert row.peak_per_s["bf16"] == pytest.approx(1024 * cycles_per_s, rel=1e-3)
    assert row.peak_per_s["int8"] == pytest.approx(2048 * cycles_per_s, rel=1e-3)
    assert row.peak_per_s["fp32"] == pytest.approx(64 * cycles_per_s, rel=1e-2)


def test_the_cut_parts_differ_from_their_models_only_where_they_were_cut() -> None:
    for cut, model in [("a800-sxm-80g", "a100-sxm-80g"), ("h800-sxm", "h100-sxm-80g")]:
        assert number(cut, "link_bytes_per_s") < number(model, "link_bytes_per_s")
        for dtype in ("tf32", "bf16", "fp16", "int8"):
            assert chip(cut).peak_per_s[dtype] == chip(model).peak_per_s[dtype]
    assert 1 - number("h20-96g", "compute_units") / number("h100-sxm-80g", "compute_units") == (
        pytest.approx(0.41, abs=0.005)
    )


def test_rows_say_what_their_rates_and_packages_are() -> None:
    assert "vector_fp32_flops_per_s" not in chip("ascend-910b3").facts
    assert number("mi250", "vector_fp32_flops_per_s") < number("mi250", "fp32_matrix_flops_per_s")
    several = {row.id for row in load_chips() if row.facts["torch_devices"] != 1}
    assert several == {"mi250", "mi250x", "ascend-910c"}


def test_a_chip_is_found_by_id_or_by_an_unambiguous_start() -> None:
    assert chip("h20-96g") is chip("h20")
    assert chip("l2").id == "l2"
    assert chip("ascend-910").id == "ascend-910"
    for name, words in [
        ("h100", ["ambiguous", "h100-sxm-80g", "h100-pcie-80g"]),
        ("h2O", ["not in the catalogue", "h20-96g", "bench list chips"]),
        ("", ["not in the catalogue"]),
    ]:
        with pytest.raises(UsageError) as caught:
            chip(name)
        assert all(word in str(caught.value) for word in words)


def matched(name: str, memory_bytes: int | None, compute_units: int | None = None) -> list[str]:
    return [row.id for row in match_device(name, memory_bytes, compute_units=compute_units)]


DETECTED = [
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
    ("NVIDIA H200 NVL", 150_000_000_000, ""),
    ("NVIDIA A10G", 24_000_000_000, ""),
    ("NVIDIA H20", 150_000_000_000, ""),
    ("NVIDIA H200", 18 * GIB, ""),
    ("Tesla V100-SXM2-16GB", 16 * GIB, ""),
    ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", 10 * GIB, ""),
    ("Intel(R) Xeon(R) Processor", 64 * GIB, ""),
    ("", 1, ""),
    ("*", 1, ""),
]


def test_a_device_is_matched_to_its_row_or_to_none() -> None:
    for name, memory_bytes, expected in DETECTED:
        assert matched(name, memory_bytes) == ([expected] if expected else []), name


def test_a_name_shared_by_two_parts_is_ambiguous_until_units_are_counted() -> None:
    name = "AMD Instinct MI250X / MI250"
    assert matched(name, 64 * GIB) == ["mi250", "mi250x"]
    assert matched(name, 64 * GIB, 104) == ["mi250"], "a device is one die of two"
    assert matched(name, 64 * GIB, 110) == ["mi250x"]
    assert matched(name, 64 * GIB, 55) == ["mi250", "mi250x"]
    for row in load_catalogue().chips:
        for device in row.device_names:
            found = matched(device.replace("*", "92"), None, 112)
            assert found in ([row.id], ["mi250", "mi250x"], []) and (found or row.kind == "cpu")


def test_a_processor_matches_only_when_all_its_cores_are_here() -> None:
    name = "Intel(R) Xeon(R) Platinum 8480+"
    assert matched(name, 64 * GIB) == []
    assert matched(name, 64 * GIB, 2) == []
    assert matched(name, 64 * GIB, 112) == ["cpu-2s-xeon-8480"]
