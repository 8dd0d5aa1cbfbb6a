"""The operators of the shipped workloads, counted once and shipped, for nets that are like them.

A published ratio names a net that is not here; it is projected with the operators of the workload
that is nearest to it. `python -m bench.measure.mixes` makes the file anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.hardware.loader import Row, load_rows, read_document
from bench.hardware.operators import CLASSES, Operators


@dataclass(frozen=True, kw_only=True)
class Mix:
    """The operators of one step of one phase at one size."""

    id: str
    workload: str
    phase: str
    size: str
    version: str
    batch: int
    parameters: int
    operators: tuple[Operators, ...]


def _build(row: Row) -> Mix:
    batch, parameters = row.count("batch", required=True), row.count("parameters", required=True)
    assert batch is not None and parameters is not None
    return Mix(
        id=row.need_text("id"),
        workload=row.need_text("workload"),
        phase=row.need_text("phase"),
        size=row.need_text("size"),
        version=row.need_text("version"),
        batch=batch,
        parameters=parameters,
        operators=load_rows(row.mappings("operators"), build=_build_operators),
    )


def _build_operators(row: Row) -> Operators:
    calls = row.count("calls", required=True)
    flops, moved = row.number("flops", required=True), row.number("bytes", required=True)
    least = row.number("least_bytes", required=True)
    assert calls is not None and flops is not None and moved is not None and least is not None
    return Operators(
        kind=row.choice("kind", allowed=CLASSES),
        dtype=row.need_text("dtype"),
        calls=calls,
        flops=flops,
        bytes=moved,
        least_bytes=least,
    )


@cache
def load_mixes() -> tuple[Mix, ...]:
    """All mixes, in the order of the file."""
    document = read_document(Path(__file__).with_name("operator_mixes.yaml"))
    document.need_text("torch")
    document.need_text("dtype")
    mixes = load_rows(document.rows("mixes"), build=_build)
    document.finish()
    return mixes
