"""Conditions, bounds and formulas: small cases worked out by hand."""

from collections.abc import Callable
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.analysis.claims.claim_cases import Bounds, Factors, Span, span_of
from bench.analysis.claims.claims_condition import _cover, _rules, condition_of, value_words
from bench.analysis.claims.claims_verdict import span_words
from bench.analysis.claims.evaluators.arithmetic_claims import compute, names_in
from bench.core.errors import DataError

RANKS = (2.0, 4.0, 8.0)


def grid(**factors: tuple[str | float, ...]) -> list[Factors]:
    return [dict(zip(factors, values, strict=True)) for values in product(*factors.values())]


@pytest.mark.parametrize(
    ("cases", "is_true", "expected"),
    [
        (grid(ranks=RANKS, overlap=("yes", "no")), lambda c: c["ranks"] >= 4, "ranks >= 4"),
        (
            grid(ranks=RANKS, overlap=("yes", "no")),
            lambda c: c["ranks"] == 8.0 and c["overlap"] == "no",
            "ranks = 8 and overlap = no",
        ),
        (grid(net=("a", "b", "c", "d")), lambda c: c["net"] in ("a", "c"), "net = a or c"),
        (
            grid(n=(1.0, 2.0, 3.0), net=("a", "b")),
            lambda c: c["n"] == 1.0 or (c["n"] == 3.0 and c["net"] == "a"),
            "n = 1 or (n = 3 and net = a)",
        ),
        # A case too close to tell is not covered.
        (grid(ranks=RANKS), lambda c: {2: False, 4: None, 8: True}[c["ranks"]], "ranks = 8"),
        # Kinds of cases have their own conditions.
        (
            [*grid(work=("a",), n=(1.0, 2.0)), *grid(net=("x",))],
            lambda c: c.get("n") != 2.0,
            "work a: n = 1; or net x",
        ),
    ],
)
def test_the_shortest_condition_is_found(
    cases: list[Factors], is_true: Callable[[Factors], bool | None], expected: str
) -> None:
    assert condition_of([(case, is_true(case)) for case in cases]) == expected


def test_what_nothing_tells_apart_is_said() -> None:
    found = condition_of([({"net": "x"}, True), ({"net": "x"}, False)])
    assert found == "1 of 2 cases, which nothing that was varied separates"


@given(
    st.dictionaries(
        st.tuples(st.sampled_from([1.0, 2.0, 3.0]), st.sampled_from("xyz")),
        st.booleans(),
        min_size=1,
    )
)
def test_no_rule_is_contradicted_and_every_yes_is_covered(
    cases: dict[tuple[float, str], bool],
) -> None:
    factors: list[Factors] = [{"n": number, "net": net} for number, net in cases]
    yes = frozenset(index for index, holds in enumerate(cases.values()) if holds)
    chosen = _cover(_rules(factors, yes=yes), yes=yes)
    for one, holds in zip(factors, cases.values(), strict=True):
        is_covered = any(all(atom.is_true(one) for atom in rule) for rule in chosen)
        assert is_covered == holds or len(yes) == len(cases)


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        (span_of(0.1), True),
        (span_of(0.3), True),
        (span_of(0.31), False),
        (span_of(0.2, 0.05, 0.25), None),
        (span_of(0.4, 0.31, 0.5), False),
        (span_of(0.2, 0.12, 0.28), True),
    ],
)
def test_an_interval_over_a_bound_is_too_close_to_tell(span: Span, expected: bool | None) -> None:
    assert Bounds(low=0.1, high=0.3).holds(span) is expected


def test_figures_are_printed_with_their_interval() -> None:
    assert span_words(span_of(0.0923), "share") == "9.23 %"
    assert span_words(span_of(2.0, 1.0, 3.0), "ratio") == "2 (1 to 3) x"
    assert [value_words(n) for n in (8.0, 1.3e10, 3.1e7, 0.25)] == ["8", "13 bn", "31 M", "0.25"]


def test_formulas_compute_by_the_usual_rules() -> None:
    assert compute("(a - b) / a * 100", {"a": 179.13, "b": 162.6}) == pytest.approx(9.228, abs=1e-3)
    assert compute("2 * 3 + a", {"a": 5.0}) == 11.0
    assert names_in("(a - b) / c") == {"a", "b", "c"}


@pytest.mark.parametrize(
    "formula",
    ["__import__('os')", "a.b", "[1]", "a if a else b", "lambda: 1", "(", "a ** b", "min(a, b)",
     "-a", "'x'", "a < b", "a / zero", "unknown"],
)  # fmt: skip
def test_formulas_are_arithmetic_and_nothing_else(formula: str) -> None:
    with pytest.raises(DataError, match="formula"):
        compute(formula, {"a": 1.0, "b": 2.0, "zero": 0.0})
