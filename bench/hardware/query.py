"""Choosing and ordering catalogue rows by comparisons with anything that a row states.

A row whose match hangs on an unknown figure never matches, and is counted with the field's name,
so that nobody takes silence for "no".

Among them are export rules: thresholds as data, verdicts computed. Verdicts have three values,
because a figure that is not public must not read as "allowed": True, False, or None where the rule
turns on an unknown figure. Replaying the rules is also a self-test: one sparse rate in place of a
dense one moves a part across a line whose side is on record. Not legal advice:
exceptions, destinations and amendments after 2023 are left out.
"""

import operator
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bench.core.errors import UsageError, one_of
from bench.core.nouns import Chip, Scalar
from bench.core.units import counted
from bench.hardware.chips import load_chips
from bench.hardware.loader import Citations, Declared, Text, read_document

# By operand length in bits. TF32 is left out: whether it counts as 19 or 32 is not settled, and
# wherever it runs at half the fp16 rate it could not exceed fp16.
_RATES_BY_BITS = {
    64: ("fp64", "fp64_matrix_flops_per_s"),
    32: ("fp32", "fp32_matrix_flops_per_s"),
    16: ("bf16", "fp16", "fp16_accumulate_fp16_flops_per_s"),
    8: ("fp8", "fp8_accumulate_fp16_flops_per_s", "int8", "int8_vector_ops_per_s"),
    4: ("fp4_flops_per_s",),
}

VERDICT_WORDS = {True: "restricted", False: "not restricted", None: "not known"}


class ExportRule(Declared, frozen=True, kw_only=True):
    """One published rule; it catches what any of its clauses catches."""

    id: Text
    title: Text
    published: Text
    clauses: tuple[Text, ...]
    """Conditions as `parse_conditions` reads them, also on verdicts of the rules above."""
    sources: Citations

    @property
    def field(self) -> str:
        """Name of the verdict among a chip's fields, where it is yes, no or unknown."""
        return f"caught_{self.id.replace('-', '_')}"


class ExportRules(Declared, frozen=True, kw_only=True):
    """Everything in `export_rules.yaml`."""

    sources: dict[str, Any]
    rules: tuple[ExportRule, ...]


@cache
def load_rules() -> tuple[ExportRule, ...]:
    """All rules, oldest first."""
    return read_document(Path(__file__).with_name("export_rules.yaml"), into=ExportRules).rules


def export_rule(id: str) -> ExportRule:
    """Return one rule by id."""
    rules = {rule.id: rule for rule in load_rules()}
    if id not in rules:
        raise one_of("export rule", id, list(rules))
    return rules[id]


def total_processing_performance(chip: Chip) -> float | None:
    """TPP: the highest of dense tera-operations per second times operand bits; None without rates.

    Definition: technical note 2 to ECCN 3A090, where a multiply-add counts as two operations.
    """
    rates = {**chip.facts, **chip.peak_per_s}
    products = [
        rate / 1e12 * bits
        for bits, names in _RATES_BY_BITS.items()
        for name in names
        if isinstance(rate := rates.get(name), int | float)
    ]
    return max(products, default=None)


def performance_density(chip: Chip) -> float | None:
    """TPP per mm2 of die; None where either is unknown."""
    tpp = total_processing_performance(chip)
    area_mm2 = chip.facts.get("die_area_mm2")
    if tpp is None or not isinstance(area_mm2, int | float):
        return None
    return tpp / area_mm2


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


def _stated_fields(chip: Chip) -> dict[str, Scalar]:
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
        **_reached_fields(chip),
        **{f"derate_{kind}": fraction for kind, fraction in chip.derates.items()},
        "tpp": total_processing_performance(chip),
        "performance_density": performance_density(chip),
    }


def _reached_fields(chip: Chip) -> dict[str, Scalar]:
    """Both ends of what was measured, and the best product as a fraction of its peak."""
    fields: dict[str, Scalar] = {}
    for kind, reach in chip.reaches.items():
        unit = "bytes_per_s" if kind in ("memory", "cache") else "per_s"
        fields |= {f"{kind}_low_{unit}": reach.low, f"{kind}_high_{unit}": reach.high}
    gemm = chip.reaches.get("gemm")
    if gemm is not None and chip.peak16_per_s:
        fields["best_gemm_frac"] = gemm.high / chip.peak16_per_s
    return fields


def chip_fields(chip: Chip) -> dict[str, Scalar]:
    """Everything a row can be asked for, flat; None where unknown."""
    fields = _stated_fields(chip)
    for rule in load_rules():
        clauses = map(parse_conditions, rule.clauses)
        caught = [test_conditions(fields, conditions=clause)[0] for clause in clauses]
        fields[rule.field] = "yes" if True in caught else None if None in caught else "no"
    return fields


def export_status(chip: Chip) -> dict[str, bool | None]:
    """Verdict by rule id, oldest rule first; None where it turns on a figure nobody published."""
    fields = chip_fields(chip)
    verdicts = {rule.id: fields[rule.field] for rule in load_rules()}
    return {id: None if verdict is None else verdict == "yes" for id, verdict in verdicts.items()}


@cache
def _field_types() -> dict[str, type]:
    """Every field that any row knows, with str or float."""
    types: dict[str, type] = {rule.field: str for rule in load_rules()}
    for chip in load_chips():
        for name, value in _stated_fields(chip).items():
            if value is not None:
                types[name] = str if isinstance(value, str) else float
    return types


Condition = tuple[str, Callable[[Scalar], bool]]
"""A field, and what its value is asked where it is known; the case of a text is of no account."""


def _plain(value: Scalar) -> Any:
    return value.lower() if isinstance(value, str) else value


@cache
def parse_conditions(text: str) -> tuple[Condition, ...]:
    """Read 'memory_bytes>=48e9 and tdp_w<=350'; mistakes are `UsageError`s."""
    return tuple(map(_condition, text.split(" and ")))


def _condition(text: str) -> Condition:
    match = _COMPARISON.fullmatch(text)
    if match is None:
        raise UsageError(f"--where: {text[:40]!r} is not a comparison; {_EXAMPLE}")
    field, sign, value = match.groups()
    compare = _SIGNS[sign]
    types = _field_types()
    if field not in types:
        raise one_of("field", field, sorted(types))
    if types[field] is str:
        if sign not in ("=", "!="):
            raise UsageError(f"--where: {field} holds text; compare it with = or !=")
        return field, lambda known: compare(_plain(known), value.lower())
    try:
        number = float(value)
    except ValueError:
        raise UsageError(
            f"--where: {field} holds a number; {value!r} is not one; {_EXAMPLE}"
        ) from None
    return field, lambda known: compare(known, number)


def test_conditions(
    fields: dict[str, Scalar], *, conditions: Sequence[Condition]
) -> tuple[bool | None, tuple[str, ...]]:
    """Whether all of them hold; None with the fields that are unknown where these decide."""
    unknown = tuple(field for field, _ in conditions if fields.get(field) is None)
    if not all(holds(fields[field]) for field, holds in conditions if field not in unknown):
        return False, ()
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
        return f"{counted(self.num_left_out, 'chip')} left out: {' or '.join(self.unknown)} unknown"


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
