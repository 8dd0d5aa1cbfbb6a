"""`<stem>.env.json`: the environment of a run and what it was asked to do.

Written whole under another name and then renamed, so that a reader sees all of it or nothing. What
`request` holds is the runner's business; here it only has to be JSON.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.core.errors import DataError
from bench.results.schema import SCHEMA_VERSION

Json = Mapping[str, object]
_KEYS = ("run_id", "started_utc", "environment", "request")


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """What a result file does not repeat in every row."""

    run_id: str
    started_utc: str
    environment: Json
    request: Json


def sidecar_path(path: Path) -> Path:
    """`run.env.json` beside `run.csv`."""
    return path.with_name(path.stem + ".env.json")


def write_sidecar(path: Path, sidecar: Sidecar) -> None:
    """Write or replace the sidecar of the result file `path`; `OSError` when it cannot be."""
    content = {"schema_version": SCHEMA_VERSION, **asdict(sidecar)}
    text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False)
    write_whole(sidecar_path(path), f"{text}\n".encode())


def read_sidecar(path: Path) -> Sidecar:
    """Sidecar of the result file `path`; `DataError` when it is missing or damaged."""
    sidecar = sidecar_path(path)
    try:
        content = json.loads(sidecar.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"{sidecar}: cannot be read: {error.strerror}; it belongs beside {path.name} "
            "and --resume needs it"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{sidecar}: is damaged: it holds no valid JSON") from error
    if not isinstance(content, dict) or any(key not in content for key in _KEYS):
        raise DataError(f"{sidecar}: lacks one of {', '.join(_KEYS)}")
    environment, request = content["environment"], content["request"]
    if not isinstance(environment, dict) or not isinstance(request, dict):
        raise DataError(f"{sidecar}: environment and request must be JSON objects")
    return Sidecar(
        run_id=str(content["run_id"]),
        started_utc=str(content["started_utc"]),
        environment=environment,
        request=request,
    )


def write_document(path: Path, text: str, *, with_folder: bool = False) -> None:
    """Write a file that the user named, with its folder if need be; `DataError` shows why not."""
    try:
        if with_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text.encode())
    except (OSError, ValueError) as error:  # ValueError: NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be written: {reason}") from error


def write_whole(path: Path, content: bytes) -> None:
    """Write under another name, sync, and rename: a reader sees all of it or nothing."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
