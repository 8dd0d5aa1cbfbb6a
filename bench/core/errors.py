"""Errors that a user can cause, and the exit codes of the command line.

A `BenchError` is a user's mistake or a machine's refusal reported in one line: what is wrong, what
is allowed, what to try. The command line prints it without a traceback. Our own mistakes are
ordinary exceptions and keep theirs.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every verb; scripts and CI rely on them."""

    OK = 0
    REGRESSION = 1
    USAGE = 2
    INCONCLUSIVE = 3
    INVALID = 4
    NOTHING_MATCHED = 5
    FAULT = 70
    INTERRUPTED = 130


class BenchError(Exception):
    """What was wrong, in one line; `exit_code` is what the process ends with."""

    exit_code: ExitCode = ExitCode.USAGE
    reason: str = "error"
    """Reason code of the row, when it ends a trial."""


class UsageError(BenchError):
    """A flag, name or value that the user gave cannot be used."""


class DataError(BenchError):
    """A file that the user gave is missing, damaged or inconsistent."""


class MeasurementError(BenchError):
    """A trial could not produce a valid row on this machine."""

    exit_code = ExitCode.INVALID


class UnresolvedLinkError(MeasurementError):
    """A link's times are below what the device's timer keeps, so nothing would be emulated."""

    reason = "link_unresolved"


class IncompatibleError(BenchError):
    """Rows of a newer schema, or rows that must not be mixed."""

    exit_code = ExitCode.INVALID


class NothingMatchedError(BenchError):
    """A filter or a comparison selected nothing."""

    exit_code = ExitCode.NOTHING_MATCHED


def one_of(name: str, value: object, allowed: list[str], *, hint: str = "") -> UsageError:
    """Build the error for a value outside a list, with the nearest allowed name."""
    import difflib

    near = difflib.get_close_matches(str(value), allowed, n=1)
    guess = f"; did you mean {near[0]!r}?" if near else ""
    tail = f" {hint}" if hint else ""
    if not allowed:
        return UsageError(f"{name} {value!r}{tail}: there is none to choose from; leave it out")
    return UsageError(f"{name} {value!r} is not one of {', '.join(allowed)}{guess}{tail}")
