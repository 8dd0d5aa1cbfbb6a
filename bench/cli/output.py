"""Where output goes: results to stdout, progress and advice to stderr, `--json` one document.

Tables are for people: colour only on a terminal, NO_COLOR honoured, and no animation in CI.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.report.tables.grid import Grid


def is_interactive() -> bool:
    """Whether stderr is a terminal that may be animated."""
    return sys.stderr.isatty() and not os.environ.get("CI") and os.environ.get("TERM") != "dumb"


def print_json(document: Mapping[str, object] | Sequence[object]) -> None:
    """Print exactly one JSON document to stdout; NaN and infinity are refused."""
    sys.stdout.write(json.dumps(document, indent=2, allow_nan=False, default=str) + "\n")


def print_note(text: str) -> None:
    """Print one line of advice to stderr."""
    with suppress(OSError):  # a full disk under a log must not cost the answer
        sys.stderr.write(text.rstrip("\n") + "\n")


def print_reason(text: str) -> None:
    """Print why the verb ends without its answer, and leave it where torchrun, if any, looks."""
    print_note(f"bench: {text}")
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        extra = {"py_callstack": text, "timestamp": str(int(time.time()))}
        with suppress(OSError):  # of a job that is gone
            Path(path).write_text(json.dumps({"message": {"message": text, "extraInfo": extra}}))


def print_grids(
    grids: Sequence[Grid], *, lines: Sequence[str] = (), is_markdown: bool = False
) -> None:
    """Print tables with their notes, and lines below them, for a terminal or as Markdown.

    As wide as the terminal or COLUMNS; 100 columns where neither says how wide that is.
    """
    from bench.report.tables.grid import markdown, print_tables

    if is_markdown:
        sys.stdout.write(markdown(grids, lines=lines) + "\n")
        return
    from rich.console import Console

    columns = os.environ.get("COLUMNS", "")
    width = int(columns) if columns.isdecimal() and int(columns) else None
    if width is None and not sys.stdout.isatty():
        width = 100
    print_tables(Console(file=sys.stdout, width=width, highlight=False), grids, lines=lines)


def print_answer(
    form: str,
    grids: Sequence[Grid],
    *,
    document: Callable[[], Mapping[str, object] | Sequence[object]],
    lines: Sequence[str] = (),
) -> None:
    """Print an answer in the format asked for: table, markdown or json."""
    if form == "json":
        print_json(document())
    else:
        print_grids(grids, lines=lines, is_markdown=form == "markdown")


def print_card(
    title: str, facts: Mapping[str, str], *, sources: Sequence[str], lead: Sequence[str] = ()
) -> None:
    """Print all that is known of one thing: sentences, a fact a line, and where it is from."""
    width = max(map(len, facts))
    lines = [title, *(f"  {sentence}" for sentence in lead)]
    lines += [f"  {name.ljust(width)}  {text}" for name, text in facts.items()]
    print("\n".join([*lines, "Sources", *(f"  {source}" for source in sources)]))


def text_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, left: Sequence[str] = ()
) -> str:
    """Align columns with spaces, figures to the right; `left` names those set to the left.

    A head may have several lines. For verbs that must start at once: rich takes longer to import
    than they take to run.
    """
    height = max(head.count("\n") for head in header)
    columns = []
    for head, *cells in zip(header, *rows, strict=True):
        heads = [*[""] * (height - head.count("\n")), *head.split("\n")]
        width = max(map(len, (*heads, *cells)))
        adjust = str.ljust if head in left else str.rjust
        columns.append([adjust(text, width) for text in (*heads, "-" * width, *cells)])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))
