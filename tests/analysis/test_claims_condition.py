"""Conditions and bounds: small cases worked out by hand; no condition that a case contradicts."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.analysis.claims.claim import Bounds, Span, exactly
from bench.analysis.claims.claims_condition import _cover, _rules, condition_of, number_words
from bench.analysis.claims.claims_verdict import span_words
from bench.analysis.claims.evaluators.formula_claims import compute, names_in
from bench.core.errors import DataError


def grid(**factors: list[object]) -> list[dict[str, str | float]]:
    names = list(factors)
    return [dict(zip(names, values, strict=True)) for values in product(*factors.values())]  # type: ignore[arg-type]


def test_one_threshold_is_found() -> None:
    cases = grid(ranks=[2.0, 4.0, 8.0], overlap=["yes", "no"])
    told = condition_of([(case, float(case["ranks"]) >= 4) for case in cases])
    assert told == "ranks >= 4"


def test_a_conjunction_is_found() -> None:
    cases = grid(ranks=[2.0, 4.0, 8.0], overlap=["yes", "no"])
    told = condition_of([(c, c["ranks"] == 8.0 and c["overlap"] == "no") for c in cases])
    assert sorted(told.split(" and ")) == ["overlap = no", "ranks = 8"]


def test_values_of_one_factor_are_joined() -> None:
    cases = grid(net=["a", "b", "c", "d"])
    told = condition_of([(case, case["net"] in ("a", "c")) for case in cases])
    assert told == "net = a or c"


def test_several_rules_stand_in_parentheses() -> None:
    cases = grid(n=[1.0, 2.0, 3.0], net=["a", "b"])
    told = condition_of([(c, (c["n"] == 3.0 and c["net"] == "a") or c["n"] == 1.0) for c in cases])
    assert told == "n = 1 or (net = a and n = 3)" or told == "n = 1 or (n = 3 and net = a)"


def test_a_case_too_close_to_tell_is_not_covered() -> None:
    cases = grid(ranks=[2.0, 4.0, 8.0])
    told = condition_of([(cases[0], False), (cases[1], None), (cases[2], True)])
    assert told == "ranks = 8"


def test_kinds_of_cases_have_their_own_conditions() -> None:
    told = condition_of(
        [({"work": "a", "n": 1.0}, True), ({"work": "a", "n": 2.0}, False), ({"net": "x"}, True)]
    )
    assert told == "work a: n = 1; or net x"


def test_what_nothing_tells_apart_is_said() -> None:
    told = condition_of([({"net": "x"}, True), ({"net": "x"}, False)])
    assert "nothing that was varied tells apart" in told


@given(
    st.lists(
        st.tuples(
            st.sampled_from([1.0, 2.0, 3.0]), st.sampled_from(["x", "y", "z"]), st.booleans()
        ),
        min_size=1,
        max_size=12,
        unique_by=lambda case: case[:2],
    )
)
def test_no_rule_is_contradicted_and_every_yes_is_covered(
    cases: list[tuple[float, str, bool]],
) -> None:
    factors = [{"n": number, "net": net} for number, net, _ in cases]
    yes = sum(1 << index for index, case in enumerate(cases) if case[2])
    no = ((1 << len(cases)) - 1) & ~yes
    chosen = _cover(_rules(factors, yes=yes, no=no), yes=yes)
    for index, case in enumerate(cases):
        is_covered = any(all(atom.is_true(factors[index]) for atom in rule) for rule in chosen)
        assert not (is_covered and not case[2])
        if case[2] and no:
            assert is_covered


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        (exactly(0.1), True),
        (exactly(0.3), True),
        (exactly(0.31), False),
        (Span(low=0.05, mid=0.2, high=0.25), None),
        (Span(low=0.31, mid=0.4, high=0.5), False),
        (Span(low=0.12, mid=0.2, high=0.28), True),
    ],
)
def test_an_interval_over_a_bound_is_too_close_to_tell(span: Span, expected: bool | None) -> None:
    assert Bounds(low=0.1, high=0.3).holds(span) is expected


def test_figures_are_printed_with_their_interval() -> None:
    assert span_words(exactly(0.0923), "share") == "9.23 %"
    assert span_words(Span(low=1.0, mid=2.0, high=3.0), "ratio") == "2 (1 to 3) x"
    assert [number_words(n) for n in (8.0, 1.3e10, 3.1e7, 0.25)] == ["8", "13 bn", "31 M", "0.25"]


def test_formulas_compute_by_the_usual_rules() -> None:
    assert compute("(a - b) / a * 100", {"a": 179.13, "b": 162.6}) == pytest.approx(9.228, abs=1e-3)
    assert compute("2 ** 3 + min(a, 4) - ceil(1.2)", {"a": 5.0}) == 10.0
    assert names_in("max(a, b) / c") == {"a", "b", "c"}


@pytest.mark.parametrize(
    "formula",
    [
        "__import__('os')",
        "a.b",
        "[1]",
        "a if a else b",
        "lambda: 1",
        "(",
        "a" * 400,
        "'x'",
        "a < b",
    ],
)
def test_formulas_are_arithmetic_and_nothing_else(formula: str) -> None:
    with pytest.raises(DataError):
        compute(formula, {"a": 1.0, "b": 2.0})


def test_a_division_by_zero_names_the_formula() -> None:
    with pytest.raises(DataError, match="a / b"):
        compute("a / b", {"a": 1.0, "b": 0.0})
