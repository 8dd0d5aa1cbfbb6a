"""What one step asks of hardware, by class of operator: calls, FLOPs, bytes, and maybe its time.

The classes are those whose speed hangs on different parts of a chip. FLOPs and bytes come from
shapes and are the same on every device; `least_bytes` is what would be left if a compiler fused
every pointwise operator and copy into its neighbours. Torch-free, so that counts made where torch
is can be read where it is not.

Mixes are those of the shipped workloads, counted once and shipped, for nets that are like them: a
published ratio names a net that is not here, and is projected with the operators of the workload
nearest to it. `python -m scripts.operator_mixes` makes the file anew.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal

from bench.hardware.loader import Count, Declared, Number, Text, read_document

Kind = Literal["gemm", "conv", "attention", "vector", "norm", "optimizer", "copy", "other"]
MATRIX = ("gemm", "conv", "attention")
"""Classes that run on matrix units where there are any; the others mostly move memory."""


class Operators(Declared, frozen=True, kw_only=True):
    """All operators of one class and dtype in one step."""

    kind: Kind
    dtype: Text
    """Dtype of the widest operand."""
    calls: Count
    flops: Number
    """Matrix classes: 2 for a multiply-add. Others: one for each element, a lower bound."""
    bytes: Number
    """Operands read plus results written, each operator for itself."""
    least_bytes: Number
    """The same when pointwise operators and copies are fused away."""
    time_s: Number | None = None
    """Time of one step spent in this class; None where only shapes were counted."""

    @property
    def is_matrix(self) -> bool:
        """Whether it runs on matrix units."""
        return self.kind in MATRIX


def total(operators: Sequence[Operators], figure: str) -> float:
    """Sum one figure over all classes; a time that was not measured counts nothing."""
    return float(sum(getattr(one, figure) or 0.0 for one in operators))


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
