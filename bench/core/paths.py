"""Paths that a user typed, checked once, and files that are written whole or not at all."""

import contextlib
import errno
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


def split_phase(text: str) -> tuple[str, str | None]:
    """Workload and phase in 'imaging:train' or './mine.py:train'; None without a phase."""
    name, colon, phase = text.rpartition(":")
    # A colon of a path is none.
    is_phase = colon and not any(mark in phase for mark in (".py", "/", "\\"))
    return (name, phase) if is_phase else (text, None)


def cache_folder() -> Path:
    """`gapbench` in the cache of this user and system; an absolute XDG_CACHE_HOME wins.

    Where that cannot be written (a read-only home), one below the temporary folder.
    """
    named = _named_cache_folder()
    return named if _is_writable(named) else temporary_folder() / ".cache" / "gapbench"


def cache_note() -> str | None:
    """Say where the cache is when it is not where the user would look for it."""
    named, used = _named_cache_folder(), cache_folder()
    if named == used:
        return None
    return f"{named} cannot be written; what is kept between runs goes to {used} instead"


def _named_cache_folder() -> Path:
    # https://specifications.freedesktop.org/basedir-spec/latest/: relative ones are to be ignored.
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():
        base = Path.home() / ".cache"
        if sys.platform == "win32":
            base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        elif sys.platform == "darwin":
            base = Path.home() / "Library" / "Caches"
    return base / "gapbench"


def _is_writable(folder: Path) -> bool:
    # Path.exists raises where a parent may not be entered.
    nearest = next(one for one in (folder, *folder.parents) if os.path.exists(one))
    return nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)


def temporary_folder() -> Path:
    """Folder of this user below the system's temporary folder; made if need be."""
    import tempfile

    user = os.getuid() if sys.platform != "win32" else os.environ.get("USERNAME", "")
    folder = Path(tempfile.gettempdir()) / f"gapbench-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def short_path(path: Path) -> str:
    """Path as a reader wants it: relative where it is below the current folder, or home as ~."""
    if not path.is_absolute():
        return str(path)
    for find, prefix in ((Path.cwd, Path()), (Path.home, Path("~"))):
        with contextlib.suppress(OSError, RuntimeError):  # neither need be there
            folder = find()
            if path.is_relative_to(folder) and path != folder:
                return str(prefix / path.relative_to(folder))
    return str(path)


def write_whole(path: Path, content: bytes) -> None:
    """Write under another name, sync, and rename: a reader sees all of it or nothing.

    A pipe or a device, such as /dev/stdout, is written to and not replaced.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            sync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sync(descriptor: int) -> None:
    """Wait until the disk has a file; nothing to wait for where the file system knows no such."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise
