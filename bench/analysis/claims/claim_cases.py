"""What a test of a claim rests on, and what it computes: figures under stated circumstances.

A test reads nothing but its `ClaimFacts`, so that a changed row or figure changes what it says, and
never knows which claim it serves. Whether the claim is true in a case follows from bounds, in one
place. No verdict is stored anywhere.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from bench.analysis.projection.roofs import Estimate
from bench.analysis.trials.configuration import TERMS, Trials, gather, is_served
from bench.core.nouns import Chip
from bench.hardware.chips import load_chips
from bench.hardware.loader import Declared, Number
from bench.hardware.published import Published, load_published
from bench.results.schema import USABLE, Row

Basis = Literal["measured", "emulated", "published", "vendor", "specification", "modelled",
                "projected", "arithmetic"]  # fmt: skip
"""Where a case's figure comes from. modelled: a formula over catalogue and link model; vendor: said
by whom it is to sell, without a check by others."""
Unit = Literal["ratio", "share", "s", "days", "minutes", "W", "usd", "flops_per_s", "chips"]
Factors = Mapping[str, str | float]


def span_of(mid: float, *ends: float) -> Estimate:
    """A middle with its ends, in any order; without ends it is exact."""
    return Estimate(low=min((mid, *ends)), mid=mid, high=max((mid, *ends)))


_KEYS = {"factors": "circumstances", "value": "figure", "counts": "has_a_say"}


class ClaimCase(Struct, frozen=True, kw_only=True, rename=_KEYS):
    """One figure under stated circumstances, and whether the claim is true there."""

    factors: Factors
    """The circumstances, by name; conditions are made of them."""
    holds: bool | None = None
    """None: the interval lies on both sides of a bound, or something is missing."""
    value: Estimate | None = None
    unit: str | None = None
    how: str
    """What was computed from what, with the figures."""
    basis: Basis
    source: str
    """Address, row ids, or what in the harness the figure rests on."""
    counts: bool = True
    """False: shown beside, without a say in the verdict."""


class Bounds(Declared, frozen=True, kw_only=True):
    """Where a figure makes a claim true: from low to high, both included; None: no bound."""

    low: Number | None = None
    high: Number | None = None
    unit: Unit | None = None

    def holds(self, span: Estimate) -> bool | None:
        """True when the whole interval lies inside, False when all of it lies outside."""
        low = -float("inf") if self.low is None else self.low
        high = float("inf") if self.high is None else self.high
        if span.high < low or span.low > high:
            return False
        return True if span.low >= low and span.high <= high else None

    @property
    def words(self) -> str:
        """`0.1 to 0.3`, `at least 7`, `at most 30`."""
        if self.low is not None and self.high is not None:
            return f"{self.low:g} to {self.high:g}"
        if self.low is not None:
            return f"at least {self.low:g}"
        return "any" if self.high is None else f"at most {self.high:g}"


@dataclass(frozen=True, kw_only=True)
class PhaseWork:
    """What one phase of a workload computes, by the workload's own formulas."""

    net: str
    domain: str
    phase: str
    is_training: bool
    items_unit: str
    elements_unit: str
    elements_per_item: float | None
    flops_per_item: float | None


WorkOf = Callable[[str, str | None, Mapping[str, str]], Sequence[PhaseWork]]
"""Phases at a size, of one workload with settings or of all that ship."""


def _no_formulas(size: str, workload: str | None, settings: Mapping[str, str]) -> list[PhaseWork]:
    return []


@dataclass(frozen=True, kw_only=True)
class ClaimFacts:
    """Everything that verdicts are computed from."""

    chips: Mapping[str, Chip]
    published: Published
    configurations: Sequence[Trials]
    """Those with a usable trial."""
    work_of: WorkOf


def make_facts(
    rows: Sequence[Row],
    *,
    chips: Sequence[Chip] | None = None,
    published: Published | None = None,
    work_of: WorkOf = _no_formulas,
) -> ClaimFacts:
    """Gather facts; catalogue and published figures are those that ship unless given.

    Formulas are the workloads', which only a caller above can load.
    """
    return ClaimFacts(
        chips={chip.id: chip for chip in (load_chips() if chips is None else chips)},
        published=load_published() if published is None else published,
        configurations=gather(
            (row for row in rows if row["status"] in USABLE and not is_served(row)), by=TERMS
        ),
        work_of=work_of,
    )


class ClaimTest(Bounds, frozen=True, kw_only=True, tag_field="by"):
    """One test of the ledger, by name, with what it needs.

    Its own bounds and unit, where it has some, stand in place of the claim's.
    """

    def _cases(self, facts: ClaimFacts) -> Iterator[ClaimCase | str]:
        """Figures by circumstance; a text is what would have to be measured or known."""
        raise NotImplementedError

    def judged_cases(self, facts: ClaimFacts, *, bounds: Bounds) -> list[ClaimCase | str]:
        """All cases, each figure held against the bounds."""
        asked = bounds if self.low is None and self.high is None else self
        words = "" if asked.words == "any" else f"; asked {asked.words}"
        return [
            one if isinstance(one, str) or one.value is None else
            replace(one, holds=asked.holds(one.value), how=one.how + words,
                    unit=one.unit or self.unit or bounds.unit)
            for one in self._cases(facts)
        ]  # fmt: skip
