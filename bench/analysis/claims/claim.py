"""A published claim as data: what was printed, which tests bear on it, and what those can say.

A claim says what somebody printed, in our words. A test computes cases: one figure under stated
circumstances, and whether the claim is true there. The verdict follows from the cases alone, in
`claims_verdict`; no verdict is stored anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from bench.analysis.claims.claims_facts import ClaimFacts
from bench.hardware.loader import Declared, Number, Text

Kind = Literal["measured", "emulated", "projected", "specification", "arithmetic", "out of scope"]
Word = Literal["HOLDS", "HOLDS WHEN", "REFUTED", "UNDECIDED", "OUT OF SCOPE"]
WORDS: tuple[Word, ...] = ("HOLDS", "HOLDS WHEN", "REFUTED", "UNDECIDED", "OUT OF SCOPE")
DECIDED: tuple[Word, ...] = ("HOLDS", "HOLDS WHEN", "REFUTED")
Basis = Literal["measured", "emulated", "published", "vendor", "specification", "modelled",
                "projected", "arithmetic"]  # fmt: skip
"""Where a case's figure comes from. modelled: a formula over catalogue and link model; vendor: said
by whom it is to sell, without a check by others."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """A figure with the ends of its interval; all equal where it is exact."""

    low: float
    mid: float
    high: float


def exactly(value: float) -> Span:
    """Return a figure without an interval."""
    return Span(low=value, mid=value, high=value)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One figure under stated circumstances, and whether the claim is true there."""

    factors: Mapping[str, str | float]
    """The circumstances, by name; conditions are made of them."""
    holds: bool | None
    """None: the interval lies on both sides of a bound, or something is missing."""
    value: Span | None
    unit: str
    how: str
    """What was computed from what, with the figures."""
    basis: Basis
    source: str
    """Address, row ids, or what in the harness the figure rests on."""
    counts: bool = True
    """False: shown beside, without a say in the verdict."""


@dataclass(frozen=True, kw_only=True)
class ClaimCases:
    """What one test found."""

    cases: tuple[Case, ...]
    missing: tuple[str, ...] = ()
    """What would have to be measured or known, with the command where there is one."""


Evaluate = Callable[[ClaimFacts], ClaimCases]


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Where a figure makes a claim true: from low to high, both included; None: no bound."""

    low: float | None = None
    high: float | None = None

    def holds(self, span: Span) -> bool | None:
        """True when the whole interval lies inside, False when all of it lies outside."""
        below = self.low is not None and span.high < self.low
        above = self.high is not None and span.low > self.high
        if below or above:
            return False
        is_over = self.low is None or span.low >= self.low
        is_under = self.high is None or span.high <= self.high
        return True if is_over and is_under else None

    def case(
        self,
        value: Span,
        *,
        unit: str,
        factors: Mapping[str, str | float],
        how: str,
        basis: Basis,
        source: str,
        counts: bool = True,
    ) -> Case:
        """Return a figure with whether the claim is true there."""
        return Case(factors=factors, holds=self.holds(value), value=value, unit=unit, how=how,
                    basis=basis, source=source, counts=counts)  # fmt: skip

    @property
    def words(self) -> str:
        """`0.1 to 0.3`, `at least 7`, `at most 30`."""
        if self.low is not None and self.high is not None:
            return f"{self.low:g} to {self.high:g}"
        if self.low is not None:
            return f"at least {self.low:g}"
        return "any" if self.high is None else f"at most {self.high:g}"


class ClaimTest(Declared, frozen=True, kw_only=True, tag_field="by"):
    """One test of the ledger, by name, with what it needs; `outcome` computes its cases.

    It never knows which claim it serves. Its own bounds and unit stand in place of the claim's.
    """

    low: Number | None = None
    high: Number | None = None
    unit: Text | None = None

    def outcome(self, facts: ClaimFacts, *, bounds: Bounds, unit: str) -> ClaimCases:
        """Compute the cases; `bounds` say where a figure makes the claim true."""
        raise NotImplementedError

    def of_claim(self, *, bounds: Bounds, unit: str) -> Evaluate:
        """Return what computes the cases from facts alone."""
        own = Bounds(low=self.low, high=self.high)
        chosen = bounds if own == Bounds() else own
        return partial(self.outcome, bounds=chosen, unit=self.unit or unit)


class Article(Declared, frozen=True, kw_only=True):
    """Where claims were printed."""

    id: Text
    publisher: Text
    title: Text
    """What it is about, in our words."""
    date: Text
    found: Text


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim, in our words, and what would test it."""

    id: str
    article: Article
    number: int | None
    """In the list of testable claims; None for those that are only noted."""
    where: str
    """Article and lines."""
    text: str
    kind: Kind
    experiment: str | None
    """Recipe that would test it (`bench list recipes`); None where nothing needs to run."""
    metric: str
    value: float | None
    bounds: Bounds
    unit: str
    scope: Literal["every", "some"]
    """Whether it is said of every case, or of some ('can', 'up to', 'in some tests')."""
    untested: str | None
    """The part of the claim that no test here bears on."""
    tests: tuple[Evaluate, ...]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the cases say of a claim."""

    claim: Claim
    word: Word
    reason: str
    """The condition, the figures, or what is missing."""
    cases: tuple[Case, ...]
    missing: tuple[str, ...]
    bases: tuple[Basis, ...] = field(default=())
    """Kinds of evidence that had a say."""

    @property
    def rests_on(self) -> str:
        """`modelled`, or `yes: vendor; no: published` where cases disagree."""
        if self.word != "HOLDS WHEN":
            return ", ".join(self.bases)
        sides = {
            name: ", ".join(
                dict.fromkeys(
                    case.basis
                    for case in self.cases
                    if case.counts and (case.holds is True) == side
                )
            )
            for name, side in (("yes", True), ("no", False))
        }
        if sides["yes"] == sides["no"]:
            return sides["yes"]
        return "; ".join(f"{name}: {bases}" for name, bases in sides.items())

    @property
    def is_decided(self) -> bool:
        """Whether the claim holds, holds when, or is refuted."""
        return self.word in DECIDED
