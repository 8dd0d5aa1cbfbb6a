"""Under which circumstances a claim holds: the shortest condition that separates yes from no.

Cases carry factors (ranks, width, net, overlap). Conditions are conjunctions of at most three
comparisons that no case contradicts; the one that covers most goes first, until every yes is
covered. A case too close to tell is not covered on purpose. What is found describes the cases that
were computed, and nothing between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

from bench.analysis.claims.claim_cases import Factors

MOST_TERMS = 3
_MOST_RULES = 6


class _Comparison(NamedTuple):
    """A factor against a value."""

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
        start, value = str(head), ""
        if head.sign == "=":
            start, value = f"{head.factor} = ", value_words(head.value)
        together.setdefault((start, tail), []).append(value)
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
    kinds: dict[frozenset[str], list[tuple[Factors, bool]]] = {}
    for factors, holds in cases:
        kinds.setdefault(frozenset(factors), []).append((factors, holds is True))
    texts, shared = [], common_names([factors for factors, _ in cases])
    for members in kinds.values():
        alike, first = [factors for factors, _ in members], members[0][0]
        names = [n for n in first if n in common_names(alike) - shared] if len(kinds) > 1 else []
        heading = ", ".join(f"{name} {value_words(first[name])}" for name in names)
        if any(holds for _, holds in members):
            condition = _condition(alike, [holds for _, holds in members])
            texts.append(": ".join(part for part in (heading, condition) if part))
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
