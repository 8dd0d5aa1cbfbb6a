"""Paths that a user typed, checked once, and files that are written whole or not at all."""

import os
import sys
from pathlib import Path

from bench.core.errors import UsageError


def user_path(text: str, *, what: str) -> Path:
    """Path with a leading ~ expanded; `UsageError` when the system cannot look such a path up."""
    try:
        path = Path(text).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        # Too long a name, a folder that may not be entered, an unknown user, a NUL.
        reason = getattr(error, "strerror", None) or error
        shown = text if len(text) <= 60 else f"{text[:60]}..."
        raise UsageError(f"{what} {shown!r} cannot be looked up: {reason}") from error
    return path


def cache_folder() -> Path:
    """`gapbench` in the cache of this user and system; an absolute XDG_CACHE_HOME wins."""
    # https://specifications.freedesktop.org/basedir-spec/latest/: relative ones are to be ignored.
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():
        base = Path.home() / ".cache"
        if sys.platform == "win32":
            base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        elif sys.platform == "darwin":
            base = Path.home() / "Library" / "Caches"
    return base / "gapbench"


def short_path(path: Path) -> str:
    """Path as a reader wants it: relative where it is below the current folder, or home as ~."""
    for folder, prefix in ((Path.cwd(), Path()), (Path.home(), Path("~"))):
        if path.is_absolute() and path.is_relative_to(folder) and path != folder:
            return str(prefix / path.relative_to(folder))
    return str(path)


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
