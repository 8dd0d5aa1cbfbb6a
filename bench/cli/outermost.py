"""Around every verb: what the caller left out is supplied, and whatever is raised becomes one line.

Streams that the caller closed, a home and a user that the system does not know: a verb finds them
all. What ends a verb ends in an exit code of README's list and never in a traceback on the screen:
that of a fault of ours is in a file, or printed for whoever asks. Rows are not this file's
business; the store has every one on the disk before the next trial begins.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable

from bench.cli.output import print_reason
from bench.core.errors import BenchError, ExitCode, UsageError

TRACEBACK_FLAG = "--traceback"
_REFUSALS = frozenset(
    [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ESTALE, errno.EROFS, errno.EACCES]
    + [errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG]
    + [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN]
)
"""What a system says of its files and limits: no fault of ours, and a traceback would not help."""
_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def supply_surroundings() -> None:
    """Open the streams that are closed, and name a home and a user where the system knows none.

    `UsageError` for what cannot be supplied: a folder to be in.
    """
    for descriptor, (name, mode) in enumerate(_STREAMS):
        try:
            os.fstat(descriptor)
        except OSError:
            # Else the next file opened would be it, and get what is printed. Lowest first: the
            # system gives the lowest free descriptor.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            setattr(sys, name, open(descriptor, mode, encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # such as under LANG=C
    try:
        os.getcwd()
    except OSError as error:
        # torch cannot load its libraries from such a place, and says something else.
        raise UsageError("the current folder is gone; change to one that is there") from error
    if sys.platform != "win32":
        _name_home_and_user()


def _name_home_and_user() -> None:
    """Many libraries ask for them, torch's compiler for the user; children inherit both."""
    import pwd

    try:
        pwd.getpwuid(os.getuid())
        if os.environ.get("HOME") == "":
            del os.environ["HOME"]
    except KeyError:
        if not os.environ.get("HOME"):
            from bench.core.paths import temporary_folder

            os.environ["HOME"] = str(temporary_folder())
        if not any(os.environ.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME")):
            os.environ["USER"] = f"uid-{os.getuid()}"


def exit_code_of(verb: Callable[[], int], *, shows_traceback: bool) -> int:
    """Run a verb to its end; every exception becomes its exit code, and one line on stderr."""
    code: int = ExitCode.OK
    try:
        code = verb()
        sys.stdout.flush()
    except BenchError as error:
        code = error.exit_code
        _say(str(error))
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    except (BrokenPipeError, SystemExit) as error:
        # The reader (head, less) has seen enough. typer and rich make an exit of it.
        if not isinstance(error, OSError) and not isinstance(error.__context__, BrokenPipeError):
            raise
    except Exception as error:
        refusal = _refusal(error)
        code = ExitCode.FAULT if refusal is None else ExitCode.USAGE
        parts = [refusal or f"internal error: {type(error).__name__}: {error}"]
        parts += getattr(error, "__notes__", [])
        if shows_traceback or refusal is None:
            parts += _traceback_place(error, is_shown=shows_traceback)
        _say("; ".join(" ".join(part.split())[:500] for part in parts))
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            # What is buffered must not raise again when the interpreter ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return int(code)


def _say(text: str) -> None:
    """Print one line; what would break it or move the cursor, out of a file's name, is replaced."""
    text = "".join(one if one.isprintable() else "?" for one in text)
    with contextlib.suppress(OSError):  # the exit code is left
        print_reason(text)


def _refusal(error: Exception) -> str | None:
    """Say what the system refuses, and for which file; None for any other exception."""
    if not isinstance(error, OSError) or error.errno not in _REFUSALS:
        return None
    if error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"what was to be printed could not be written: {error.strerror}"
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)


def _traceback_place(error: Exception, *, is_shown: bool) -> list[str]:
    """Show the traceback, or keep it in a file and say where that is."""
    import tempfile
    import traceback

    text = "".join(traceback.format_exception(error))
    with contextlib.suppress(OSError):  # no temporary folder, or it is full
        if is_shown:
            sys.stderr.write(text)
            return []
        descriptor, path = tempfile.mkstemp(prefix="bench-traceback-", suffix=".txt")
        with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
        return [f"its traceback is in {path}"]
    return [f"{TRACEBACK_FLAG} or BENCH_DEBUG=1 shows its traceback"]
