"""Arithmetic over given figures, catalogue figures and published ones, maybe over a grid.

`over` varies figures; each combination is a case and its values are circumstances, so that the
condition of a verdict is found and not written. `needs` states what nobody can compute here.
"""

from __future__ import annotations

from itertools import product

from bench.analysis.claims.claim import Basis, Bounds, Case, ClaimCases, ClaimTest, exactly
from bench.analysis.claims.claims_facts import ClaimFacts
from bench.analysis.claims.evaluators.formula_claims import compute, names_in
from bench.core.units import format_number
from bench.hardware.loader import Declared, Number, Text
from bench.hardware.query import chip_fields

_WEAKNESS: tuple[Basis, ...] = ("arithmetic", "specification", "published", "vendor")
"""A sum is told by the weakest of what goes into it."""


class Needs(ClaimTest, tag="needs", frozen=True, kw_only=True):
    """Return no case, only what is missing, in words: `what`."""

    what: Text

    def outcome(self, facts: ClaimFacts, *, bounds: Bounds, unit: str) -> ClaimCases:
        """Name it."""
        return ClaimCases(cases=(), missing=(self.what,))


class _Figure(Declared, frozen=True, kw_only=True):
    """A published figure, or a field of a chip."""

    published: Text | None = None
    chip: Text | None = None
    field: Text | None = None

    def __post_init__(self) -> None:
        if (self.published is None) == (self.chip is None or self.field is None):
            raise ValueError("is either published, or a chip and a field")

    def look_up(self, facts: ClaimFacts) -> tuple[float, str, Basis] | None:
        """Value, source and kind of evidence; None where the catalogue does not know it."""
        if self.published is not None:
            for ratio in facts.published.ratios:
                if ratio.id == self.published:
                    return ratio.ratio, f"{ratio.id}: {ratio.source}", ratio.basis
            figure = facts.published.figure(self.published)
            return figure.value, f"{figure.id}: {figure.source}", figure.basis
        assert self.chip is not None and self.field is not None
        value = chip_fields(facts.chips[self.chip]).get(self.field)
        if not isinstance(value, int | float):
            return None
        return float(value), f"catalogue: {self.chip}", "specification"


class Arithmetic(ClaimTest, tag="arithmetic", frozen=True, kw_only=True):
    """Compute `formula` from `given`, `figures` and every combination in `over`."""

    formula: Text
    given: dict[str, Number] = {}
    figures: dict[str, _Figure] = {}
    over: dict[str, tuple[Number, ...]] = {}
    factors: dict[str, Text] = {}
    source: Text = "computed from the figures that the claim gives"

    def __post_init__(self) -> None:
        unknown = names_in(self.formula) - set(self.given) - set(self.figures) - set(self.over)
        if unknown:
            raise ValueError(f"formula: {sorted(unknown)[0]!r} is given nowhere")

    def outcome(self, facts: ClaimFacts, *, bounds: Bounds, unit: str) -> ClaimCases:
        """Compute the cases."""
        known, sources = dict(self.given), []
        basis: Basis = "arithmetic"
        for name, figure in self.figures.items():
            found = figure.look_up(facts)
            if found is None:
                missing = f"{figure.field} of {figure.chip} is not known"
                return ClaimCases(cases=(), missing=(missing,))
            known[name] = found[0]
            sources.append(found[1])
            basis = max(basis, found[2], key=_WEAKNESS.index)
        cases = [
            _case(
                self.formula,
                known | dict(zip(self.over, values, strict=True)),
                bounds=bounds,
                unit=unit,
                factors=self.factors | _words(self.over, values),
                basis=basis,
                source="; ".join(dict.fromkeys(sources)) or self.source,
            )  # fmt: skip
            for values in product(*self.over.values())
        ]
        return ClaimCases(cases=tuple(cases))


def _case(
    formula: str,
    figures: dict[str, float],
    *,
    bounds: Bounds,
    unit: str,
    factors: dict[str, str | float],
    basis: Basis,
    source: str,
) -> Case:
    value = exactly(compute(formula, figures))
    told = ", ".join(f"{n} {_plain(figures[n])}" for n in figures if n in names_in(formula))
    return bounds.case(
        value,
        factors=factors,
        unit=unit,
        how=f"{formula} with {told}, asked {bounds.words}" if told else formula,
        basis=basis,
        source=source,
    )


def _words(grid: dict[str, tuple[float, ...]], values: tuple[float, ...]) -> dict[str, float]:
    return {name.replace("_", " "): value for name, value in zip(grid, values, strict=True)}


def _plain(value: float) -> str:
    return f"{value:.6g}" if abs(value) < 1e6 else format_number(value)
