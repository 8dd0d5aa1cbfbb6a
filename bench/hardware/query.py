"""Choosing and ordering catalogue rows by comparisons with anything that a row states.

A row whose match hangs on an unknown figure never matches, and is counted with the field's name,
so that nobody takes silence for "no".
"""

import operator
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from bench.core.errors import UsageError, one_of
from bench.core.nouns import Chip, Scalar
from bench.hardware.chips import load_chips
from bench.hardware.export_rules import (
    export_status,
    performance_density,
    total_processing_performance,
)

_SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
_COMPARISON = re.compile(rf"\s*(\w+)\s*({'|'.join(_SIGNS)})\s*([^<>=!]+?)\s*")
_EXAMPLE = "such as 'memory_bytes>=48e9 and tdp_w<=350'"


def chip_fields(chip: Chip) -> dict[str, Scalar]:
    """Everything a row can be asked for, flat; None where unknown."""
    return {
        "id": chip.id,
        "name": chip.name,
        "vendor": chip.vendor,
        "kind": chip.kind,
        **{f"{dtype}_per_s": rate for dtype, rate in chip.peak_per_s.items()},
        "memory_bytes": chip.memory_bytes,
        "memory_bytes_per_s": chip.memory_bytes_per_s,
        "tdp_w": chip.tdp_w,
        "confidence": chip.confidence,
        **{name: value for name, value in chip.facts.items() if name != "note"},
        **{f"derate_{kind}": fraction for kind, fraction in chip.derates.items()},
        "tpp": total_processing_performance(chip),
        "performance_density": performance_density(chip),
        **{
            f"caught_{rule.replace('-', '_')}": None if caught is None else ("no", "yes")[caught]
            for rule, caught in export_status(chip).items()
        },
    }


@cache
def _field_types() -> dict[str, type]:
    """Every field that any row knows, with str or float."""
    return {
        name: str if isinstance(value, str) else float
        for chip in load_chips()
        for name, value in chip_fields(chip).items()
        if value is not None
    }


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A comparison of one field with a number, or of a text without regard to its case."""

    field: str
    sign: str
    value: float | str

    def holds(self, fields: dict[str, Scalar]) -> bool | None:
        """None where the row does not know the field."""
        known = fields.get(self.field)
        if known is None:
            return None
        return _SIGNS[self.sign](_plain(known), self.value)


def _plain(value: Scalar) -> Any:
    return value.lower() if isinstance(value, str) else value


def parse_conditions(text: str) -> tuple[Condition, ...]:
    """Read 'memory_bytes>=48e9 and tdp_w<=350'; mistakes are `UsageError`s."""
    return tuple(map(_condition, text.split(" and ")))


def _condition(text: str) -> Condition:
    match = _COMPARISON.fullmatch(text)
    if match is None:
        raise UsageError(f"--where: {text[:40]!r} is not a comparison; {_EXAMPLE}")
    field, sign, value = match.groups()
    types = _field_types()
    if field not in types:
        raise one_of("field", field, sorted(types))
    if types[field] is str:
        if sign not in ("=", "!="):
            raise UsageError(f"--where: {field} holds text; compare it with = or !=")
        return Condition(field=field, sign=sign, value=value.lower())
    try:
        return Condition(field=field, sign=sign, value=float(value))
    except ValueError:
        raise UsageError(
            f"--where: {field} holds a number; {value!r} is not one; {_EXAMPLE}"
        ) from None


def test_conditions(
    fields: dict[str, Scalar], *, conditions: Sequence[Condition]
) -> tuple[bool | None, tuple[str, ...]]:
    """Whether all of them hold; None with the fields that are unknown where these decide."""
    held = {condition: condition.holds(fields) for condition in conditions}
    if False in held.values():
        return False, ()
    unknown = tuple(condition.field for condition, holds in held.items() if holds is None)
    return (None, unknown) if unknown else (True, ())


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What a query chose, and what it had to leave open."""

    chips: tuple[Chip, ...]
    num_left_out: int
    """Rows that neither match nor fail, for want of a figure."""
    unknown: dict[str, int]
    """How many of them lack each field, most first."""

    @property
    def note(self) -> str | None:
        """'7 chips left out: tdp_w unknown', or None."""
        if not self.num_left_out:
            return None
        chips = "1 chip" if self.num_left_out == 1 else f"{self.num_left_out} chips"
        return f"{chips} left out: {' or '.join(self.unknown)} unknown"


def _sorted(chips: list[Chip], *, by: str) -> list[Chip]:
    """Ascending, or descending after a '-'; rows that do not know the field come last."""
    field, types = by.removeprefix("-"), _field_types()
    if field not in types:
        raise one_of("sort field", field, sorted(types), hint="(a '-' before it: highest first)")
    values = {chip.id: _plain(chip_fields(chip).get(field)) for chip in chips}
    known = [chip for chip in chips if values[chip.id] is not None]
    known.sort(key=lambda chip: values[chip.id], reverse=by.startswith("-"))
    return known + [chip for chip in chips if values[chip.id] is None]


def select(where: str | None = None, *, sort: str | None = None) -> Selection:
    """Choose the chips for which `where` holds, ordered by `sort` (else as in the catalogue)."""
    conditions = () if where is None else parse_conditions(where)
    chosen, missing_fields, num_left_out = [], Counter[str](), 0
    for chip in load_chips():
        holds, unknown = test_conditions(chip_fields(chip), conditions=conditions)
        if holds:
            chosen.append(chip)
        elif holds is None:
            num_left_out += 1
            missing_fields.update(unknown)
    return Selection(
        chips=tuple(chosen if sort is None else _sorted(chosen, by=sort)),
        num_left_out=num_left_out,
        unknown=dict(missing_fields.most_common()),
    )
