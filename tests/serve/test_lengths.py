"""Lengths of prompts and answers: what may be asked for, and that draws follow it."""

import math
from statistics import median, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.errors import UsageError
from bench.serve.lengths import OUTPUT, PROMPT, Lengths, lengths_of, parse_lengths

SEEDS = st.text(max_size=8)
MEDIANS = st.integers(1, 100_000)


@given(median=MEDIANS, sigma=st.floats(0.0, 2.0), seed=SEEDS, num=st.integers(0, 50))
def test_lengths_are_at_least_one_and_longer_draws_begin_alike(
    median: int, sigma: float, seed: str, num: int
) -> None:
    lengths = parse_lengths(f"lognormal:{median}:{sigma:.3f}", what="--prompt-tokens")
    drawn = lengths.draw(num, seed=seed)
    assert len(drawn) == num and all(one >= 1 for one in drawn)
    assert lengths.draw(num + 7, seed=seed)[:num] == drawn


@given(tokens=MEDIANS, seed=SEEDS)
def test_fixed_lengths_are_all_alike(tokens: int, seed: str) -> None:
    lengths = parse_lengths(f" Fixed:{tokens} ", what="--output-tokens")
    assert lengths.draw(5, seed=seed) == [tokens] * 5
    assert parse_lengths(lengths.label, what="--output-tokens") == lengths


@given(text=st.text(max_size=30))
def test_anything_else_is_one_clear_line(text: str) -> None:
    try:
        assert parse_lengths(text, what="--prompt-tokens").label == text.strip().lower()
    except UsageError as error:
        assert str(error).startswith("--prompt-tokens") and "\n" not in str(error)


@pytest.mark.parametrize(
    "text", ["", "1024", "fixed:0", "fixed:1.5", "lognormal:64", "lognormal:64:3", "trace:x.jsonl"]
)
def test_what_is_no_law_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--output-tokens"):
        parse_lengths(text, what="--output-tokens")


def test_a_lognormal_has_its_median_and_its_sigma() -> None:
    drawn = PROMPT.draw(20_000, seed="0")
    assert median(drawn) == pytest.approx(1024, rel=0.02)
    assert stdev(math.log(one) for one in drawn) == pytest.approx(0.5, rel=0.03)


def test_the_defaults_are_what_their_labels_name() -> None:
    for lengths in (PROMPT, OUTPUT):
        assert parse_lengths(lengths.label, what="it") == lengths


def test_requests_keep_their_own_lengths_unless_a_law_is_asked_for() -> None:
    def found(asked: str | None, own: list[int | None]) -> list[int]:
        lengths = None if asked is None else parse_lengths(asked, what="--prompt-tokens")
        nine = Lengths(label="fixed:9", median=9)
        return lengths_of(lengths, own, what="--prompt-tokens", otherwise=nine, seed="0")

    assert found(None, [5, None, 7]) == [5, 9, 7]
    assert found("trace:", [5, 6]) == [5, 6]
    assert found("fixed:3", [5, None]) == [3, 3]
    with pytest.raises(UsageError, match="--arrivals trace:FILE"):
        found("trace:", [5, None])
