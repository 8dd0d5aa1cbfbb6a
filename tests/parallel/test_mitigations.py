import pytest

from bench.core.errors import UsageError
from bench.parallel.mitigations import COMBINED, NAMES, Mitigation, parse_mitigation


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("", Mitigation()),
        ("fp16", Mitigation(half="fp16")),
        ("BF16", Mitigation(half="bf16")),
        ("powersgd-4", Mitigation(powersgd_rank=4)),
        ("powersgd-1+fp16", Mitigation(powersgd_rank=1, half="fp16")),
        ("bf16 + powersgd-1", Mitigation(powersgd_rank=1, half="bf16")),
        ("postlocalsgd-8", Mitigation(averaging="postlocalsgd", period_steps=8)),
        ("diloco-500+bf16", Mitigation(averaging="diloco", period_steps=500, half="bf16")),
    ],
)
def test_names_are_read(text: str, meaning: Mitigation) -> None:
    assert parse_mitigation(text) == meaning


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("powersgd", "powersgd-4"),
        ("powersgd-0", "from 1"),
        ("diloco-1", "from 2"),
        ("diloco-x", "whole number"),
        ("diloco-²", "whole number"),
        ("dilocco-4", "did you mean 'diloco-H'"),
        ("fp16+bf16", "do not go together"),
        ("fp16+fp16", "do not go together"),
        ("powersgd-2+diloco-4", "do not go together"),
        ("powersgd-2+fp16+diloco-4", "do not go together"),
        ("postlocalsgd-4+fp16", "round"),
        ("fp16+", "not one of"),
        ("powersgd-99999999999", "to 1000000"),
    ],
)
def test_a_wrong_name_is_one_clear_line(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_mitigation(text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_line_of_the_table_can_be_asked_for() -> None:
    for name in [*NAMES, *COMBINED]:
        filled = name.replace("-R", "-4").replace("-H", "-8")
        assert not parse_mitigation(filled).is_none
