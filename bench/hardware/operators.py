"""What one step asks of hardware, by class of operator: calls, FLOPs, bytes, and maybe its time.

The classes are those whose speed hangs on different parts of a chip. FLOPs and bytes come from
shapes and are the same on every device; `least_bytes` is what would be left if a compiler fused
every pointwise operator and copy into its neighbours. Torch-free, so that counts made where torch
is can be read where it is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.core.errors import DataError

MATRIX = ("gemm", "conv", "attention")
"""Classes that run on matrix units where there are any."""
STREAMED = ("vector", "norm", "optimizer", "copy", "other")
"""Classes that run on vector units and mostly move memory."""
CLASSES = (*MATRIX, *STREAMED)


@dataclass(frozen=True, kw_only=True)
class Operators:
    """All operators of one class and dtype in one step."""

    kind: str
    """One of `CLASSES`."""
    dtype: str
    """Dtype of the widest operand."""
    calls: int
    flops: float
    """Matrix classes: 2 for a multiply-add. Others: one for each element, a lower bound."""
    bytes: float
    """Operands read plus results written, each operator for itself."""
    least_bytes: float
    """The same when pointwise operators and copies are fused away."""
    time_s: float | None = None
    """Time of one step spent in this class; None where only shapes were counted."""

    @property
    def is_matrix(self) -> bool:
        """Whether it runs on matrix units."""
        return self.kind in MATRIX


def from_dict(values: Mapping[str, Any], *, what: str) -> Operators:
    """Read one class; `DataError` names `what` when a figure is missing or impossible."""
    try:
        time_s = values.get("time_s")
        found = Operators(
            kind=str(values["kind"]),
            dtype=str(values["dtype"]),
            calls=int(values["calls"]),
            flops=float(values["flops"]),
            bytes=float(values["bytes"]),
            least_bytes=float(values["least_bytes"]),
            time_s=None if time_s is None else float(time_s),
        )
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise DataError(f"{what}: operators cannot be read: {error}") from None
    figures = [found.calls, found.flops, found.bytes, found.least_bytes, found.time_s or 0.0]
    if found.kind not in CLASSES or not all(0.0 <= figure < 1e30 for figure in figures):
        raise DataError(f"{what}: operators of class {found.kind[:20]!r} have an impossible figure")
    return found


def to_dicts(operators: Iterable[Operators]) -> list[dict[str, Any]]:
    """Return plain values for JSON and YAML."""
    return [asdict(one) for one in operators]


def total(operators: Sequence[Operators], figure: str) -> float:
    """Sum one figure over all classes; a time that was not measured counts nothing."""
    return float(sum(getattr(one, figure) or 0.0 for one in operators))
