"""What a configuration is called, in every table, panel, comparison and export.

One order of words: workload, what it was run with, parameters, mode, layout, limit. A long title
has all of them; a short one only those in which the lines of a table differ (`differing`).
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping

from bench.core.nouns import Layout
from bench.core.units import format_bytes
from bench.results.schema import Row, Value

_MAX_VALUE = 24
_PARAM = "params."
"""Stands before the name of a parameter."""


def _text(value: Value) -> str:
    return "" if value is None else str(value)


def mitigations_of(row: Mapping[str, Value]) -> str:
    """What is done about a narrow link beside the defaults: 'powersgd-2, 4 micro-batches'."""
    usual = Layout()
    accumulated, bucket_bytes = row.get("grad_accum"), row.get("bucket_bytes")
    schedule = _text(row.get("schedule"))
    parts = [_text(row.get("mitigation"))]
    if isinstance(accumulated, int) and accumulated != usual.grad_accum:
        parts.append(f"{accumulated} micro-batches")
    if isinstance(bucket_bytes, int) and bucket_bytes != usual.bucket_bytes:
        parts.append(f"buckets of {format_bytes(bucket_bytes)}")
    parts.append(schedule if schedule != usual.schedule else "")
    return ", ".join(part for part in parts if part)


def _layout(row: Mapping[str, Value]) -> str:
    layout = _text(row.get("layout"))
    return layout if " x " in layout else ""


def _with(row: Mapping[str, Value]) -> str:
    mitigations = mitigations_of(row)
    return f"with {mitigations}" if mitigations else ""


def _word(
    column: str, form: str = "{}", *, but: str = "", most: int | None = None
) -> Callable[[Mapping[str, Value]], str]:
    """Word of a column by its value; '' where it is blank or `but`, which goes without saying."""

    def word(row: Mapping[str, Value]) -> str:
        text = _text(row.get(column))
        return "" if text in ("", but) else form.format(text[:most])

    return word


_RUN_WITH: dict[str, Callable[[Mapping[str, Value]], str]] = {
    "size": _word("size"),
    "dtype": _word("dtype"),
    "batch": _word("batch", "b{}"),
    "compile": _word("compile", "compiled", but="False"),
    "compile_mode": _word("compile_mode"),
    "channels_last": _word("channels_last", "channels-last", but="False"),
    "data": _word("data", "data {}", most=_MAX_VALUE),
    "arrivals": _word("arrivals"),
    "slo": _word("slo"),
    "workload_version": _word("workload_version", "version {}", most=_MAX_VALUE),
}
LAID_OUT: dict[str, Callable[[Mapping[str, Value]], str]] = {
    "mode": _word("mode", "[{}]", but="real"),
    "device_count": _word("device_count", "x{}", but="1"),
    "parallel": _word("parallel"),
    "layout": _layout,
    "link": _word("link", "over {}"),
    "mitigation": _with,
    "chip_limit": _word("chip_limit", "({})"),
}
SERVED = ("arrivals", "slo")
"""What a title says of requests that came by themselves."""
PROGRAM = ("size", "dtype", "batch", "compile", "compile_mode", "channels_last", *SERVED)
"""What a title says of the program."""
LONG = (*PROGRAM, *LAID_OUT)
"""What a long title says."""


def title_of(
    row: Mapping[str, Value], *, shown: Collection[str] = LONG, name: str | None = None
) -> str:
    """Name of a row's configuration: 'imaging-train tiny fp32 b2 [emulated] x8 ddp over pcie4'.

    `shown` names columns, and parameters as `differing` does; `name` stands for the workload.
    """
    words = [_text(row.get("workload")) if name is None else name]
    for column, word in _RUN_WITH.items():
        if column in shown or _PARAM + column in shown:
            words.append(word(row))
    for param, value in params_of(row).items():
        # A phase may take another batch than was asked for.
        if _PARAM + param in shown and (param not in row or _text(row[param]) != str(value)):
            words.append(f"{param}={str(value)[:_MAX_VALUE]}".removesuffix("="))
    words += [word(row) for column, word in LAID_OUT.items() if column in shown]
    return " ".join(word for word in words if word)


def params_of(row: Mapping[str, Value]) -> dict[str, object]:
    """Parameters by name; none where a file from elsewhere has JSON of another shape."""
    found = json.loads(str(row.get("params_json") or "{}"))
    if not isinstance(found, dict):
        return {}
    return {
        name: json.dumps(value) if isinstance(value, dict | list) else value
        for name, value in found.items()
    }


def differing(
    rows: Iterable[Row], *, columns: Iterable[str] = ("data", "workload_version")
) -> list[str]:
    """Parameters, and those of `columns`, in which two rows of one workload and size differ."""
    seen: dict[tuple[object, object, str], set[str | None]] = {}
    names = list(columns)
    called = [(row, params_of(row)) for row in rows]
    every = dict.fromkeys(name for _, params in called for name in params)
    for row, params in called:
        # A program may be called with an argument or without.
        reported = {_PARAM + one: str(params[one]) if one in params else None for one in every}
        reported |= {name: (_RUN_WITH | LAID_OUT)[name](row) for name in names}
        size = "" if "size" in names else row.get("size")
        for name, value in reported.items():
            seen.setdefault((row["workload"], size, name), set()).add(value)
    found = [name for (_, _, name), values in seen.items() if len(values) > 1]
    return list(dict.fromkeys(found))
