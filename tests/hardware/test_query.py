"""What `--where` chooses, leaves open, and refuses."""

import pytest

from bench.core.errors import UsageError
from bench.hardware.chips import load_chips
from bench.hardware.query import Selection, chip_fields, select


def query(where: str, sort: str | None = None) -> Selection:
    return select(where, sort=sort)


def ids(where: str, sort: str | None = None) -> list[str]:
    return [row.id for row in query(where, sort).chips]


def test_numbers_are_compared_in_base_units() -> None:
    chosen = query("memory_bytes>=48e9 and tdp_w<=350").chips
    assert chosen and {row.id for row in chosen} >= {"l20", "l40s", "h100-pcie-80g"}
    for row in load_chips():
        fits = row.memory_bytes is not None and row.memory_bytes >= 48e9
        frugal = row.tdp_w is not None and row.tdp_w <= 350
        assert (row in chosen) == (fits and frugal)


def test_texts_are_compared_whole_and_in_any_case() -> None:
    assert ids("vendor=Huawei and id!=ascend-910c")[0] == "ascend-910"
    assert ids("vendor=moore threads") == ["mtt-s4000"]
    assert ids("id = l2") == ["l2"]


def test_rows_that_hang_on_an_unknown_figure_never_match_and_are_counted() -> None:
    unknown = [row.id for row in load_chips() if row.tdp_w is None]
    below, above = query("tdp_w<=350"), query("tdp_w>350")
    assert not set(unknown) & {row.id for row in (*below.chips, *above.chips)}
    assert below.num_left_out == above.num_left_out == len(unknown) > 0
    assert below.note == f"{len(unknown)} chips left out: tdp_w unknown"


def test_an_unknown_figure_that_cannot_change_the_answer_does_not_count() -> None:
    assert query("tdp_w<=350 and id=l4").num_left_out == 0


def test_sorting_puts_unknown_last_in_both_directions() -> None:
    upwards, downwards = ids("kind=npu", "tdp_w"), ids("kind=npu", "-tdp_w")
    assert upwards[-1] == downwards[-1] == "ascend-910c"
    watts = [row.tdp_w for row in query("kind=npu", "-tdp_w").chips if row.tdp_w is not None]
    assert watts == sorted(watts, reverse=True)


def test_export_status_can_be_asked_for() -> None:
    assert "a800-sxm-80g" in ids("caught_oct2022_3a090=no and caught_oct2023_3a090a=yes")


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("watts<5", ["field", "'watts'", "tdp_w"]),
        ("tdp_w", ["'tdp_w' is not a comparison"]),
        ("tdp_w<", ["not a comparison"]),
        ("tdp_w<=abc", ["tdp_w", "number", "abc"]),
        ("vendor>nvidia", ["vendor", "text"]),
        ("tdp_w<5 tdp_w>3", ["not a comparison"]),
        ("tdp_w<5 or id=l2", ["not a comparison"]),
        ("", ["not a comparison", "such as"]),
        ("tdp_w <> 4", ["not a comparison"]),
        ("(tdp_w<5)", ["not a comparison"]),
    ],
)
def test_a_wrong_condition_is_answered_in_one_line(where: str, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        query(where)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_sort_field_lists_the_fields() -> None:
    with pytest.raises(UsageError, match=r"'price'.*memory_bytes"):
        query("tdp_w<5", sort="price")


def test_every_figure_of_a_row_is_a_field() -> None:
    fields = {name for row in load_chips() for name in chip_fields(row)}
    assert {"memory_bytes", "bf16_per_s", "die_area_mm2", "tpp", "torch_device"} <= fields
