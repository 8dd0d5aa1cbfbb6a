"""The operators of the shipped workloads, counted once and shipped, for nets that are like them.

A published ratio names a net that is not here; it is projected with the operators of the workload
that is nearest to it. `python -m scripts.operator_mixes` makes the file anew.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from bench.hardware.loader import Count, Declared, Text, read_document
from bench.hardware.operators import Operators


class Mix(Declared, frozen=True, kw_only=True):
    """The operators of one step of one phase at one size."""

    id: Text
    workload: Text
    phase: Text
    size: Text
    version: Text
    batch: Count
    parameters: Count
    operators: tuple[Operators, ...]


class OperatorMixes(Declared, frozen=True, kw_only=True):
    """Everything in `operator_mixes.yaml`."""

    torch: Text
    dtype: Text
    mixes: tuple[Mix, ...]


@cache
def load_mixes() -> tuple[Mix, ...]:
    """All mixes, in the order of the file."""
    return read_document(Path(__file__).with_name("operator_mixes.yaml"), into=OperatorMixes).mixes
