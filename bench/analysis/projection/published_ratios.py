"""A file of published ratios: what one party measured on two chips, one ratio a line.

Columns that a party did not publish may be left out, or empty in a line: the dtype on each chip,
and what it takes to part the link from the chip (step and link of each, parameters).
"""

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from bench.core.errors import BenchError, DataError
from bench.core.separated import decimal_mark, decoded, plain_number, separated, unmarked
from bench.hardware.chips import chip
from bench.hardware.costs.cost import model_of
from bench.hardware.loader import Declared, Text, decode

_MAX_BYTES = 10_000_000
_Dtype = Literal["fp32", "tf32", "bf16", "fp16", "fp8", "int8"]
DTYPE: _Dtype = "fp16"
"""Where a file does not say."""
_Above = Annotated[float, Meta(gt=0, lt=1e15)]


class RatioPoint(Declared, frozen=True, kw_only=True):
    """One published ratio; its fields are the columns of the file."""

    chip_a: str
    """A chip of the catalogue, by its id."""
    chip_b: str
    phase: Literal["train", "infer"]
    net: Text
    kind: Text
    num_devices: Annotated[int, Meta(gt=0, lt=10**7)]
    throughput_ratio_b_over_a: Annotated[float, Meta(gt=1e-6, lt=1e6)]
    note: str
    point_id: str
    dtype_a: _Dtype = DTYPE
    """That of most products."""
    dtype_b: _Dtype = DTYPE
    step_s_a: _Above | None = None
    """Time of a step of all devices."""
    batch_a: _Above | None = None
    """On each device."""
    batch_b: _Above | None = None
    link_a: str = ""
    """As `--link` takes it."""
    link_b: str = ""
    parameters: _Above | None = None

    @property
    def has_link(self) -> bool:
        """Whether the exchange of gradients can be parted from the chips."""
        return self.step_s_a is not None and self.num_devices > 1 and self.phase == "train"

    @property
    def dtypes(self) -> str:
        """In words; '' where both are the usual one."""
        both = {self.dtype_a, self.dtype_b}
        return "" if both == {DTYPE} else f"{self.dtype_a} -> {self.dtype_b}"


_FIELDS = RatioPoint.__struct_fields__
COLUMNS = _FIELDS[: _FIELDS.index("dtype_a")]
OPTIONAL = _FIELDS[len(COLUMNS) :]
_LINK = ("step_s_a", "link_a", "link_b", "parameters")
_NUMBERS = ("num_devices", "throughput_ratio_b_over_a", "step_s_a", "batch_a", "batch_b",
            "parameters")  # fmt: skip


def read_points(path: Path) -> list[RatioPoint]:
    """Read a file of published ratios; `DataError` names the line that cannot be used."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DataError(f"{path}: larger than {_MAX_BYTES:,} bytes, which no such file is")
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read: {reason}") from None
    what = str(path)
    table = separated(decoded(unmarked(data, what=what), what=what), what=what)
    head = table.header
    more = head[len(COLUMNS) :]
    if head[: len(COLUMNS)] != COLUMNS or not set(more) <= set(OPTIONAL):
        raise DataError(
            f"{path}: the first line must be {','.join(COLUMNS)}, then any of {','.join(OPTIONAL)}"
        )
    rows = [(n, dict(zip(head, map(str.strip, row), strict=True))) for n, row in table.records]
    if not rows:
        raise DataError(f"{path}: holds no ratio below its first line")
    numbers = [name for name in _NUMBERS if name in head]
    mark = decimal_mark(table, numbers=(row[name] for _, row in rows for name in numbers))
    return [_point(row, where=f"{path}: line {line}", mark=mark) for line, row in rows]


def _point(row: dict[str, str], *, where: str, mark: str) -> RatioPoint:
    row = {name: text for name, text in row.items() if text or name in COLUMNS}
    row |= {name: plain_number(row[name], mark=mark) for name in _NUMBERS if name in row}
    missing = [name for name in _LINK if name not in row]
    if 0 < len(missing) < len(_LINK):
        raise DataError(f"{where}: {', '.join(_LINK)} go together; empty: {', '.join(missing)}")
    try:
        row |= {name: chip(row[name][:60]).id for name in ("chip_a", "chip_b")}
        point = decode(row, into=RatioPoint, what=where, is_text=True)
        for link in filter(None, (point.link_a, point.link_b)):
            model_of(link).topology.check_devices(point.num_devices)
    except DataError:
        raise
    except BenchError as error:
        raise DataError(f"{where}: {error}") from None
    return point
