"""Write results/README.md from the schema: `python -m scripts.results_readme`.

What a column means is said in `bench/results/schema.toml` and nowhere else; a test holds the page
to it.
"""

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from bench.results.schema import COLUMNS, REASONS, REQUIRED, SCHEMA_VERSION, STATUSES, USABLE

README = Path(__file__).parent.parent / "results" / "README.md"

KINDS = {
    "str": "UTF-8 text; a leading apostrophe before `= + - @`, tab or line end is a guard "
    "against spreadsheets running it, and is taken off when read",
    "int": "whole number of at most 64 bits",
    "float": "shortest decimal that reads back to the same double; `.` as decimal sign",
    "bool": "1 or 0",
    "json": "JSON with sorted keys and no spaces",
    "utc": "ISO 8601 with `Z`, such as `2030-01-31T12:00:00Z`",
}

UNITS = {
    "_s": "seconds",
    "_ms": "milliseconds",
    "_per_s": "per second",
    "_bytes": "bytes",
    "_flops_per_s": "floating-point operations per second; a multiply-add is 2",
    "_bytes_per_s": "bytes per second",
    "_j": "joules",
    "_w": "watts",
    "_hz": "hertz",
    "_c": "degrees Celsius",
    "_frac": "fraction, 1 is the whole",
}

FIRST = (
    "status", "reasons", "workload", "size", "dtype", "batch", "device_name", "throughput_per_s",
    "step_median_ms", "roof_frac", "mem_alloc_peak_bytes", "energy_per_item_j",
)  # fmt: skip


def _first_columns() -> list[str]:
    meanings = {column.name: column.meaning for column in COLUMNS}
    return [
        "| column | meaning |",
        "|---|---|",
        *(f"| `{name}` | {meanings[name]} |" for name in FIRST),
    ]


_INTRODUCTION = f"""\
# Results

This page is made from `bench/results/schema.toml` by `python -m scripts.results_readme`;
change the schema, not this page. Schema {SCHEMA_VERSION}.

Twelve columns answer most questions:

{chr(10).join(_first_columns())}

One file is one run, one row is one trial, and a trial is one fresh process. Rows are never dropped,
overwritten or repeated in silence: a trial that failed, was skipped or is not to be trusted is a
row that says so. A blank cell means "not measured"; it never means zero. Figures are stored in
full precision and fixed units.

## Files

| file | holds |
|---|---|
| `<UTC>_<host8>_<run_id>.csv` | the rows; `host8` begins the hash of the host name |
| `<stem>.env.json` | the environment in full, and what was asked for (`--resume` reads it) |
| `<stem>.samples.jsonl.gz` | one line of JSON per trial: every step, event and sample |
| `<stem>.operators.json` | operator profiles, which time nothing: shares of a step by class |
| `<stem>.failures.txt` | what the process of each failed trial wrote, tracebacks among it |

A line of samples is tied to its row by `config_hash`, `device`, `trial` and `attempt`; it has the
time of every step, warm-up apart, with losses, events and telemetry. What you run lands in this
folder and is ignored by git; `reference/` holds committed rows measured on real hardware.

The CSV is RFC 4180 in UTF-8 with `\\n` line ends; the first line is the header, without comments,
so that a spreadsheet and `pandas.read_csv` open it as it is. Each row is one write followed by a
sync. A last line that a crash cut short is ignored by the reader and removed by the next write.
Several processes may append to one file, except on Windows, which lacks the lock.

A file that a spreadsheet saved again is read where it leaves one reading: semicolons or tabs,
decimal commas, `sep=`, UTF-16. A hash that it made a number of, NaN, infinity, and a figure below
zero where nothing can be are refused with line and column.

Text longer than 32,767 characters is cut, as a spreadsheet would cut it. NUL and lone surrogates,
which a text file cannot hold, become U+FFFD.

## Versions

`schema_version` is `major.minor` and the first column. A minor version adds columns; a major one
changes what a column means. Readers ignore columns they do not know, leave blank those that an
older file lacks, and refuse another major version. A file is never continued under another schema:
a new schema is a new file. Never blank are:
{", ".join(f"`{name}`" for name in REQUIRED)}.
"""


def results_readme() -> str:
    """Text of results/README.md."""
    parts = [
        _INTRODUCTION,
        _section("Kinds of cells", ("kind", "written as"), KINDS.items()),
        _section("Units in names", ("a name that ends in", "is in"), UNITS.items()),
        _section("Status", ("status", "meaning"), STATUSES.items())
        + f"\nOnly {' and '.join(USABLE)} are used in comparisons. Validity is judged from "
        "conditions and\ncorrectness, never from the measured time.\n",
        _section("Reasons", ("code", "meaning, and what to do"), REASONS.items()),
        "## Columns\n\nIn the order of the file.\n",
    ]
    for group, columns in groupby(COLUMNS, key=lambda column: column.group):
        rows = ((column.name, column.kind, column.meaning) for column in columns)
        parts.append(f"### {group.capitalize()}\n\n" + _table(("column", "kind", "meaning"), rows))
    return "\n".join(parts)


def _section(title: str, header: tuple[str, str], rows: Iterable[tuple[str, str]]) -> str:
    return f"## {title}\n\n" + _table(header, rows)


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for name, *rest in rows:
        lines.append(
            " | ".join([f"| `{name}`", *(cell.replace("|", "\\|") for cell in rest)]) + " |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    README.write_text(results_readme(), encoding="utf-8")
