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
from typing import TextIO

from bench.core.errors import BenchError, ExitCode

TRACEBACK_FLAG = "--traceback"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def supply_surroundings() -> None:
    """Open the streams that are closed, and name a home and a user where the system knows none."""
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
    code = int(ExitCode.OK)
    try:
        code = verb()
        sys.stdout.flush()
    except BenchError as error:
        code = int(error.exit_code)
        _say(str(error))
    except KeyboardInterrupt:
        code = int(ExitCode.INTERRUPTED)
    except (BrokenPipeError, SystemExit) as error:
        # The reader (head, less) has seen enough. typer and rich make an exit of it.
        if not isinstance(error, OSError) and not isinstance(error.__context__, BrokenPipeError):
            raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            code = int(ExitCode.USAGE)
            name = error.filename or "what was to be printed"
            _say(_in_one_line([f"{name} could not be written: {error.strerror}", *_notes(error)]))
        else:
            code = int(ExitCode.FAULT)
            _say(_fault_line(error, shows_traceback=shows_traceback))
    for stream in (sys.stdout, sys.stderr):
        if not _can_flush(stream):
            # What is buffered must not raise again when the interpreter ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return code


def _can_flush(stream: TextIO) -> bool:
    try:
        stream.flush()
    except OSError:
        return False
    return True


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # the exit code is left
        print(f"bench: {text}", file=sys.stderr)


def _fault_line(error: Exception, *, shows_traceback: bool) -> str:
    """Say what happened, what was kept, and where the traceback is."""
    import tempfile
    import traceback

    text = "".join(traceback.format_exception(error))
    parts = [f"internal error: {type(error).__name__}: {error}", *_notes(error)]
    if shows_traceback:
        with contextlib.suppress(OSError):
            sys.stderr.write(text)
        return _in_one_line(parts)
    where = f"{TRACEBACK_FLAG} or BENCH_DEBUG=1 shows its traceback"
    with contextlib.suppress(OSError):  # no temporary folder, or it is full
        descriptor, path = tempfile.mkstemp(prefix="bench-traceback-", suffix=".txt")
        with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
        where = f"its traceback is in {path}"
    return _in_one_line([*parts, where])


def _notes(error: Exception) -> list[str]:
    return getattr(error, "__notes__", [])


def _in_one_line(parts: list[str]) -> str:
    return "; ".join(" ".join(part.split())[:500] for part in parts)
