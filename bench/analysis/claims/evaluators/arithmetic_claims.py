"""Arithmetic over given figures, catalogue figures and published ones, maybe over a grid.

`over` varies figures; each combination is a case and its values are circumstances, so that the
condition of a verdict is found and not written. `needs` states what nobody can compute here.

A formula, `(before - after) / before`, is parsed as Python and walked by hand: numbers, names and
+ - * /. Nothing is evaluated as code.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from itertools import product

from bench.analysis.claims.claim_cases import Basis, ClaimCase, ClaimFacts, ClaimTest, span_of
from bench.core.errors import DataError
from bench.core.units import format_number
from bench.hardware.loader import Declared, Number, Text
from bench.hardware.query import chip_fields

_WEAKNESS: tuple[Basis, ...] = ("arithmetic", "specification", "published", "vendor")
"""A sum is as weak as the weakest of what goes into it."""
_SIGNS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


class Needs(ClaimTest, tag="needs", frozen=True, kw_only=True):
    """No case, only what is missing, in words: `what`."""

    what: Text

    def _cases(self, facts: ClaimFacts) -> Iterator[ClaimCase | str]:
        yield self.what


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

    def _cases(self, facts: ClaimFacts) -> Iterator[ClaimCase | str]:
        known, sources = dict(self.given), []
        basis: Basis = "arithmetic"
        for name, figure in self.figures.items():
            found = figure.look_up(facts)
            if found is None:
                yield f"{figure.field} of {figure.chip} is not known"
                return
            known[name] = found[0]
            sources.append(found[1])
            basis = max(basis, found[2], key=_WEAKNESS.index)
        names = names_in(self.formula)
        for values in product(*self.over.values()):
            varied = dict(zip(self.over, values, strict=True))
            used = ", ".join(
                f"{name} {value:.6g}" if abs(value) < 1e6 else f"{name} {format_number(value)}"
                for name, value in (known | varied).items()
                if name in names
            )
            yield ClaimCase(
                value=span_of(compute(self.formula, known | varied)),
                factors=self.factors | {name.replace("_", " "): varied[name] for name in varied},
                how=f"{self.formula} with {used}" if used else self.formula,
                basis=basis,
                source="; ".join(dict.fromkeys(sources)) or self.source,
            )


def names_in(formula: str) -> set[str]:
    """Names of figures that a formula uses."""
    return {node.id for node in ast.walk(_parsed(formula)) if isinstance(node, ast.Name)}


def compute(formula: str, figures: Mapping[str, float]) -> float:
    """Value of a formula; `DataError` for one that cannot be computed."""
    try:
        return _value(_parsed(formula), figures)
    except (ArithmeticError, KeyError, RecursionError) as error:
        raise DataError(f"formula {formula!r} cannot be computed: {error!r}") from None


def _parsed(formula: str) -> ast.expr:
    try:
        return ast.parse(formula, mode="eval").body
    except (SyntaxError, ValueError, RecursionError):
        raise DataError(f"formula {formula!r} cannot be read") from None


def _value(node: ast.expr, figures: Mapping[str, float]) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return float(node.value)
    if isinstance(node, ast.Name):
        return figures[node.id]
    if isinstance(node, ast.BinOp) and type(node.op) in _SIGNS:
        return _SIGNS[type(node.op)](_value(node.left, figures), _value(node.right, figures))
    raise DataError("formulas have numbers, names and + - * / only")
