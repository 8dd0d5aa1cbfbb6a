"""The file of one run: created with its header, grown by one row per finished trial.

`<UTC>_<host8>_<run_id>.csv` with `<stem>.env.json` beside it, which keeps the environment and what
the run was asked to do, so that `--resume` needs nothing else. Both appear whole or not at all:
they are written under another name first. A file is never appended under another header: a new
schema is a new file. What `request` holds is the runner's business; here it only has to be JSON.
"""

import json
import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import msgspec

from bench.core.errors import DataError, IncompatibleError, MeasurementError
from bench.core.paths import write_whole
from bench.results.reader import negative_column, read_rows
from bench.results.record_text import complete_length, format_cell, format_record, parse_cell
from bench.results.schema import COLUMNS, NAMES, REASONS, REQUIRED, SCHEMA_VERSION, STATUSES, Row
from bench.results.whole_files import AppendFile, RunLock, unwritable

_LOG = logging.getLogger(__name__)


class Sidecar(msgspec.Struct, frozen=True, kw_only=True):
    """What a result file does not repeat in every row."""

    run_id: str
    started_utc: str
    environment: Mapping[str, Any]
    request: Mapping[str, Any]


def sidecar_path(path: Path) -> Path:
    """`run.env.json` beside `run.csv`."""
    return path.with_name(path.stem + ".env.json")


def write_sidecar(path: Path, sidecar: Sidecar) -> None:
    """Write or replace the sidecar of the result file `path`; `OSError` when it cannot be."""
    content = {"schema_version": SCHEMA_VERSION, **msgspec.structs.asdict(sidecar)}
    text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False)
    write_whole(sidecar_path(path), f"{text}\n".encode())


def read_sidecar(path: Path) -> Sidecar:
    """Sidecar of the result file `path`; `DataError` when it is missing or damaged."""
    sidecar = sidecar_path(path)
    try:
        return msgspec.json.decode(sidecar.read_bytes(), type=Sidecar)
    except OSError as error:
        raise DataError(
            f"{sidecar}: cannot be read: {error.strerror}; it belongs beside {path.name} "
            "and --resume needs it"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{sidecar}: is damaged: {error}") from error


def samples_path(path: Path) -> Path:
    """`run.samples.jsonl.gz` beside `run.csv`."""
    return path.with_name(path.stem + ".samples.jsonl.gz")


def requests_path(path: Path) -> Path:
    """`run.requests.jsonl.gz` beside `run.csv`."""
    return path.with_name(path.stem + ".requests.jsonl.gz")


class Store:
    """One result file, open for appending; several processes may have the same one open."""

    def __init__(self, path: Path, *, note: Callable[[str], None] = _LOG.warning) -> None:
        self.path = path
        self._note = note
        self._lock: RunLock | None = None
        self.sidecar = read_sidecar(path)
        self._check_header()
        self._file = AppendFile(path, complete_length=self._whole, note=note)

    @classmethod
    def create(cls, directory: Path, *, sidecar: Sidecar, host_hash: str) -> Self:
        """Begin a run: make the folder if needed, the sidecar, and a file with only its header."""
        moment = datetime.fromisoformat(sidecar.started_utc).strftime("%Y%m%dT%H%M%SZ")
        path = directory / f"{moment}_{host_hash[:8]}_{sidecar.run_id}.csv"
        if path.exists():
            raise DataError(f"{path}: exists already; a run never writes into another run's file")
        try:
            directory.mkdir(parents=True, exist_ok=True)
            # The sidecar first: a result file that is visible can always be resumed.
            write_sidecar(path, sidecar)
            write_whole(path, format_record(list(NAMES)))
        except OSError as error:
            raise unwritable(directory, error) from error
        return cls(path)

    @classmethod
    def open(cls, path: Path, *, note: Callable[[str], None] = _LOG.warning) -> Self:
        """Continue a run; a last row that a crash cut short is removed, and `note` is reported."""
        rows = read_rows(path, note=lambda _: None)
        store = cls(path, note=note)
        for row in rows:
            if row["run_id"] != store.run_id:
                store.close()
                raise DataError(f"{path}: holds run {row['run_id']}, not only {store.run_id}")
        return store

    def hold(self, *, holder: str) -> None:
        """Keep others from measuring this run until `close`; `UsageError` names who does."""
        self._lock = RunLock(self.path, holder=holder)

    @property
    def run_id(self) -> str:
        """Identifier of the run, as in every row."""
        return self.sidecar.run_id

    def append(self, row: Row) -> Row:
        """Add one trial, and return it as it is read back; it is on the disk when this returns.

        `schema_version` and `run_id` are filled in. `ValueError` for a row that is not of the
        schema, `MeasurementError` when the disk does not take it.
        """
        whole = {"schema_version": SCHEMA_VERSION, "run_id": self.run_id, **row}
        self._validate(whole)
        cells = [format_cell(whole.get(column.name), column) for column in COLUMNS]
        try:
            self._file.append(format_record(cells))
        except MeasurementError as error:
            raise MeasurementError(
                f"{error}; earlier rows are safe; make room, then continue with --resume"
            ) from error
        return {
            column.name: parse_cell(cell, column)
            for cell, column in zip(cells, COLUMNS, strict=True)
        }

    def rows(self) -> list[Row]:
        """All rows so far, those of other processes included."""
        return read_rows(self.path, note=self._note)

    def close(self) -> None:
        """Let go of the file, and of the run."""
        self._file.close()
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _validate(self, row: Row) -> None:
        if unknown := row.keys() - set(NAMES):
            raise ValueError(f"columns not in the schema: {', '.join(sorted(unknown))}")
        if missing := [name for name in REQUIRED if row.get(name) in (None, "")]:
            raise ValueError(f"row without {', '.join(missing)}")
        if row["schema_version"] != SCHEMA_VERSION or row["run_id"] != self.run_id:
            raise ValueError(f"row of schema {row['schema_version']}, run {row['run_id']}")
        if row["status"] not in STATUSES:
            raise ValueError(f"status {row['status']!r}")
        if column := negative_column(row):
            raise ValueError(f"column {column.name}: {row[column.name]} is below zero")
        codes = str(row.get("reasons") or "")
        if strange := [code for code in codes.split(";") if code and code not in REASONS]:
            raise ValueError(f"reasons not in the schema: {', '.join(strange)}")

    def _check_header(self) -> None:
        try:
            with self.path.open("rb") as file:
                header = file.readline()
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read: {error.strerror}") from error
        if header != format_record(list(NAMES)):
            raise IncompatibleError(
                f"{self.path}: was written with other columns than schema {SCHEMA_VERSION}; "
                "a file is never continued under another schema: start a new run"
            )

    def _whole(self, data: bytes) -> int:
        try:
            return complete_length(data)
        except ValueError as error:
            raise DataError(f"{self.path}: {error}; repair the file by hand") from error
