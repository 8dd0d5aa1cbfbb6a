"""Result files to typed rows.

Columns that a newer minor version added are ignored, those that an older one lacked are blank; a
higher major version is refused, because there a column means something else. Nothing is repaired or
skipped in silence: the only thing passed over is a last line that a crash cut short, and `note`
gets a line about it. What a spreadsheet saves is read where it leaves one reading
(`bench.core.separated`); a hash or a time that it rewrote is refused. What is found wrong is a
`DataError` with line and column.
"""

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from bench.core.errors import DataError, IncompatibleError, one_of
from bench.core.paths import split_phase
from bench.core.separated import (
    HOW_TO_SAVE,
    SEPARATORS,
    Separated,
    decimal_mark,
    decoded,
    plain_number,
    separated,
    unmarked,
)
from bench.core.units import counted
from bench.results.record_text import complete_length, parse_cell
from bench.results.schema import (
    BY_NAME,
    COLUMNS,
    NAMES,
    REQUIRED,
    SCHEMA_VERSION,
    SIGNED,
    STATUSES,
    USABLE,
    Column,
    Row,
    Value,
)

_LOG = logging.getLogger(__name__)
_VERSION = re.compile(r"([0-9]{1,6})(\.[0-9]{1,6})?")
"""A spreadsheet saves 1.0 as 1."""
_MAJOR = int(SCHEMA_VERSION.partition(".")[0])
_HASHES = ("run_id", "config_hash", "env_id", "device_uuid_hash", "git_commit", "host_hash")
_NUMBER_OF_HASH = re.compile(r"[0-9]([.,][0-9]+)?[eE][+-][0-9]+|-?inf")
_REWRITTEN = re.compile(
    r"[0-9][./-][0-9]+[./-][0-9]|[0-9]\.? ?[A-Z][a-z]{2}|[A-Z][a-z]{2}[- ][0-9]|###"
)
"""A date of some country, or a cell too narrow for what it holds."""
_UNSIGNED = {
    column.name: column
    for column in COLUMNS
    if column.kind in ("int", "float") and column.name not in SIGNED
}
Place = tuple[Separated, int]
"""A file, and a line in it."""


def read_rows(path: Path, *, note: Callable[[str], None] = _LOG.warning) -> list[Row]:
    """Every row of a result file, with every column of the schema; blank cells are None."""
    return parse_rows(read_bytes(path), path=path, note=note)


def read_together(
    paths: Iterable[Path], *, note: Callable[[str], None], workloads: Sequence[str] = ()
) -> list[list[Row]]:
    """Rows of each file, to be looked at together: beside measured ones smoke rows are INVALID.

    They show that something runs, and no statistic may take them for measurements. Where there is
    nothing else they stay, with a note.
    """
    files = [read_rows(path, note=note) for path in paths]
    files = _of_workloads(files, ",".join(workloads), note=note) if workloads else files
    usable = [row for rows in files for row in rows if row["status"] in USABLE]
    smoke = [row for row in usable if "smoke" in str(row["reasons"]).split(";")]
    if smoke and len(smoke) == len(usable):
        note("only smoke rows: they show that it runs, and measure nothing")
    elif smoke:
        names = ", ".join(dict.fromkeys(str(row["workload"]) for row in smoke))
        note(
            f"left out: {counted(len(smoke), 'smoke row')} ({names}), too "
            "short to stand beside measured ones"
        )
        for row in smoke:
            row.update(status="INVALID", reasons="smoke")
    return files


def _of_workloads(
    files: list[list[Row]], texts: str, *, note: Callable[[str], None]
) -> list[list[Row]]:
    """Rows of what --workload names, in its forms; `UsageError` for what no file holds."""
    there = list(dict.fromkeys(str(row["workload"]) for rows in files for row in rows))
    kept: set[str] = set()
    for text in map(str.strip, texts.split(",")):
        found = {one for one in there if is_named(one, text)}
        if not found:
            raise one_of("--workload", text.partition("|")[0], there, hint="(of the files given)")
        kept |= found
    if left_out := [one for one in there if one not in kept]:
        note(f"left out by --workload: {', '.join(left_out)}")
    return [[row for row in rows if row["workload"] in kept] for rows in files]


def is_named(workload: str, texts: str) -> bool:
    """Whether --workload, with commas or bars between its forms, names a row's workload."""
    net, _, own_phase = workload.rpartition("-")
    for text in map(str.strip, re.split("[,|]", texts)):
        name, phase = split_phase(text)
        # As `bench.discovery` names the workload of a file.
        name = Path(name).stem.replace("-", "_") if ".py" in name else name
        is_of_net = name in ("all", "everything", net) or fnmatchcase(workload, name)
        if is_of_net and phase in (None, own_phase):
            return True
    return False


def read_all(
    paths: Iterable[Path], *, note: Callable[[str], None], workloads: Sequence[str] = ()
) -> list[Row]:
    """Rows of all files in one list, as `read_together` gives them."""
    return [row for rows in read_together(paths, note=note, workloads=workloads) for row in rows]


def read_bytes(path: Path) -> bytes:
    """Content of a file that must be an ordinary one."""
    try:
        if path.is_dir():
            raise DataError(f"{path}: is a folder; give the CSV files in it, such as {path}/*.csv")
        if path.exists() and not path.is_file():
            raise DataError(f"{path}: is not an ordinary file")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read: {reason}") from error


def parse_rows(data: bytes, *, path: Path, note: Callable[[str], None]) -> list[Row]:
    """Rows in the bytes of a result file; `path` is for messages."""
    table = separated(_text(data, path=path, note=note), what=str(path))
    columns = _columns_of(table.header, path=path)
    try:
        return list(_rows(table, columns=columns, mark=None))
    except DataError:
        # Numbers as a spreadsheet spells them; where there are none the same is found wrong again.
        numbers = (
            cell
            for _, cells in table.records
            for column, cell in zip(columns, cells, strict=True)
            if cell and column is not None and _is_number(column)
        )
        mark = decimal_mark(table, numbers=numbers)
        return list(_rows(table, columns=columns, mark=mark))


def _rows(table: Separated, *, columns: list[Column | None], mark: str | None) -> Iterator[Row]:
    """Each record as a row; `mark` is the decimal sign where numbers are not as written here."""
    blank: Row = dict.fromkeys(NAMES)
    # A text that comes again in a column is not parsed again; figures hardly ever do.
    known: list[dict[str, Value]] = [
        {} if column is None or column.name in REQUIRED else {"": None} for column in columns
    ]
    for line, cells in table.records:
        row, where, may_be_negative = blank.copy(), (table, line), False
        for column, values, cell in zip(columns, known, cells, strict=True):
            if column is None:
                continue
            if cell in values:
                row[column.name] = values[cell]
                continue
            value = row[column.name] = _value(cell, column, where, mark)
            if "-" in cell and column.name in _UNSIGNED:
                may_be_negative = True
            elif column.kind not in ("float", "utc"):
                values[cell] = value
        if may_be_negative and (column := negative_column(row)):
            raise _damaged(str(row[column.name]), column, where, "expected 0 or more")
        yield row


def negative_column(row: Row) -> Column | None:
    """Column of a usable row that is below zero where nothing can be.

    A clock that went backwards makes a row INVALID, and its figures stay in it.
    """
    if row["status"] not in USABLE:
        return None
    for name, column in _UNSIGNED.items():
        value = row.get(name)
        if isinstance(value, int | float) and value < 0:
            return column
    return None


def _is_number(column: Column) -> bool:
    return column.kind in ("int", "float") or column.name == "schema_version"


def _columns_of(header: Sequence[str], *, path: Path) -> list[Column | None]:
    """Column of the schema for each cell of the header; None for one to ignore."""
    if missing := [name for name in REQUIRED if name not in header]:
        raise DataError(
            f"{path}: is no result file of bench: its first line has no column {', '.join(missing)}"
        )
    return [BY_NAME.get(name) for name in header]


def _check_version(version: str, *, place: str) -> None:
    match = _VERSION.fullmatch(version)
    if match is None:
        raise DataError(f"{place}: schema_version {version[:40]!r} is not like {SCHEMA_VERSION}")
    if int(match[1]) != _MAJOR:
        raise IncompatibleError(
            f"{place}: schema {version} cannot be read here, only {_MAJOR}.x; "
            "use the version of bench that wrote it, or a newer one"
        )


def _text(data: bytes, *, path: Path, note: Callable[[str], None]) -> str:
    data = unmarked(data, what=str(path))
    if not data:
        raise DataError(f"{path}: is empty")
    if data.find(b"\r\n") + 1 == data.find(b"\n") > 0:
        # Not as we write it, so no crash cut the last line: some programs end it with nothing.
        data = data.rstrip(b"\r\n") + b"\r\n"
    try:
        whole = complete_length(data)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    text = decoded(data[: whole or len(data)], what=str(path))
    if whole == 0:
        raise DataError(f"{path}: is no result file of bench: it has no complete header line")
    if whole < len(data):
        line = data.count(b"\n", 0, whole) + 1
        note(f"{path}: line {line} was cut short and is ignored")
    return text


def _value(cell: str, column: Column, where: Place, mark: str | None) -> Value:
    table, line = where
    text = plain_number(cell, mark=mark) if mark is not None and _is_number(column) else cell
    try:
        if column.kind == "str" and column.name in _HASHES and _NUMBER_OF_HASH.fullmatch(text):
            raise ValueError(
                "a spreadsheet or a script made a number of this hash, which cannot be undone; "
                "give the file as it was before"
            )
        value = parse_cell(text, column)
        if value is None and column.name in REQUIRED:
            raise ValueError("must not be blank")
        if column.name == "status" and value not in STATUSES:
            raise ValueError(f"expected one of {', '.join(STATUSES)}")
    except ValueError as error:
        raise _damaged(cell, column, where, str(error)) from error
    if column.name == "schema_version":
        _check_version(str(value), place=f"{table.what}: line {line}")
    return value


def _damaged(cell: str, column: Column, where: Place, why: str) -> DataError:
    table, line = where
    if column.kind in ("int", "float", "utc"):
        if table.separator != ",":
            why += f"; separated by {SEPARATORS[table.separator]}: {HOW_TO_SAVE}"
        elif _REWRITTEN.search(cell):
            why += f"; rewritten by a spreadsheet? {HOW_TO_SAVE}"
    return DataError(f"{table.what}: line {line}, column {column.name}: {cell[:40]!r}: {why}")
