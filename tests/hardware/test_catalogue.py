"""The shipped catalogue: complete, sourced, consistent with itself; devices and rows found."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.cli import main
from bench.core.errors import UsageError
from bench.hardware.chips import chip, load_catalogue, load_chips, match_device
from bench.hardware.published import load_published
from bench.hardware.query import (
    chip_fields,
    export_status,
    select,
)

GIB = 2**30


def number(id: str, name: str) -> float:
    value = chip(id).facts[name]
    assert isinstance(value, int | float)
    return value


def test_every_part_that_an_article_names_has_a_row_that_says_what_it_is() -> None:
    assert len(load_chips()) == 51
    systems = load_catalogue().systems
    named = [name for system in systems for name in system.chips]
    named += [name for one in load_published().ratios for name in (one.chip_a, one.chip_b)]
    assert {*named} <= {row.id for row in load_chips()}
    ids = {system.id for system in systems}
    assert ids >= {"dgx-a100", "atlas-900-2019", "kuae-1000", "shennong-1"}
    assert "vector_fp32_flops_per_s" not in chip("ascend-910b3").facts
    assert number("mi250", "vector_fp32_flops_per_s") < number("mi250", "fp32_matrix_flops_per_s")
    several = {row.id for row in load_chips() if row.facts["torch_devices"] != 1}
    assert several == {"mi250", "mi250x", "ascend-910c"}


def test_every_figure_is_in_base_units() -> None:
    for row in load_chips():
        assert all(1e11 <= rate <= 1e17 for rate in row.peak_per_s.values()), row.id
        size_bytes = row.memory_bytes
        assert size_bytes in (None, 0) or 1e9 <= size_bytes <= 1e13, row.id
        assert row.memory_bytes_per_s is None or 1e10 < row.memory_bytes_per_s < 1e14, row.id
        for clock in ("max_clock_hz", "tensor_clock_hz"):
            assert 1e8 < float(row.facts.get(clock, 1e9) or 0) < 1e10, row.id
        pair, total = (row.facts.get(f"link{x}_bytes_per_s") for x in ("_pair", ""))
        if isinstance(pair, float) and isinstance(total, float):
            assert pair <= total, row.id


def test_rates_keep_the_steps_of_matrix_units_and_follow_from_cores_and_clock() -> None:
    """A sparse or doubled figure in one column would break the step to its neighbour."""
    for row in load_chips():
        rates, facts = row.peak_per_s, row.facts
        if "bf16" in rates and "fp16" in rates:
            assert rates["bf16"] == rates["fp16"], row.id
        if row.vendor == "nvidia" and "fp8" in rates and facts["form_factor"] != "consumer":
            assert rates["fp8"] == pytest.approx(2 * rates["fp16"], rel=0.02), row.id
            assert rates["int8"] == rates["fp8"], row.id
        if row.vendor == "nvidia" and "tf32" in rates:
            assert rates["tf32"] == pytest.approx(rates["bf16"] / 2, rel=0.02), row.id
        cores, clock_hz = facts.get("cuda_cores"), facts.get("max_clock_hz")
        if isinstance(cores, int) and isinstance(clock_hz, float):
            # Two operations per core and cycle; the H20 is said to have a tenth more.
            assert rates["fp32"] == pytest.approx(2 * cores * clock_hz, rel=0.12), row.id
        clock_hz = facts.get("tensor_clock_hz", clock_hz)
        if row.vendor == "nvidia" and isinstance(clock_hz, float) and row.id != "h20-96g":
            # 512 to 8192 operations per unit and cycle; the H20 alone is cut to less.
            per_cycle = rates["fp16"] / (number(row.id, "compute_units") * clock_hz)
            assert per_cycle == pytest.approx(2 ** round(math.log2(per_cycle)), rel=0.03), row.id
    # Xeon: 1024 bf16 and 2048 int8 operations per cycle and core, at the clock of the row.
    row = chip("cpu-2s-xeon-8480")
    cycles_per_s = number(row.id, "compute_units") * number(row.id, "max_clock_hz")
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


def test_what_chips_reach_is_a_band_near_their_sheet() -> None:
    """A chip may clock above its nominal clock, so a little over the peak is none of a slip."""
    for row in load_chips():
        sheet = {"gemm": row.peak16_per_s, "gemm_fp8": row.peak_per_s.get("fp8"),
                 "memory": row.memory_bytes_per_s, "cache": None}  # fmt: skip
        for kind, reach in row.reaches.items():
            assert reach.low <= reach.high and reach.sources, (row.id, kind)
            most = sheet[kind]
            if most is not None:
                assert reach.low / most > 0.3, (row.id, kind)
                assert reach.high / most <= 1.15, (row.id, kind)
            elif row.memory_bytes_per_s:
                assert 1.5 < reach.low / row.memory_bytes_per_s < 8, (row.id, kind)


RATES = Path(__file__).parents[3] / "shared" / "data" / "chip_rates.yaml"
REREAD = {("mi300x", "gemm"), ("mi250x", "gemm")}
"""Read again: an earlier edition of the same table has 782 TFLOP/s on an MI300X, and 147 on one die
of an MI250X."""


def test_what_chips_reach_is_what_was_handed_over() -> None:
    if not RATES.is_file():
        pytest.skip("no ../shared/data/chip_rates.yaml beside this checkout")
    theirs = yaml.safe_load(RATES.read_text(encoding="utf-8"))["chips"]
    for row in load_chips():
        told = theirs.get(row.id, {})
        named = {"l2": "cache", "clock": None}
        kinds = {named.get(name, name) for name in told} - {None}
        assert {(row.id, kind) for kind in kinds ^ set(row.reaches)} <= REREAD, row.id
        for name, figure in told.items():
            if name == "clock":
                ours = [row.facts[f"{one}_clock_hz"] for one in ("max", "tensor")]
                assert ours == [float(figure["max"]), float(figure["tensor"])], row.id
            elif (row.id, name) not in REREAD:
                reach = row.reaches[named.get(name) or name]
                ends = [float(figure.get(end, figure.get("rate"))) for end in ("low", "high")]
                assert [reach.low, reach.high] == pytest.approx(ends), (row.id, name)
                assert reach.basis == figure.get("kind", "measured"), (row.id, name)


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
    ("Tesla V100-SXM2-32GB", 34_079_000_000, "v100-sxm2-32g"),
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


def test_units_are_counted_where_a_name_alone_does_not_tell() -> None:
    name = "AMD Instinct MI250X / MI250"
    assert matched(name, 64 * GIB) == ["mi250", "mi250x"]
    assert matched(name, 64 * GIB, 104) == ["mi250"], "a device is one die of two"
    assert matched(name, 64 * GIB, 110) == ["mi250x"]
    assert matched(name, 64 * GIB, 55) == ["mi250", "mi250x"]
    for row in load_catalogue().chips:
        for device in row.device_names:
            found = matched(device.replace("*", "92"), None, 112)
            assert found in ([row.id], ["mi250", "mi250x"], []) and (found or row.kind == "cpu")
    for cores, expected in ((None, []), (2, []), (112, ["cpu-2s-xeon-8480"])):
        assert matched("Intel(R) Xeon(R) Platinum 8480+", 64 * GIB, cores) == expected


def ids(where: str, sort: str | None = None) -> list[str]:
    return [row.id for row in select(where, sort=sort).chips]


def test_numbers_are_compared_in_base_units_texts_whole_and_unknown_is_sorted_last() -> None:
    chosen = select("memory_bytes>=48e9 and tdp_w<=350").chips
    assert chosen and {row.id for row in chosen} >= {"l20", "l40s", "h100-pcie-80g"}
    for row in load_chips():
        fits = row.memory_bytes is not None and row.memory_bytes >= 48e9
        frugal = row.tdp_w is not None and row.tdp_w <= 350
        assert (row in chosen) == (fits and frugal)
    assert ids("vendor=Huawei and id!=ascend-910c")[0] == "ascend-910"
    assert ids("vendor=moore threads") == ["mtt-s4000"]
    assert ids("id = l2") == ["l2"]
    assert "a800-sxm-80g" in ids("caught_oct2022_3a090=no and caught_oct2023_3a090a=yes")
    upwards, downwards = ids("kind=npu", "tdp_w"), ids("kind=npu", "-tdp_w")
    assert upwards[-1] == downwards[-1] == "ascend-910c"
    chips = select("kind=npu", sort="-tdp_w").chips
    watts = [row.tdp_w for row in chips if row.tdp_w is not None]
    assert watts == sorted(watts, reverse=True)
    with pytest.raises(UsageError, match=r"'price'.*memory_bytes"):
        select("tdp_w<5", sort="price")


def test_rows_that_hang_on_an_unknown_figure_never_match_and_are_counted() -> None:
    unknown = [row.id for row in load_chips() if row.tdp_w is None]
    below, above = select("tdp_w<=350"), select("tdp_w>350")
    assert not set(unknown) & {row.id for row in (*below.chips, *above.chips)}
    assert below.num_left_out == above.num_left_out == len(unknown) > 0
    assert below.note == f"{len(unknown)} chips left out: tdp_w unknown"
    assert select("tdp_w<=350 and id=l4").num_left_out == 0, "it cannot change the answer"
    fields = {name for row in load_chips() for name in chip_fields(row)}
    assert {"memory_bytes", "bf16_per_s", "die_area_mm2", "tpp", "torch_device"} <= fields


MISTAKES = [
    (select, "watts<5", "field|'watts'|tdp_w"),
    (select, "tdp_w<", "'tdp_w<' is not a comparison"),
    (select, "tdp_w<5 tdp_w>3", "not a comparison"),
    (select, "tdp_w<=abc", "tdp_w|number|abc"),
    (select, "vendor>nvidia", "vendor|text"),
    (select, "tdp_w<5 or id=l2", "not a comparison"),
    (select, "", "not a comparison|such as"),
    (select, "tdp_w <> 4", "not a comparison"),
    (select, "(tdp_w<5)", "not a comparison"),
    (chip, "h2O", "not in the catalogue|h20-96g|bench list chips"),
    (chip, "", "not in the catalogue"),
]


@pytest.mark.parametrize(("ask", "text", "words"), MISTAKES)
def test_a_wrong_condition_or_name_is_answered_in_one_line(
    ask: Callable[[str], object], text: str, words: str
) -> None:
    with pytest.raises(UsageError) as caught:
        ask(text)
    assert all(word in str(caught.value) for word in words.split("|")), str(caught.value)
    assert "\n" not in str(caught.value)


PRINTED = [
    ("", "cpu-2s-xeon-8480 |h20-96g ", "atlas-900-2019"),
    ("--where tdp_w<=60 --sort id", "a2 ", "left out: tdp_w unknown"),
    ("h20", "148 TFLOP/s|296 TOP/s|4.00 TB/s|October 2023, 3A090.a|not restricted|"
     "https://www.smbom.com/news/13059", ""),
    ("h100-pcie", "reaches 435 to 496 of 756 TFLOP/s in fp16, copies 1.63 to 1.83 of 2.04 TB/s|"
     "about 1.1 to 1.2 GHz under a matrix product, of at most 1.75|ridge at what it reaches: 237 "
     "to 304 FLOP a byte|cache: 5.7 to 7 TB/s, measured (RRZE gpu-benches)|issue 95|"
     "https://github.com/chsasank/device-benchmarks", ""),
    ("h20", "about 2.0 GHz", ""),
    ("mi300x", "reaches 0.668 to 0.782 of 1.31 PFLOP/s in fp16, copies taken as 4.1 to 4.96", ""),
    ("l2", "not measured, taken as 37.1 to 96.5 of 96.5 TFLOP/s|from other chips of nvidia", ""),
    ("tianjic", "what it reaches cannot be said: its peak in fp16", ""),
    ("atlas-900-2019", "ascend-910|1024|262 PFLOP/s", ""),
]  # fmt: skip


def test_tables_cards_and_json_show_all_of_it_and_unknown_is_blank_null_or_absent(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for words, on_stdout, on_stderr in PRINTED:
        assert main(["list", "chips", *words.split()]) == 0
        printed = capsys.readouterr()
        assert all(word in printed.out for word in on_stdout.split("|")), words
        assert on_stderr in printed.err
        assert "…" not in printed.out and "left out" not in printed.out
    main(["list", "chips", "--where", "id=xuantie-910"])
    line = next(x for x in capsys.readouterr().out.splitlines() if "xuantie" in x)
    assert line.split() == ["xuantie-910", "2019", "medium"]

    def document(*words: str) -> Any:
        assert main(["list", "chips", *words, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    assert len(document()["chips"]) == 51
    assert document("dgx-a100")["id"] == "dgx-a100"
    l2 = document("l2")
    assert l2["sources"] and l2["tdp_w"] is None and "max_clock_hz" not in l2
    assert main(["list", "chips", "--where", "tdp_w<0"]) == 5
    assert "tdp_w<0" in capsys.readouterr().err


HANDED_OVER = Path(__file__).parents[3] / "shared" / "data" / "catalogue.yaml"

# The catalogue that the project was handed, where that lies beside the checkout, is compared row by
# row; a figure that differs and is not here is a slip. Two-socket Xeon: the AMX rates there are
# twice what 1024 bf16 and 2048 int8 operations per cycle and core give
# (https://en.wikipedia.org/wiki/Advanced_Matrix_Extensions), and the UPI sum of four links of 24
# lanes at 16 GT/s is one direction, not both.
CORRECTED = {
    ("cpu-2s-xeon-8480", "bf16_per_s"): 0.5,
    ("cpu-2s-xeon-8480", "int8_per_s"): 0.5,
    ("cpu-2s-xeon-8480", "link_bytes_per_s"): 2.0,
    ("cpu-2s-xeon-8480", "link_pair_bytes_per_s"): 2.0,
    # 1830 MHz is the clock of their matrix peak.
    **{(id, "max_clock_hz"): 1980 / 1830 for id in ("h100-sxm-80g", "h200-sxm", "h800-sxm")},
}


# Where their file has a figure of ours, and what it is multiplied with to be in base units.
PEAKS = "peak_dense_tflops_or_tops"
THEIRS = {
    **{f"{dtype}_per_s": (f"{PEAKS}/{dtype}", 1e12)
       for dtype in ("fp64", "fp32", "tf32", "bf16", "fp16", "fp8", "int8")},
    "fp64_matrix_flops_per_s": (f"{PEAKS}/fp64_tensor", 1e12),
    "memory_bytes": ("memory/capacity_gb", 1e9),
    "memory_bytes_per_s": ("memory/bandwidth_gb_per_s", 1e9),
    "host_bytes_per_s": ("host_link/bidirectional_gb_per_s", 0.5e9),
    "link_bytes_per_s": ("chip_to_chip/aggregate_bidirectional_gb_per_s", 0.5e9),
    "link_pair_bytes_per_s": ("chip_to_chip/pair_bidirectional_gb_per_s", 0.5e9),
    "max_clock_hz": ("boost_clock_mhz", 1e6),
    "torch_devices": ("torch_devices_per_card", 1),
    **{name: (name, 1) for name in ("tdp_w", "die_area_mm2", "process_nm", "release_year")},
    **{name: (f"compute_units/{name}", 1) for name in ("cuda_cores", "tensor_cores")},
}  # fmt: skip


def test_figures_and_export_verdicts_are_those_handed_over() -> None:
    """Ours may say 'open' where theirs says no without knowing the die; never the opposite."""
    if not HANDED_OVER.is_file():
        pytest.skip("no ../shared/data/catalogue.yaml beside this checkout")
    document = yaml.safe_load(HANDED_OVER.read_text(encoding="utf-8"))
    assert [row.id for row in load_chips()] == [row["id"] for row in document["devices"]]
    systems = {row.id for row in load_catalogue().systems}
    assert systems == {row["id"] for row in document["systems"]}
    for theirs in document["devices"]:
        row = chip(theirs["id"])
        ours = chip_fields(row)
        told = {"torch_devices_per_card": 1, **theirs} | {
            f"{block}/{name}": figure
            for block, figures in theirs.items()
            if isinstance(figures, dict)
            for name, figure in figures.items()
        }
        units = {"compute_units": (f"compute_units/{ours.get('compute_unit_kind')}", 1)}
        for name, (place, scale) in (THEIRS | units).items():
            # The handed-over figures are rounded to three digits.
            expected = (told.get(place) or 0) * scale * CORRECTED.get((row.id, name), 1.0)
            assert (ours.get(name) or 0) == pytest.approx(expected, rel=2e-3), (row.id, name)
        assert row.confidence == theirs["confidence"], row.id
        assert str(ours.get("named_in", "")).split() == (theirs.get("named_in") or [])
        if row.id == "cpu-2s-xeon-8480":  # its rates are corrected, see above
            continue
        computed = theirs["export_control_computed"]
        for name, within in (("tpp", {"rel": 0.005, "abs": 0.5}),
                             ("performance_density", {"rel": 0, "abs": 0.011})):  # fmt: skip
            figure = computed[name]
            same = None if figure is None else pytest.approx(figure, **within)
            assert ours[name] == same, (row.id, name)
        for rule, verdict in export_status(row).items():
            caught = computed[f"{rule.replace('-', '_')}_caught"]
            if verdict is None:
                assert ours["performance_density"] is None and not caught, (row.id, rule)
            else:
                assert verdict == caught, (row.id, rule)
