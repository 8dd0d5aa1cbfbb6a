"""Which export rules a catalogue row falls under: the thresholds as data, the verdicts computed.

Verdicts have three values, because a figure that is not public must not read as "allowed": True,
False, or None where the rule turns on an unknown figure. Replaying the rules over the catalogue is
also its self-test: one sparse rate in place of a dense one moves a part across a line whose side is
on record. Not legal advice: exceptions, destinations and amendments after 2023 are left out.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.core.errors import one_of
from bench.core.nouns import Chip
from bench.hardware.loader import Row, load_rows, read_document
from bench.hardware.sources import load_sources, take_sources

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


@dataclass(frozen=True, kw_only=True)
class Clause:
    """Bounds that must all hold; None: not bounded."""

    id: str
    tpp_from: float | None
    tpp_below: float | None
    density_from: float | None
    density_below: float | None
    link_bytes_per_s_from: float | None
    is_data_centre_only: bool


@dataclass(frozen=True, kw_only=True)
class ExportRule:
    """One published rule; it catches what any of its clauses catches."""

    id: str
    title: str
    published: str
    clauses: tuple[Clause, ...]
    unless: str | None
    """Id of the stricter rule that takes a part out of this one."""
    sources: tuple[str, ...]


def _build_clause(row: Row) -> Clause:
    return Clause(
        id=row.need_text("id"),
        tpp_from=row.number("tpp_from"),
        tpp_below=row.number("tpp_below"),
        density_from=row.number("density_from"),
        density_below=row.number("density_below"),
        link_bytes_per_s_from=row.number("link_bytes_per_s_from"),
        is_data_centre_only=bool(row.flag("data_centre_only")),
    )


def _build_rule(row: Row, *, sources: dict[str, str]) -> ExportRule:
    return ExportRule(
        id=row.need_text("id"),
        title=row.need_text("title"),
        published=row.need_text("published"),
        clauses=load_rows(row.rows("clauses"), build=_build_clause),
        unless=row.text("unless"),
        sources=take_sources(row, sources=sources, key="sources"),
    )


def parse_rules(document: Row) -> tuple[ExportRule, ...]:
    """Build the rules from a parsed document."""
    sources = load_sources(document)
    rules = load_rows(document.rows("rules"), build=lambda row: _build_rule(row, sources=sources))
    document.finish()
    seen: set[str] = set()
    for rule in rules:
        if rule.unless is not None and rule.unless not in seen:
            raise document.complain(rule.id, f"unless: {rule.unless!r} is no rule above it")
        seen.add(rule.id)
    return rules


@cache
def load_rules() -> tuple[ExportRule, ...]:
    """All rules, oldest first."""
    return parse_rules(read_document(Path(__file__).with_name("export_rules.yaml")))


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
    if False in claims:
        return False
    return None if None in claims else True


def _any(claims: list[bool | None]) -> bool | None:
    """Three-valued or: one True decides."""
    if True in claims:
        return True
    return None if None in claims else False


def _within(value: float | None, *, low: float | None, below: float | None) -> bool | None:
    if low is None and below is None:
        return True
    if value is None:
        return None
    return (low is None or value >= low) and (below is None or value < below)


def _clause_catches(clause: Clause, *, chip: Chip) -> bool | None:
    if clause.is_data_centre_only and chip.facts["form_factor"] == "consumer":
        return False
    link_one_way = chip.facts.get("link_bytes_per_s")
    if chip.facts["link_topology"] == "none":
        link_one_way = 0.0
    link = 2 * link_one_way if isinstance(link_one_way, int | float) else None
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
    own = _any([_clause_catches(clause, chip=chip) for clause in rule.clauses])
    if rule.unless is None:
        return own
    stricter = is_caught(export_rule(rule.unless), chip=chip)
    return _all([own, None if stricter is None else not stricter])


def export_status(chip: Chip) -> dict[str, bool | None]:
    """Verdict by rule id, oldest rule first."""
    return {rule.id: is_caught(rule, chip=chip) for rule in load_rules()}
