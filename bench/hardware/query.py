"""Choosing and ordering catalogue rows by a condition over everything a row states.

A row whose match hangs on an unknown figure never matches, and is counted with the field's name,
so that nobody takes silence for "no".
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bench.core.errors import one_of
from bench.core.nouns import Chip
from bench.hardware.conditions import Fields, parse_condition
from bench.hardware.export_rules import (
    export_status,
    performance_density,
    total_processing_performance,
)


def chip_fields(chip: Chip) -> Fields:
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


def _field_types(rows: Sequence[Fields]) -> dict[str, type]:
    """Map every field that any row knows to str or float."""
    types: dict[str, type] = {}
    for row in rows:
        for name, value in row.items():
            if value is not None:
                types[name] = str if isinstance(value, str) else float
    return types


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


def _sorted(chips: list[Chip], *, by: str, types: dict[str, type]) -> list[Chip]:
    """Ascending, or descending after a '-'; rows that do not know the field come last."""
    field = by.removeprefix("-")
    if field not in types:
        raise one_of("sort field", field, sorted(types), hint="(a '-' before it: highest first)")
    known = [chip for chip in chips if chip_fields(chip).get(field) is not None]
    unknown = [chip for chip in chips if chip_fields(chip).get(field) is None]

    def key(chip: Chip) -> tuple[float, str]:
        value = chip_fields(chip)[field]
        return (0.0, value.lower()) if isinstance(value, str) else (float(value or 0), "")

    return sorted(known, key=key, reverse=by.startswith("-")) + unknown


def select(
    chips: Sequence[Chip], *, where: str | None = None, sort: str | None = None
) -> Selection:
    """Choose the rows for which `where` holds, ordered by `sort` (else as given)."""
    rows = [chip_fields(chip) for chip in chips]
    types = _field_types(rows)
    chosen, missing_fields, num_left_out = list(chips), Counter[str](), 0
    if where is not None:
        test = parse_condition(where, types=types)
        chosen = []
        for chip, row in zip(chips, rows, strict=True):
            value, missing = test(row)
            if value:
                chosen.append(chip)
            elif value is None:
                num_left_out += 1
                missing_fields.update(missing)
    if sort is not None:
        chosen = _sorted(chosen, by=sort, types=types)
    return Selection(
        chips=tuple(chosen),
        num_left_out=num_left_out,
        unknown=dict(missing_fields.most_common()),
    )
