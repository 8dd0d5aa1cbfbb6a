"""What `bench doctor` says about one thing that may spoil a measurement."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""error: figures would be invalid; warning: noisier or slower; note: worth knowing."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One observation. The harness changes nothing: `fix` is a command for the reader."""

    severity: Severity
    what: str
    why: str
    """How it spoils a measurement."""
    fix: str
