"""From the cases of a claim to its verdict, and to the reason in words.

All cases say yes: it holds. Some do: it holds when the circumstances are theirs. None does: it is
refuted where one case contradicts what is said of every case, or all contradict what is said of
some. What no experiment can settle is out of scope; its sums may still be checked.

A condition is the shortest that separates yes from no. Cases carry factors (ranks, width, net,
overlap); conditions are conjunctions of at most three comparisons that no case contradicts; the one
that covers most goes first, until every yes is covered. A case too close to tell is not covered on
purpose. What is found describes the cases that were computed, and nothing between them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, NamedTuple

from msgspec import to_builtins

from bench.analysis.claims.claim_cases import ClaimCase, ClaimFacts, Factors, WorkOf, make_facts
from bench.analysis.claims.ledger import Claim
from bench.analysis.projection.roofs import Estimate
from bench.analysis.trials.configuration import grouped
from bench.results.schema import Row

Word = Literal["HOLDS", "HOLDS WHEN", "REFUTED", "UNDECIDED", "OUT OF SCOPE"]
WORDS: tuple[Word, ...] = ("HOLDS", "HOLDS WHEN", "REFUTED", "UNDECIDED", "OUT OF SCOPE")
DECIDED = WORDS[:3]
MOST_TERMS = 3
_MOST_RULES = 6
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
        sides = [(c.basis, c.holds is True) for c in self.counted]
        yes, no = (
            ", ".join(dict.fromkeys(basis for basis, it in sides if it == side))
            for side in (True, False)
        )
        is_mixed = self.word == "HOLDS WHEN" and yes != no
        return f"yes: {yes}; no: {no}" if is_mixed else ", ".join(self.bases)

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


def judge_all(
    claims: Sequence[Claim], rows: Sequence[Row], *, work_of: WorkOf
) -> list[ClaimVerdict]:
    """Verdicts from these rows, formulas, the catalogue and the published figures that ship."""
    facts = make_facts(rows, work_of=work_of)
    return [judge(claim, facts) for claim in claims]


def claims_document(verdicts: Sequence[ClaimVerdict]) -> dict[str, object]:
    """Return what `bench claims --json` prints: every claim with every case, unrounded."""
    testable = [verdict for verdict in verdicts if verdict.claim.number is not None]
    return {
        "kind": "claims",
        "num_testable": len(testable),
        "num_decided": sum(verdict.is_decided for verdict in testable),
        "verdicts": dict(Counter(verdict.word for verdict in testable)),
        "claims": [_document(one) for one in verdicts],
    }


def _document(one: ClaimVerdict) -> dict[str, object]:
    claim: dict[str, object] = to_builtins(one.claim)
    del claim["tests"]
    found = {"verdict": one.word, "reason": one.reason, "rests_on": one.bases}
    return claim | found | {"missing": one.missing, "cases": to_builtins(one.cases)}


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


def span_words(span: Estimate, unit: str | None) -> str:
    """Print a figure with its interval: `0.15 (0.13 to 0.17) x`; shares in per cent."""
    factor, tail = (100.0, " %") if unit == "share" else (1.0, f" {unit}" if unit else "")
    low, mid, high = (_digits(end * factor) for end in (span.low, span.mid, span.high))
    interval = "" if low == mid == high else f" ({low} to {high})"
    return f"{mid}{interval}{tail}".replace(" ratio", "x" if not interval else " x")


def _digits(value: float) -> str:
    return value_words(float(f"{value:.3g}")) if abs(value) >= 1e6 else f"{value:.3g}"


class _Comparison(NamedTuple):
    factor: str
    sign: str
    value: str | float

    def __str__(self) -> str:
        return f"{self.factor} {self.sign} {value_words(self.value)}"

    def is_true(self, factors: Factors) -> bool:
        known = factors.get(self.factor)
        if known is None or isinstance(known, str) != isinstance(self.value, str):
            return False
        if self.sign in ("=", "is not"):
            return (known == self.value) == (self.sign == "=")
        assert not isinstance(known, str) and not isinstance(self.value, str)
        return known >= self.value if self.sign == ">=" else known <= self.value


_Rule = tuple[_Comparison, ...]


def _comparisons(cases: Sequence[Factors]) -> list[_Comparison]:
    found, common = [], common_names(cases)
    for name in dict.fromkeys(name for one in cases for name in one if name not in common):
        values = dict.fromkeys(factors[name] for factors in cases if name in factors)
        numbers = sorted(value for value in values if not isinstance(value, str))
        texts = [value for value in values if isinstance(value, str)]
        found += [_Comparison(name, "=", value) for value in values]
        found += [_Comparison(name, sign, one) for sign in (">=", "<=") for one in numbers[1:-1]]
        if len(texts) > 2:
            found += [_Comparison(name, "is not", text) for text in texts]
    return found


def _rules(cases: Sequence[Factors], *, yes: frozenset[int]) -> list[tuple[_Rule, set[int]]]:
    """Conjunctions that hold in some yes and in nothing else, with the cases that they cover."""
    true_in = {
        one: {index for index, factors in enumerate(cases) if one.is_true(factors)}
        for one in _comparisons(cases)
    }
    return [
        (rule, covered)
        for length in range(1, MOST_TERMS + 1)
        for rule in combinations(true_in, length)
        if len({(one.factor, one.sign) for one in rule}) == length
        and (covered := set.intersection(*(true_in[one] for one in rule)))
        and covered <= yes
    ]


def _cover(rules: list[tuple[_Rule, set[int]]], *, yes: frozenset[int]) -> list[_Rule]:
    """Choose rules greedily: most new cases, then fewest terms, then the plainest signs."""

    def rank(found: tuple[_Rule, set[int]]) -> tuple[int, int, int]:
        rule, covered = found
        return len(covered & yes), -len(rule), sum(one.sign == "=" for one in rule)

    chosen = []
    while rules and (best := max(rules, key=rank))[1] & yes:
        chosen.append(best[0])
        yes -= best[1]
    return chosen


def _merged(rules: list[_Rule]) -> list[str]:
    """Join rules that differ in the value of their only comparison: `net = SSD or GNMT`."""
    together: dict[tuple[str, str], list[str]] = {}
    for rule in rules:
        head, *rest = sorted(rule, key=lambda one: one.sign != "=")
        tail = "".join(f" and {one}" for one in rest)
        start, mark, value = str(head).partition(" = ")
        together.setdefault((start + mark, tail), []).append(value)
    return [start + " or ".join(values) + tail for (start, tail), values in together.items()]


def value_words(value: str | float) -> str:
    """Print a circumstance, a number of any size: `4096`, `13 bn`, `31 M`, `0.25`."""
    if isinstance(value, str):
        return value
    for size, word in ((1e12, "tn"), (1e9, "bn"), (1e6, "M")):
        if abs(value) >= size:
            return f"{value / size:g} {word}"
    return f"{value:.12g}"


def common_names(cases: Sequence[Factors]) -> frozenset[str]:
    """Names of the circumstances that all cases share."""
    first = cases[0] if cases else {}
    return frozenset(
        name for name in first if all(factors.get(name) == first[name] for factors in cases)
    )


def condition_of(cases: Sequence[tuple[Factors, bool | None]]) -> str:
    """Say when the claim holds: `(ranks = 8 and hidden size >= 8192) or net = llm`.

    Cases that vary different things are separated: each kind has its own condition, under what all
    of its cases have in common and other kinds have not.
    """
    kinds = grouped(cases, lambda case: frozenset(case[0]))
    texts, shared = [], common_names([factors for factors, _ in cases])
    for members in kinds.values():
        alike, first = [factors for factors, _ in members], members[0][0]
        names = [n for n in first if n in common_names(alike) - shared] if len(kinds) > 1 else []
        heading = ", ".join(f"{name} {value_words(first[name])}" for name in names)
        if any(holds for _, holds in members):
            condition = _condition(alike, [holds is True for _, holds in members])
            texts.append(": ".join(filter(None, (heading, condition))))
    return "; or ".join(texts)


def _condition(cases: Sequence[Factors], is_true: Sequence[bool]) -> str:
    """Condition within one kind; '' where every case holds."""
    yes = frozenset(index for index, holds in enumerate(is_true) if holds)
    if len(yes) == len(cases):
        return ""
    texts = _merged(_cover(_rules(cases, yes=yes), yes=yes))
    if not texts:
        return f"{len(yes)} of {len(cases)} cases, which nothing that was varied separates"
    if len(texts) > 1:
        # Parentheses, because other kinds of cases follow after a semicolon.
        texts = [f"({text})" if " and " in text or " or " in text else text for text in texts]
    more = f" or {len(texts) - _MOST_RULES} further" if len(texts) > _MOST_RULES else ""
    return " or ".join(texts[:_MOST_RULES]) + more
