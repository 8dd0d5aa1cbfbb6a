"""What `bench list chips` prints, and what its `--where` chooses, leaves open, and refuses."""

import json
from typing import Any

import pytest

from bench.cli import main
from bench.core.errors import UsageError
from bench.hardware.chips import load_chips
from bench.hardware.query import chip_fields, select

Captured = pytest.CaptureFixture[str]


def ids(where: str, sort: str | None = None) -> list[str]:
    return [row.id for row in select(where, sort=sort).chips]


def test_numbers_are_compared_in_base_units_and_texts_whole_and_in_any_case() -> None:
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


def test_rows_that_hang_on_an_unknown_figure_never_match_and_are_counted() -> None:
    unknown = [row.id for row in load_chips() if row.tdp_w is None]
    below, above = select("tdp_w<=350"), select("tdp_w>350")
    assert not set(unknown) & {row.id for row in (*below.chips, *above.chips)}
    assert below.num_left_out == above.num_left_out == len(unknown) > 0
    assert below.note == f"{len(unknown)} chips left out: tdp_w unknown"
    assert select("tdp_w<=350 and id=l4").num_left_out == 0, "it cannot change the answer"


def test_sorting_puts_unknown_last_in_both_directions() -> None:
    upwards, downwards = ids("kind=npu", "tdp_w"), ids("kind=npu", "-tdp_w")
    assert upwards[-1] == downwards[-1] == "ascend-910c"
    chips = select("kind=npu", sort="-tdp_w").chips
    watts = [row.tdp_w for row in chips if row.tdp_w is not None]
    assert watts == sorted(watts, reverse=True)
    with pytest.raises(UsageError, match=r"'price'.*memory_bytes"):
        select("tdp_w<5", sort="price")


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("watts<5", ["field", "'watts'", "tdp_w"]),
        ("tdp_w<", ["not a comparison"]),
        ("tdp_w<=abc", ["tdp_w", "number", "abc"]),
        ("vendor>nvidia", ["vendor", "text"]),
        ("tdp_w<5 or id=l2", ["not a comparison"]),
        ("", ["not a comparison", "such as"]),
        ("tdp_w <> 4", ["not a comparison"]),
        ("(tdp_w<5)", ["not a comparison"]),
    ],
)
def test_a_wrong_condition_is_answered_in_one_line(where: str, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        select(where)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_figure_of_a_row_is_a_field() -> None:
    fields = {name for row in load_chips() for name in chip_fields(row)}
    assert {"memory_bytes", "bf16_per_s", "die_area_mm2", "tpp", "torch_device"} <= fields


@pytest.mark.parametrize(
    ("words", "on_stdout", "on_stderr"),
    [
        ("", ["cpu-2s-xeon-8480 ", "h20-96g "], ["atlas-900-2019"]),
        ("--where tdp_w<=60 --sort id", ["a2 "], ["left out: tdp_w unknown"]),
        ("h20", ["148 TFLOP/s", "296 TOP/s", "4.00 TB/s", "October 2023, 3A090.a",
                 "not restricted", "https://www.smbom.com/news/13059"], []),
        ("atlas-900-2019", ["ascend-910", "1024", "262 PFLOP/s"], []),
    ],
)  # fmt: skip
def test_tables_and_cards_show_all_of_it(
    words: str, on_stdout: list[str], on_stderr: list[str], capsys: Captured
) -> None:
    assert main(["list", "chips", *words.split()]) == 0
    printed = capsys.readouterr()
    assert all(word in printed.out for word in on_stdout)
    assert all(word in printed.err for word in on_stderr)
    assert "…" not in printed.out and "left out" not in printed.out


def test_unknown_is_blank_null_or_absent_and_no_match_ends_with_five(capsys: Captured) -> None:
    main(["list", "chips", "--where", "id=xuantie-910"])
    line = next(x for x in capsys.readouterr().out.splitlines() if "xuantie" in x)
    assert line.split() == ["xuantie-910", "2019", "medium"]

    def document(*words: str) -> Any:
        assert main(["list", "chips", *words, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    assert len(document()["chips"]) == 51
    assert document("dgx-a100")["id"] == "dgx-a100"
    l2 = document("l2")
    assert l2["sources"] and l2["tdp_w"] is None and "clock_hz" not in l2
    assert main(["list", "chips", "--where", "tdp_w<0"]) == 5
    assert "tdp_w<0" in capsys.readouterr().err
