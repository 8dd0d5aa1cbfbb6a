"""Where output goes: results to stdout, progress and advice to stderr, `--json` one document.

Tables are for people: colour only on a terminal, NO_COLOR honoured, and no animation in CI.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def is_interactive() -> bool:
    """Whether stderr is a terminal that may be animated."""
    return sys.stderr.isatty() and not os.environ.get("CI") and os.environ.get("TERM") != "dumb"


def result_console() -> Console:
    """Console for results (stdout); as wide as the terminal, 120 columns where there is none."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 120
    return Console(file=sys.stdout, width=width, highlight=False, soft_wrap=False)


def progress_console() -> Console:
    """Console for progress and advice (stderr)."""
    from rich.console import Console

    return Console(file=sys.stderr, highlight=False, force_terminal=is_interactive())


def print_json(document: Mapping[str, object] | Sequence[object]) -> None:
    """Print exactly one JSON document to stdout; NaN and infinity are refused."""
    sys.stdout.write(json.dumps(document, indent=2, allow_nan=False, default=str) + "\n")


def print_note(text: str) -> None:
    """Print one line of advice to stderr."""
    sys.stderr.write(text.rstrip("\n") + "\n")
