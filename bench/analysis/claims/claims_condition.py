"""Under which circumstances a claim holds: the shortest condition that tells yes from no.

Cases carry factors (ranks, width, net, overlap). Conditions are conjunctions of at most three
comparisons that no case contradicts; the one that covers most goes first, until every yes is
covered. A case too close to tell is not covered on purpose. What is found describes the cases that
were computed, and nothing between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

Factors = Mapping[str, str | float]
MOST_TERMS = 3
_MOST_RULES = 6


@dataclass(frozen=True)
class _Atom:
    """One comparison of a factor with a value."""

    factor: str
    sign: str
    value: str | float

    def __str__(self) -> str:
        return f"{self.factor} {self.sign} {_word(self.value)}"

    def is_true(self, factors: Factors) -> bool:
        known = factors.get(self.factor)
        if known is None or isinstance(known, str) != isinstance(self.value, str):
            return False
        if self.sign == "=":
            return known == self.value
        if self.sign == "is not":
            return known != self.value
        assert not isinstance(known, str) and not isinstance(self.value, str)
        return known >= self.value if self.sign == ">=" else known <= self.value


def _atoms(cases: Sequence[Factors]) -> list[_Atom]:
    found: list[_Atom] = []
    for name in dict.fromkeys(name for factors in cases for name in factors):
        values = dict.fromkeys(factors[name] for factors in cases if name in factors)
        if len(values) < 2 and all(name in factors for factors in cases):
            continue
        numbers = sorted(value for value in values if not isinstance(value, str))
        texts = [value for value in values if isinstance(value, str)]
        found += [_Atom(name, "=", value) for value in values]
        found += [_Atom(name, ">=", number) for number in numbers[1:-1]]
        found += [_Atom(name, "<=", number) for number in numbers[1:-1]]
        if len(texts) > 2:
            found += [_Atom(name, "is not", text) for text in texts]
    return found


def _mask(atom: _Atom, cases: Sequence[Factors]) -> int:
    return sum(1 << index for index, factors in enumerate(cases) if atom.is_true(factors))


def _rules(cases: Sequence[Factors], *, yes: int, no: int) -> list[tuple[tuple[_Atom, ...], int]]:
    """Conjunctions that hold in some yes and in nothing else, with what they cover."""
    atoms = [(atom, _mask(atom, cases)) for atom in _atoms(cases)]
    valid: list[tuple[tuple[_Atom, ...], int]] = []
    for length in range(1, MOST_TERMS + 1):
        for chosen in combinations(atoms, length):
            names = {(atom.factor, atom.sign) for atom, _ in chosen}
            if len(names) < length:
                continue
            mask = -1
            for _, one in chosen:
                mask &= one
            if mask & yes and not mask & no:
                valid.append((tuple(atom for atom, _ in chosen), mask & yes))
    return valid


def _cover(rules: list[tuple[tuple[_Atom, ...], int]], *, yes: int) -> list[tuple[_Atom, ...]]:
    """Choose rules greedily: most new cases, then fewest terms, then the plainest signs."""
    left, chosen = yes, []
    while left:
        best = max(
            rules,
            key=lambda rule: ((rule[1] & left).bit_count(), -len(rule[0]), _plainness(rule[0])),
            default=None,
        )
        if best is None or not best[1] & left:
            break
        chosen.append(best[0])
        left &= ~best[1]
    return chosen


def _plainness(atoms: Sequence[_Atom]) -> int:
    return sum(atom.sign == "=" for atom in atoms)


def _merged(rules: list[tuple[_Atom, ...]]) -> list[str]:
    """Join rules that differ in the value of their only comparison: `net = SSD or GNMT`."""
    together: dict[tuple[str, str, str], list[_Atom]] = {}
    for rule in rules:
        ordered = sorted(rule, key=lambda atom: atom.sign != "=")
        head, rest = ordered[0], ordered[1:]
        words = " and ".join(map(str, rest))
        key = (head.factor if head.sign == "=" else str(head), head.sign, words)
        together.setdefault(key, []).append(head)
    found = []
    for key, heads in together.items():
        first = str(heads[0])
        values = [_word(head.value) for head in heads]
        text = first if len(heads) == 1 else f"{key[0]} = {' or '.join(values)}"
        found.append(f"{text} and {key[2]}" if key[2] else text)
    return found


def number_words(value: float) -> str:
    """Print a number of any size: `4096`, `13 bn`, `31 M`, `0.25`."""
    for size, word in ((1e12, "tn"), (1e9, "bn"), (1e6, "M")):
        if abs(value) >= size:
            return f"{value / size:g} {word}"
    return f"{value:.12g}"


def _word(value: str | float) -> str:
    return value if isinstance(value, str) else number_words(value)


Told = tuple[Factors, bool | None]


def condition_of(cases: Sequence[Told]) -> str:
    """Say when the claim holds: `(ranks = 8 and hidden size >= 8192) or net = llm`.

    Cases that vary different things are told apart: each kind has its own condition, under what all
    of its cases have in common.
    """
    kinds: dict[frozenset[str], list[Told]] = {}
    for case in cases:
        kinds.setdefault(frozenset(case[0]), []).append(case)
    texts, common = [], _common(cases)
    for members in kinds.values():
        if any(holds is True for _, holds in members):
            heading = _heading(members, but=common) if len(kinds) > 1 else ""
            condition = _condition(members)
            texts.append(": ".join(part for part in (heading, condition) if part))
    return "; or ".join(texts)


def _common(cases: Sequence[Told]) -> frozenset[str]:
    """Circumstances that all cases share."""
    first = cases[0][0] if cases else {}
    return frozenset(
        name for name in first if len({str(factors.get(name)) for factors, _ in cases}) == 1
    )


def _heading(members: Sequence[Told], *, but: frozenset[str]) -> str:
    """Circumstances that all cases of one kind share, and other kinds do not."""
    first = members[0][0]
    return ", ".join(f"{name} {_word(first[name])}" for name in first
                     if name in _common(members) - but)  # fmt: skip


def _condition(cases: Sequence[Told]) -> str:
    """Condition within one kind; '' where every case holds."""
    factors = [case[0] for case in cases]
    yes = sum(1 << index for index, (_, holds) in enumerate(cases) if holds is True)
    no = ((1 << len(cases)) - 1) & ~yes
    if not no:
        return ""
    chosen = _cover(_rules(factors, yes=yes, no=no), yes=yes)
    texts = _merged(chosen)
    if not texts:
        return f"{yes.bit_count()} of {len(cases)} cases, which nothing that was varied tells apart"
    if len(texts) > 1:
        # Parentheses, because other kinds of cases follow after a semicolon.
        texts = [f"({text})" if " and " in text or " or " in text else text for text in texts]
    more = f" or {len(texts) - _MOST_RULES} further" if len(texts) > _MOST_RULES else ""
    return " or ".join(texts[:_MOST_RULES]) + more
