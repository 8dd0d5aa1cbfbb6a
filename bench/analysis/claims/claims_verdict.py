"""From the cases of a claim to its verdict, and to the reason in words.

All cases say yes: it holds. Some do: it holds when the circumstances are theirs. None does: it is
refuted where one case contradicts what is said of every case, or all contradict what is said of
some. What no experiment can settle is out of scope; its sums may still be checked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from msgspec import to_builtins

from bench.analysis.claims.claim_cases import ClaimCase, ClaimFacts, Factors, Span, make_facts
from bench.analysis.claims.claims_condition import common_names, condition_of, value_words
from bench.analysis.claims.ledger import Claim
from bench.results.schema import Row

Word = Literal["HOLDS", "HOLDS WHEN", "REFUTED", "UNDECIDED", "OUT OF SCOPE"]
WORDS: tuple[Word, ...] = ("HOLDS", "HOLDS WHEN", "REFUTED", "UNDECIDED", "OUT OF SCOPE")
DECIDED = WORDS[:3]
_MOST_NAMED = 10
"""Cases that a reason lists one by one."""


@dataclass(frozen=True, kw_only=True)
class ClaimVerdict:
    """What the cases say of a claim."""

    claim: Claim
    word: Word
    reason: str
    """The condition, the figures, or what is missing."""
    cases: tuple[ClaimCase, ...]
    missing: tuple[str, ...]

    @property
    def counted(self) -> list[ClaimCase]:
        """Cases with a say."""
        return [case for case in self.cases if case.counts]

    @property
    def bases(self) -> list[str]:
        """Kinds of evidence that had a say."""
        return list(dict.fromkeys(case.basis for case in self.counted))

    @property
    def rests_on(self) -> str:
        """`modelled`, or `yes: vendor; no: published` where cases disagree."""
        if self.word != "HOLDS WHEN":
            return ", ".join(self.bases)
        yes, no = (
            ", ".join(dict.fromkeys(c.basis for c in self.counted if (c.holds is True) == side))
            for side in (True, False)
        )
        return yes if yes == no else f"yes: {yes}; no: {no}"

    @property
    def is_decided(self) -> bool:
        """Whether the claim holds, holds when, or is refuted."""
        return self.word in DECIDED


def judge(claim: Claim, facts: ClaimFacts) -> ClaimVerdict:
    """Compute a claim's cases and what they amount to."""
    found = [one for test in claim.tests for one in test.judged_cases(facts, bounds=claim)]
    cases = tuple(one for one in found if isinstance(one, ClaimCase))
    missing = tuple(dict.fromkeys(one for one in found if isinstance(one, str)))
    counted = [case for case in cases if case.counts]
    word = _word(claim, counted)
    reason = _reason(word, counted, missing=missing)
    return ClaimVerdict(claim=claim, word=word, reason=reason, cases=cases, missing=missing)


def judge_all(claims: Sequence[Claim], rows: Sequence[Row]) -> list[ClaimVerdict]:
    """Verdicts from these rows, the catalogue and the published figures that ship."""
    facts = make_facts(rows)
    return [judge(claim, facts) for claim in claims]


def claims_document(verdicts: Sequence[ClaimVerdict]) -> dict[str, object]:
    """Return what `bench claims --json` prints: every claim with every case, unrounded."""
    testable = [verdict for verdict in verdicts if verdict.claim.number is not None]
    return {
        "kind": "claims",
        "num_testable": len(testable),
        "num_decided": sum(verdict.is_decided for verdict in testable),
        "verdicts": dict(Counter(verdict.word for verdict in testable)),
        "claims": [
            {name: value for name, value in to_builtins(one.claim).items() if name != "tests"}
            | {
                "verdict": one.word,
                "reason": one.reason,
                "rests_on": one.bases,
                "missing": one.missing,
                "cases": to_builtins(one.cases),
            }
            for one in verdicts
        ],
    }


def _word(claim: Claim, counted: Sequence[ClaimCase]) -> Word:
    if claim.kind == "out of scope":
        return "OUT OF SCOPE"
    answers = {case.holds for case in counted}
    if True in answers:
        return "HOLDS" if answers == {True} else "HOLDS WHEN"
    # What is said of everything falls with one counterexample; what is said of something does not.
    is_contradicted = answers == {False} or (False in answers and claim.scope == "every")
    return "REFUTED" if is_contradicted else "UNDECIDED"


def _reason(word: Word, counted: Sequence[ClaimCase], *, missing: Sequence[str]) -> str:
    unclear = [case for case in counted if case.holds is None]
    if word == "HOLDS WHEN":
        tail = f" ({len(unclear)} of {len(counted)} cases too close to tell)" if unclear else ""
        return condition_of([(case.factors, case.holds) for case in counted]) + tail
    if word == "OUT OF SCOPE":
        return _arithmetic(counted)
    clear = [case for case in counted if case.holds is not None] if word != "UNDECIDED" else []
    parts = [_range(clear)] if clear else []
    parts += [f"too close to tell: {_range(unclear)}"] if unclear else []
    return "; ".join(parts or missing) or "no test bears on it"


def _arithmetic(counted: Sequence[ClaimCase]) -> str:
    if not counted:
        return "nothing that can be run or computed"
    wrong = [case for case in counted if case.holds is False]
    figures = ", ".join(f"{_label(case.factors)} {_figure(case)}" for case in wrong or counted)
    return f"arithmetic {'wrong' if wrong else 'right'}: {figures}"


def _range(cases: Sequence[ClaimCase]) -> str:
    """Figures of the cases, each by name while they are few, else their ends."""
    # Circumstances that all share do not tell cases apart.
    shared = common_names([case.factors for case in cases]) if len(cases) > 1 else frozenset()
    if len(cases) <= _MOST_NAMED:
        return ", ".join(f"{_label(c.factors, but=shared)} {_figure(c)}".strip() for c in cases)
    spans = sorted((c.value.mid, i) for i, c in enumerate(cases) if c.value is not None)
    if not spans:
        return f"in all {len(cases)} cases"
    ends = [cases[index] for _, index in (spans[0], spans[-1])]
    words = " to ".join(f"{_figure(case)} ({_label(case.factors, but=shared)})" for case in ends)
    return f"{len(cases)} cases, {words}"


def _label(factors: Factors, *, but: frozenset[str] = frozenset()) -> str:
    return " ".join(
        value if isinstance(value, str) else f"{name} {value_words(value)}"
        for name, value in factors.items()
        if name not in but
    )


def _figure(case: ClaimCase) -> str:
    return "" if case.value is None else span_words(case.value, case.unit)


def span_words(span: Span, unit: str | None) -> str:
    """Print a figure with its interval: `0.15 (0.13 to 0.17) x`; shares in per cent."""
    factor, tail = (100.0, " %") if unit == "share" else (1.0, f" {unit}" if unit else "")
    low, mid, high = (_digits(end * factor) for end in (span.low, span.mid, span.high))
    interval = "" if low == mid == high else f" ({low} to {high})"
    return f"{mid}{interval}{tail}".replace(" ratio", "x" if not interval else " x")


def _digits(value: float) -> str:
    """Three digits, large numbers in words."""
    return value_words(float(f"{value:.3g}")) if abs(value) >= 1e6 else f"{value:.3g}"
