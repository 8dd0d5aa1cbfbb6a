"""A small valid row, files of rows, and a store to put them in."""

from pathlib import Path

from bench.results.record_text import format_cell, format_record
from bench.results.schema import COLUMNS, NAMES, SCHEMA_VERSION, Row
from bench.results.store import Sidecar, Store

UTC = "2030-01-31T12:00:00Z"


def small_row(**cells: object) -> Row:
    row: Row = {
        "trial": 0,
        "attempt": 1,
        "status": "OK",
        "workload": "imaging-train",
        "config_hash": "c0ffee",
        "device": "cpu",
    }
    return row | cells  # type: ignore[return-value]


def stored_row(**cells: object) -> Row:
    """As the reader gives it: every column, blanks as None."""
    whole = {"schema_version": SCHEMA_VERSION, "run_id": "r1", **small_row(**cells)}
    return {name: whole.get(name) for name in NAMES}


def file_bytes(rows: list[Row]) -> bytes:
    return format_record(list(NAMES)) + b"".join(
        format_record([format_cell(row.get(column.name), column) for column in COLUMNS])
        for row in rows
    )


def write_file(path: Path, rows: list[Row]) -> Path:
    path.write_bytes(file_bytes(rows))
    return path


def create_store(directory: Path) -> Store:
    sidecar = Sidecar(
        run_id="r1",
        started_utc=UTC,
        environment={"cpu": {"model": "made up"}},
        request={"size": "tiny"},
    )
    return Store.create(directory, sidecar=sidecar, host_hash="0123456789abcdef")
