"""Files that are whole whatever dies meanwhile: written at once, or grown by whole records.

To append is one `write` on an O_APPEND descriptor under an advisory lock, then `fsync`. Whatever a
crash left behind the last whole record is cut off before the next record, and a record that could
not be written whole (a full disk) is taken back. What a whole record is, the owner says with a
function. On Windows and on file systems without `flock` only one process may append to a file.
"""

import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from bench.core.errors import DataError, MeasurementError, UsageError
from bench.core.paths import sync, write_whole

if sys.platform != "win32":
    import fcntl

_LOG = logging.getLogger(__name__)
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND
_FLAGS |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


@contextmanager
def _locked(descriptor: int, *, path: Path) -> Iterator[None]:
    """Hold the file's lock; on a file system without locks nothing is held, and a line says so."""
    if sys.platform == "win32":
        yield
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        _warn_of_no_locks(path.parent, str(error.strerror))
    try:
        yield
    finally:
        with suppress(OSError):  # where none was taken
            fcntl.flock(descriptor, fcntl.LOCK_UN)


@cache
def _warn_of_no_locks(folder: Path, reason: str) -> None:
    _LOG.warning(
        "%s: files here cannot be locked (%s): only one run at a time may write to one",
        folder,
        reason,
    )


class AppendFile:
    """An open file with records at its end."""

    def __init__(
        self, path: Path, *, complete_length: Callable[[bytes], int], note: Callable[[str], None]
    ) -> None:
        self.path = path
        self._complete_length = complete_length
        self._note = note
        self._clean_bytes = 0
        try:
            self._descriptor = os.open(path, _FLAGS, 0o666)
        except OSError as error:
            raise DataError(f"{path}: cannot be opened for writing: {error.strerror}") from error
        try:
            with _locked(self._descriptor, path=self.path):
                self._repair()
        except BaseException:
            self.close()
            raise

    def append(self, record: bytes) -> None:
        """Write one whole record and wait for the disk; `MeasurementError` when it has no room."""
        with _locked(self._descriptor, path=self.path):
            start = self._repair()
            try:
                written = os.write(self._descriptor, record)
                if written < len(record):
                    # A disk or quota that fills up takes a part and fails only the next time.
                    os.write(self._descriptor, record[written:])
                sync(self._descriptor)
            except OSError as error:
                with suppress(OSError):  # what stays torn is cut off before the next record
                    os.ftruncate(self._descriptor, start)
                raise MeasurementError(
                    f"{self.path}: could not be written: {error.strerror}"
                ) from error
            self._clean_bytes = start + len(record)

    def close(self) -> None:
        """Let go of the file; a second time does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _repair(self) -> int:
        """Cut off what a crash, here or in another process, left torn; give the file's length."""
        size = os.fstat(self._descriptor).st_size
        if size == self._clean_bytes:
            return size
        # A shorter file was cut by someone else: nothing known about it holds any more.
        start = self._clean_bytes if size > self._clean_bytes else 0
        whole = start + self._complete_length(self._read_from(start))
        if whole < size:
            os.ftruncate(self._descriptor, whole)
            self._note(f"{self.path}: removed {size - whole} bytes of a record that was cut short")
        self._clean_bytes = whole
        return whole

    def _read_from(self, start: int) -> bytes:
        with open(self._descriptor, "rb", closefd=False) as file:
            file.seek(start)
            return file.read()


class RunLock:
    """The right to add to a run, for one process until it ends or lets go.

    The file beside the rows names its holder. What counts is the lock on the file, which goes with
    the process, however that ends. A file system without locks gives the right to everyone.
    """

    def __init__(self, path: Path, *, holder: str) -> None:
        self._path = path.with_name(path.stem + ".lock")
        while True:
            try:
                self._descriptor = os.open(self._path, _FLAGS, 0o666)
            except OSError as error:
                raise DataError(f"{self._path}: cannot be written: {error.strerror}") from error
            self._take()
            if self._is_there():
                break
            os.close(self._descriptor)  # its holder let go of it meanwhile, with the file
        with suppress(OSError):  # a full disk: the lock counts, not the name
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, holder.encode())

    def _take(self) -> None:
        if sys.platform == "win32":
            return
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._descriptor, 200, 0).decode(errors="replace")
            os.close(self._descriptor)
            raise UsageError(
                f"{self._path.stem} is being measured by {holder or 'another process'}; "
                "wait until it has ended, or end it"
            ) from None
        except OSError as error:
            _warn_of_no_locks(self._path.parent, str(error.strerror))

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._path.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Give the right up; a second time does nothing."""
        if self._descriptor >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1


def check_folder(folder: Path) -> None:
    """Refuse a folder that takes no file, before anything is measured for it; makes nothing."""
    existing = next((one for one in (folder, *folder.parents) if one.exists()), folder)
    try:
        with tempfile.TemporaryFile(dir=existing) as trial:
            trial.write(bytes(4096))  # a full disk may still take an empty file
    except OSError as error:
        raise unwritable(folder, error) from error


def unwritable(folder: Path, error: OSError) -> DataError:
    """Build the error for a folder that takes no results."""
    return DataError(
        f"{folder}: results cannot be written here: {error.strerror}; "
        "choose another folder with --out"
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
