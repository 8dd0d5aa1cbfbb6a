"""What figures that stand somewhere say: ratios, conditions on chips, export rules, arithmetic.

Arithmetic is over given, catalogue and published figures, maybe over a grid: `over` varies figures;
each combination is a case and its values are circumstances, so that the condition of a verdict is
found and not written. `Needs` states what nobody can compute here. A formula, `(before - after) /
before`, is parsed as Python and walked by hand; nothing is evaluated as code.
"""

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Annotated, Literal

from msgspec import Meta, field

from bench.analysis.claims.claim_cases import Basis, ClaimCase, ClaimFacts, ClaimTest, span_of
from bench.core.errors import DataError
from bench.core.nouns import Chip
from bench.core.units import format_number
from bench.hardware.loader import Declared, Number, Text
from bench.hardware.query import (
    chip_fields,
    export_rule,
    export_status,
    parse_conditions,
    performance_density,
    test_conditions,
    total_processing_performance,
)

Pair = Annotated[str, Meta(pattern=r"^\S+ +\S+$")]
"""Two ids."""
_WEAKNESS: tuple[Basis, ...] = ("arithmetic", "specification", "published", "vendor")
"""A sum is as weak as the weakest of what goes into it."""
_SIGNS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


class CatalogueRatio(ClaimTest, tag="catalogue-ratio", frozen=True, kw_only=True):
    """Compare `fields` of chip b with those of chip a for each of `pairs` ('a b').

    `as: drop` takes 1 - b/a. `beside` has pairs that are shown without a say.
    """

    pairs: tuple[Pair, ...]
    beside: tuple[Pair, ...] = ()
    fields: tuple[Text, ...]
    form: Literal["ratio", "drop"] = field(name="as", default="ratio")

    def _cases(self, facts: ClaimFacts) -> Iterator[ClaimCase | str]:
        is_drop = self.form == "drop"
        for pair, name in ((p, n) for p in (*self.pairs, *self.beside) for n in self.fields):
            name_a, name_b = pair.split()
            a, b = (chip_fields(facts.chips[one]).get(name) for one in (name_a, name_b))
            if not isinstance(a, int | float) or not isinstance(b, int | float) or not a:
                yield f"{name} of {name_a} or {name_b} is not public"
                continue
            yield ClaimCase(
                value=span_of(1.0 - b / a if is_drop else b / a),
                factors={"chips": f"{name_b} over {name_a}", "figure": name},
                how=f"{name}: {format_number(b)} over {format_number(a)}"
                + (", 1 minus it" if is_drop else ""),
                basis="specification",
                source=_sources(facts.chips[name_a], facts.chips[name_b]),
                counts=pair in self.pairs,
            )


def _sources(*chips: Chip) -> str:
    return "; ".join(dict.fromkeys(source for chip in chips for source in chip.sources[:2]))


class CatalogueWhere(ClaimTest, tag="catalogue-where", frozen=True, kw_only=True):
    """Ask the comparisons of `where`, as `bench list chips --where` does, of each of `chips`."""

    chips: tuple[Text, ...]
    where: Text

    def __post_init__(self) -> None:
        parse_conditions(self.where)

    def _cases(self, facts: ClaimFacts) -> Iterator[ClaimCase | str]:
        conditions = parse_conditions(self.where)
        for name in self.chips:
            holds, unknown = test_conditions(chip_fields(facts.chips[name]), conditions=conditions)
            if holds is None:
                yield f"{' and '.join(sorted(unknown))} of {name} is not public"
                continue
            yield ClaimCase(
                factors={"chip": name},
                holds=holds,
                how=f"{self.where}: {'yes' if holds else 'no'}",
                basis="specification",
                source=_sources(facts.chips[name]),
            )


class ExportOutcome(ClaimTest, tag="export-outcome", frozen=True, kw_only=True):
    """Replay `rule` over chips that it is said to catch (`caught`) and to pass (`passed`)."""

    rule: Text
    caught: tuple[Text, ...] = ()
    passed: tuple[Text, ...] = ()

    def __post_init__(self) -> None:
        export_rule(self.rule)
        if not self.caught and not self.passed:
            raise ValueError("caught: neither caught nor passed names a chip")

    def _cases(self, facts: ClaimFacts) -> Iterator[ClaimCase | str]:
        rule = export_rule(self.rule)
        for name in dict.fromkeys((*self.caught, *self.passed)):
            chip, should = facts.chips[name], name not in self.passed
            outcome = export_status(chip)[rule.id]
            if outcome is None:
                yield f"{rule.id} turns on a figure of {name} that is not public"
                continue
            words = {True: "caught", False: "passed"}
            agreed = "as said" if outcome == should else f"but said to be {words[should]}"
            yield ClaimCase(
                factors={"chip": name, "rule": rule.id},
                holds=outcome == should,
                how=f"{words[outcome]}, {agreed}: {_rated(chip)}",
                basis="specification",
                source=rule.sources[0],
            )


def _rated(chip: Chip) -> str:
    tpp, density = total_processing_performance(chip), performance_density(chip)
    link = chip.facts.get("link_bytes_per_s")
    figures = [
        "" if tpp is None else f"total processing performance {tpp:.0f}",
        "" if density is None else f"density {density:.2f}",
        f"link {2 * link / 1e9:.0f} GB/s both ways" if isinstance(link, int | float) else "",
    ]
    return ", ".join(part for part in figures if part)


class PublishedRatioTest(ClaimTest, tag="published-ratio", frozen=True, kw_only=True):
    """Take ratios of `a` and `b` (ids, several allowed), in `phases`, or those in `ids`."""

    ids: tuple[Text, ...] = ()
    phases: tuple[Text, ...] = ()
    a: tuple[Text, ...] = ()
    b: tuple[Text, ...] = ()

    def __post_init__(self) -> None:
        if not self.ids and not (self.a and self.b):
            raise ValueError("by: needs ids, or a and b")

    def _cases(self, facts: ClaimFacts) -> Iterator[ClaimCase | str]:
        found = [
            one
            for one in facts.published.ratios
            if one.id in self.ids
            or (one.chip_a in self.a and one.chip_b in self.b
                and (not self.phases or one.phase in self.phases))
        ]  # fmt: skip
        if set(self.ids) - {one.id for one in found} or not found:
            yield f"published ratio of {', '.join(self.ids or self.b)}"
            return
        for one in found:
            vendor = {"said by": "its vendor"} if one.basis == "vendor" else {}
            yield ClaimCase(
                value=span_of(one.ratio),
                factors={"net": one.net, "phase": one.phase,
                         "chips": f"{one.chip_b} over {one.chip_a}", **vendor},
                how=f"speed of {one.num_devices} device{'s' * (one.num_devices > 1)}"
                + (f"; {one.note}" if one.note else ""),
                basis=one.basis,
                source=f"{one.id}: {one.source}",
            )  # fmt: skip


class PublishedFigureTest(ClaimTest, tag="published-figure", frozen=True, kw_only=True):
    """Hold published figures, by what they are of (`of: {name: id}`), against the bounds.

    `factor` says what the names are: a device, a net.
    """

    factor: Text
    of: dict[str, Text]

    def _cases(self, facts: ClaimFacts) -> Iterator[ClaimCase | str]:
        for name, id in self.of.items():
            figure = facts.published.figure(id)
            yield ClaimCase(
                value=span_of(figure.value),
                factors={self.factor: name},
                unit=figure.unit,
                how=figure.what,
                basis=figure.basis,
                source=f"{figure.id}: {figure.source}",
            )


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
        value = chip_fields(facts.chips[self.chip or ""]).get(self.field or "")
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
