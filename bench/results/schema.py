"""The columns of a result file, one row a trial, and the reasons that a row may give.

`schema_version` is the first column: a new minor version adds columns, a new major one changes what
a column means. A blank cell means "not measured", never zero. `schema.toml` beside this file is the
single source of the reader, the writer and `results/README.md`.

History: 1.0 first version; 1.1 layout over several devices and its communication; 1.2 sustained
roof, optimizer, host-bound steps, compile mode, memory traffic of contention; 1.3 rise of the steps
over the window with its interval, in place of drift_frac; 1.4 number of different items, and sizes
that differ; 1.5 served inference: arrivals, limits, waits, capacity, tokens.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SCHEMA_VERSION = "1.5"

Kind = Literal["str", "int", "float", "bool", "json", "utc"]
Value = str | int | float | bool | None
Row = dict[str, Value]
"""One trial; keys are column names; a missing key and None are both "not measured"."""


@dataclass(frozen=True)
class Column:
    """Name, kind and meaning of one column."""

    name: str
    kind: Kind
    group: str
    meaning: str


_TABLES = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
COLUMNS = tuple(
    Column(name, kind, group, meaning)
    for group, columns in _TABLES["columns"].items()
    for name, (kind, meaning) in columns.items()
)
BY_NAME: Mapping[str, Column] = {column.name: column for column in COLUMNS}
NAMES = tuple(BY_NAME)
STATUSES: Mapping[str, str] = _TABLES["statuses"]
REASONS: Mapping[str, str] = _TABLES["reasons"]

REQUIRED = ("schema_version", "run_id", "trial", "status", "workload", "config_hash", "device")
"""Never blank, whatever became of the trial; a file without them is no result file."""
SIGNED = (
    *(column.name for column in COLUMNS if column.name.endswith(("_frac", "_c"))),
    *("loss_first", "loss_last", "check_value", "energy_net_j", "compile_s", "seed"),
)
"""Columns that may be below zero: shares and differences, temperatures, losses."""
USABLE = ("OK", "WARN")
"""Statuses whose figures may be used."""


def has_unequal_steps(row: Row) -> bool:
    """Whether steps differ in kind: in their items' size, or, with a mitigation, in what is sent.

    The middle step is then one of a kind, and stands for no mean.
    """
    return bool(row.get("item_sizes") or row.get("mitigation"))
