"""Arithmetic over given figures, catalogue figures and published ones, maybe over a grid.

`over` varies figures; each combination is a case and its values are circumstances, so that the
condition of a verdict is found and not written. `needs` states what nobody can compute here.
"""

from __future__ import annotations

from itertools import product

from bench.analysis.claims import Basis, Bounds, Case, Evaluate, Outcome, exactly
from bench.analysis.claims_facts import Facts
from bench.analysis.evaluators.formulas import compute, names_in
from bench.core.units import format_number
from bench.hardware.loader import Row
from bench.hardware.query import chip_fields

_WEAKNESS: tuple[Basis, ...] = ("arithmetic", "specification", "published", "vendor")
"""A sum is told by the weakest of what goes into it."""


def needs(row: Row, bounds: Bounds, unit: str) -> Evaluate:
    """Return no case, only what is missing, in words: `what`."""
    what = row.need_text("what")
    return lambda facts: Outcome(cases=(), missing=(what,))


def arithmetic(row: Row, bounds: Bounds, unit: str) -> Evaluate:
    """Compute `formula` from `given`, `figures` and every combination in `over`."""
    formula = row.need_text("formula")
    given = _numbers(row.child("given"))
    figures = {name: _figure(row.child("figures").child(name)) for name in _keys(row, "figures")}
    grid = {name: row.child("over").numbers(name, required=True) for name in _keys(row, "over")}
    factors = {name: row.child("factors").need_text(name) for name in _keys(row, "factors")}
    source = row.text("source") or "computed from the figures that the claim gives"
    unknown = names_in(formula) - set(given) - set(figures) - set(grid)
    if unknown:
        raise row.complain("formula", f"{sorted(unknown)[0]!r} is given nowhere")

    def evaluate(facts: Facts) -> Outcome:
        known, sources = dict(given), []
        basis: Basis = "arithmetic"
        for name, (kind, key, field) in figures.items():
            found = _look_up(facts, kind, key, field)
            if found is None:
                return Outcome(cases=(), missing=(f"{field} of {key} is not known",))
            known[name] = found[0]
            sources.append(found[1])
            basis = max(basis, found[2], key=_WEAKNESS.index)
        cases = [
            _case(
                formula,
                known | dict(zip(grid, values, strict=True)),
                bounds=bounds,
                unit=unit,
                factors=factors | _words(grid, values),
                basis=basis,
                source="; ".join(dict.fromkeys(sources)) or source,
            )  # fmt: skip
            for values in product(*grid.values())
        ]
        return Outcome(cases=tuple(cases))

    return evaluate


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
    return Case(
        factors=factors,
        holds=bounds.holds(value),
        value=value,
        unit=unit,
        how=f"{formula} with {told}, asked {bounds.words}" if told else formula,
        basis=basis,
        source=source,
    )


def _words(grid: dict[str, tuple[float, ...]], values: tuple[float, ...]) -> dict[str, float]:
    return {name.replace("_", " "): value for name, value in zip(grid, values, strict=True)}


def _plain(value: float) -> str:
    return f"{value:.6g}" if abs(value) < 1e6 else format_number(value)


def _keys(row: Row, key: str) -> list[str]:
    return row.child(key).keys()


def _numbers(row: Row) -> dict[str, float]:
    return {name: number for name in row.keys() if (number := row.number(name)) is not None}  # noqa: SIM118


def _figure(row: Row) -> tuple[str, str, str]:
    """(chip or published, id, field)."""
    if (published := row.text("published")) is not None:
        found = ("published", published, "")
    else:
        found = ("chip", row.need_text("chip"), row.need_text("field"))
    row.finish()
    return found


def _look_up(facts: Facts, kind: str, key: str, field: str) -> tuple[float, str, Basis] | None:
    """Value, source and kind of evidence; None where the catalogue does not know it."""
    if kind == "published":
        for ratio in facts.published.ratios:
            if ratio.id == key:
                return ratio.ratio, f"{key}: {ratio.source}", _basis(ratio.basis)
        figure = facts.published.figure(key)
        return figure.value, f"{key}: {figure.source}", _basis(figure.basis)
    value = chip_fields(facts.chips[key]).get(field)
    if not isinstance(value, int | float):
        return None
    return float(value), f"catalogue: {key}", "specification"


def _basis(text: str) -> Basis:
    return "vendor" if text == "vendor" else "published"
