"""The language of `--where`: what it chooses, what it leaves open, and what it refuses."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core.errors import BenchError, UsageError
from bench.hardware.chips import load_chips
from bench.hardware.query import Selection, chip_fields, select


def query(where: str, sort: str | None = None) -> Selection:
    return select(load_chips(), where=where, sort=sort)


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
    assert ids("vendor='moore threads'") == ["mtt-s4000"]
    assert ids('id = "l2"') == ["l2"]


def test_and_binds_closer_than_or_and_parentheses_win() -> None:
    loose = ids("id=l2 or id=l4 and tdp_w>1000")
    tight = ids("(id=l2 or id=l4) and tdp_w>1000")
    assert loose == ["l2"] and tight == []


def test_not_turns_a_condition_round() -> None:
    every = {row.id for row in load_chips()}
    assert set(ids("not vendor=nvidia")) == every - set(ids("vendor=nvidia"))


def test_rows_that_hang_on_an_unknown_figure_never_match_and_are_counted() -> None:
    unknown = [row.id for row in load_chips() if row.tdp_w is None]
    below, above = query("tdp_w<=350"), query("not tdp_w<=350")
    assert not set(unknown) & {row.id for row in (*below.chips, *above.chips)}
    assert below.num_left_out == above.num_left_out == len(unknown) > 0
    assert below.note == f"{len(unknown)} chips left out: tdp_w unknown"


def test_an_unknown_figure_that_cannot_change_the_answer_does_not_count() -> None:
    assert query("tdp_w<=350 and id=l4").num_left_out == 0
    assert "l2" in ids("tdp_w<=350 or id=l2")


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
        ("tdp_w", ["too early"]),
        ("tdp_w 5", ["expected one of"]),
        ("tdp_w<", ["too early"]),
        ("tdp_w<=abc", ["tdp_w", "number", "abc"]),
        ("tdp_w<=35O", ["tdp_w", "number"]),
        ("vendor>nvidia", ["vendor", "text"]),
        ("tdp_w<5 tdp_w>3", ["unexpectedly", "and"]),
        ("(tdp_w<5", ["parenthesis"]),
        ("tdp_w<5)", [")"]),
        ("", ["too early"]),
        ("tdp_w <> 4", ["tdp_w"]),
        ("__import__('os')", ["field", "__import__"]),
        ("tdp_w;1", ["tdp_w"]),
        ("(" * 500 + "tdp_w<5" + ")" * 500, ["nested"]),
        ("not " * 400 + "tdp_w<5", ["nested"]),
        ("tdp_w<5 or " * 500 + "tdp_w<5", ["longer"]),
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


pieces = st.sampled_from(
    ["tdp_w", "vendor", "id", "<", "<=", "=", "!=", "(", ")", "and", "or", "not", "5", "1e999", "-"]
)
FIELDS = {name for row in load_chips() for name in chip_fields(row)}


@settings(max_examples=300, deadline=None)
@given(where=st.text(max_size=40) | st.lists(pieces, max_size=12).map(" ".join))
def test_no_condition_raises_anything_but_a_bench_error(where: str) -> None:
    try:
        chosen = query(where)
    except BenchError as error:
        assert str(error)
    else:
        assert len(chosen.chips) + chosen.num_left_out <= len(load_chips())


@settings(max_examples=60, deadline=None)
@given(low=st.floats(0, 1e15), high=st.floats(0, 1e15))
def test_a_condition_and_its_negation_share_no_row(low: float, high: float) -> None:
    where = f"memory_bytes>{low!r} and bf16_per_s<={high!r}"
    one, other = query(where), query(f"not ({where})")
    assert not set(row.id for row in one.chips) & set(row.id for row in other.chips)
    assert len(one.chips) + len(other.chips) + one.num_left_out == len(load_chips())


def test_every_figure_of_a_row_is_a_field() -> None:
    assert {"memory_bytes", "bf16_per_s", "die_area_mm2", "tpp", "torch_device"} <= FIELDS
