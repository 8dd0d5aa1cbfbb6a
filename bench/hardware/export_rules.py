"""Which export rules a catalogue row falls under: the thresholds as data, the verdicts computed.

Verdicts have three values, because a figure that is not public must not read as "allowed": True,
False, or None where the rule turns on an unknown figure. Replaying the rules over the catalogue is
also its self-test: one sparse rate in place of a dense one moves a part across a line whose side is
on record. Not legal advice: exceptions, destinations and amendments after 2023 are left out.
"""

from functools import cache
from pathlib import Path
from typing import Any

from msgspec import field

from bench.core.errors import one_of
from bench.core.nouns import Chip
from bench.hardware.loader import Citations, Declared, Number, Text, read_document

# Operand length in bits. TF32 is left out: whether it counts as 19 or 32 bits is not settled, and
# wherever it runs at half the fp16 rate it could not exceed fp16.
_BITS = {
    "fp64": 64,
    "fp64_matrix_flops_per_s": 64,
    "fp32": 32,
    "fp32_matrix_flops_per_s": 32,
    "bf16": 16,
    "fp16": 16,
    "fp16_accumulate_fp16_flops_per_s": 16,
    "fp8": 8,
    "fp8_accumulate_fp16_flops_per_s": 8,
    "int8": 8,
    "int8_vector_ops_per_s": 8,
    "fp4_flops_per_s": 4,
}

VERDICT_WORDS = {True: "restricted", False: "not restricted", None: "not known"}


class Clause(Declared, frozen=True, kw_only=True):
    """Bounds that must all hold; None: not bounded."""

    id: Text
    tpp_from: Number | None = None
    tpp_below: Number | None = None
    density_from: Number | None = None
    density_below: Number | None = None
    link_bytes_per_s_from: Number | None = None
    is_data_centre_only: bool = field(name="data_centre_only", default=False)


class ExportRule(Declared, frozen=True, kw_only=True):
    """One published rule; it catches what any of its clauses catches."""

    id: Text
    title: Text
    published: Text
    clauses: tuple[Clause, ...]
    unless: Text | None = None
    """Id of the stricter rule that takes a part out of this one."""
    sources: Citations


class ExportRules(Declared, frozen=True, kw_only=True):
    """Everything in `export_rules.yaml`."""

    sources: dict[str, Any]
    rules: tuple[ExportRule, ...]

    def __post_init__(self) -> None:
        seen: set[str | None] = {None}
        for rule in self.rules:
            if rule.unless not in seen:
                raise ValueError(f"{rule.id}: unless: {rule.unless!r} is no rule above it")
            seen.add(rule.id)


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
        for name, bits in _BITS.items()
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


def _all(claims: list[bool | None]) -> bool | None:
    """Three-valued and: one False decides."""
    return False if False in claims else None if None in claims else True


def _within(value: float | None, *, low: float | None, below: float | None) -> bool | None:
    if value is None:
        return True if low is None and below is None else None
    return (low is None or value >= low) and (below is None or value < below)


def _clause_catches(clause: Clause, *, chip: Chip) -> bool | None:
    if clause.is_data_centre_only and chip.facts["form_factor"] == "consumer":
        return False
    one_way = chip.facts.get("link_bytes_per_s")
    if chip.facts["link_topology"] == "none":
        one_way = 0.0
    link = 2 * one_way if isinstance(one_way, int | float) else None
    tpp, density = total_processing_performance(chip), performance_density(chip)
    return _all(
        [
            _within(tpp, low=clause.tpp_from, below=clause.tpp_below),
            _within(density, low=clause.density_from, below=clause.density_below),
            _within(link, low=clause.link_bytes_per_s_from, below=None),
        ]
    )


def is_caught(rule: ExportRule, *, chip: Chip) -> bool | None:
    """Whether `rule` restricts `chip`; None where that turns on a figure nobody published."""
    caught = [_clause_catches(clause, chip=chip) for clause in rule.clauses]
    own = True if True in caught else None if None in caught else False
    if rule.unless is None:
        return own
    stricter = is_caught(export_rule(rule.unless), chip=chip)
    return _all([own, None if stricter is None else not stricter])


def export_status(chip: Chip) -> dict[str, bool | None]:
    """Verdict by rule id, oldest rule first."""
    return {rule.id: is_caught(rule, chip=chip) for rule in load_rules()}
