"""From the cases of a claim to its verdict, and to the reason in words.

All cases say yes: it holds. Some do: it holds when the circumstances are theirs. None does: it is
refuted where one case contradicts what is said of every case, or all contradict what is said of
some. What no experiment can settle is out of scope; its sums may still be checked.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.analysis.claims.claim import Case, Claim, Span, Verdict, Word
from bench.analysis.claims.claims_condition import condition_of, number_words
from bench.analysis.claims.claims_facts import ClaimFacts

_MOST_NAMED = 10
"""Cases that a reason lists one by one."""


def judge(claim: Claim, facts: ClaimFacts) -> Verdict:
    """Compute a claim's cases and what they amount to."""
    outcomes = [test(facts) for test in claim.tests]
    cases = tuple(case for outcome in outcomes for case in outcome.cases)
    missing = tuple(dict.fromkeys(text for outcome in outcomes for text in outcome.missing))
    counted = [case for case in cases if case.counts]
    word = _word(claim, counted)
    return Verdict(
        claim=claim,
        word=word,
        reason=_reason(word, counted, missing=missing),
        cases=cases,
        missing=missing,
        bases=tuple(dict.fromkeys(case.basis for case in counted)),
    )


def _word(claim: Claim, counted: Sequence[Case]) -> Word:
    if claim.kind == "out of scope":
        return "OUT OF SCOPE"
    told = {case.holds for case in counted}
    if told == {True}:
        return "HOLDS"
    if True in told:
        return "HOLDS WHEN"
    # What is said of everything falls with one counterexample; what is said of something does not.
    is_contradicted = told == {False} or (False in told and claim.scope == "every")
    return "REFUTED" if is_contradicted else "UNDECIDED"


def _reason(word: Word, counted: Sequence[Case], *, missing: Sequence[str]) -> str:
    if word == "HOLDS WHEN":
        num_unclear = sum(case.holds is None for case in counted)
        tail = f" ({num_unclear} of {len(counted)} cases too close to tell)" if num_unclear else ""
        return condition_of([(case.factors, case.holds) for case in counted]) + tail
    if word == "UNDECIDED":
        unclear = [case for case in counted if case.holds is None]
        if unclear:
            return f"too close to tell: {_range(unclear)}"
        return "; ".join(missing) or "no test bears on it"
    if word == "OUT OF SCOPE":
        return _arithmetic(counted)
    unclear = [case for case in counted if case.holds is None]
    open_words = f"; too close to tell: {_range(unclear)}" if unclear else ""
    return _range([case for case in counted if case.holds is not None]) + open_words


def _arithmetic(counted: Sequence[Case]) -> str:
    if not counted:
        return "nothing that can be run or computed"
    wrong = [case for case in counted if case.holds is False]
    checked = f"{len(counted)} of {len(counted)}" if not wrong else "wrong"
    told = [f"{_label(case)} {_figure(case)}" for case in (wrong or counted)]
    return f"arithmetic {'right' if not wrong else checked}: {', '.join(told)}"


def _range(cases: Sequence[Case]) -> str:
    """Figures of the cases, each by name while they are few, else their ends."""
    shared = _shared(cases)
    few = [f"{_label(case, but=shared)} {_figure(case)}".strip() for case in cases]
    if len(few) <= _MOST_NAMED:
        return ", ".join(few)
    spans = [(case.value.mid, case) for case in cases if case.value is not None]
    if not spans:
        return f"in all {len(cases)} cases"
    ends = [min(spans, key=lambda pair: pair[0])[1], max(spans, key=lambda pair: pair[0])[1]]
    told = " to ".join(f"{_figure(case)} ({_label(case, but=shared)})" for case in ends)
    return f"{len(cases)} cases, {told}"


def _shared(cases: Sequence[Case]) -> frozenset[str]:
    """Circumstances that do not tell the cases apart; none where there is one case."""
    if len(cases) < 2:
        return frozenset()
    first = cases[0].factors
    return frozenset(
        name
        for name in first
        if all(name in case.factors and case.factors[name] == first[name] for case in cases)
    )


def _label(case: Case, *, but: frozenset[str] = frozenset()) -> str:
    return " ".join(
        value if isinstance(value, str) else f"{name} {number_words(value)}"
        for name, value in case.factors.items()
        if name not in but
    )


def _figure(case: Case) -> str:
    return "" if case.value is None else span_words(case.value, case.unit)


def span_words(span: Span, unit: str) -> str:
    """Print a figure with its interval: `0.15 (0.13 to 0.17) x`; shares in per cent."""
    factor, tail = (100.0, " %") if unit == "share" else (1.0, f" {unit}" if unit else "")
    low, mid, high = (_digits(end * factor) for end in (span.low, span.mid, span.high))
    interval = "" if low == mid == high else f" ({low} to {high})"
    return f"{mid}{interval}{tail}".replace(" ratio", "x" if not interval else " x")


def _digits(value: float) -> str:
    """Three digits, large numbers in words."""
    return number_words(float(f"{value:.3g}")) if abs(value) >= 1e6 else f"{value:.3g}"
