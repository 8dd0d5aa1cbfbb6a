"""What a report rests on: the rows of several files, their sidecars, and a readable choice of them.

All rows are counted; of the configurations at most `MAX_SHOWN` become lines of a table and fewer
become marks in a plot. The choice takes turns over workloads and devices, so that each of them is
seen. Sidecars are optional: a result file that was sent alone is reported without them.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from bench.analysis.trials.configuration import Trials, gather
from bench.core.errors import DataError, NothingMatchedError
from bench.results.reader import read_rows
from bench.results.samples import read_samples
from bench.results.schema import Row
from bench.results.store import Sidecar, read_sidecar, samples_path, sidecar_path

T = TypeVar("T")
Note = Callable[[str], None]

MAX_SHOWN = 300
"""Configurations in a table; more are counted in words."""
MAX_SAMPLES_BYTES = 32 * 2**20
"""Largest samples sidecar that is opened: some 2,500 trials of a thousand steps."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Source:
    """One result file and what lies beside it."""

    label: str
    path: Path
    rows: Sequence[Row]
    sha256: str
    sidecar: Sidecar | None


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Rows, configurations and sidecars of all files."""

    sources: tuple[Source, ...]
    configurations: tuple[Trials, ...]
    notes: tuple[str, ...]
    """What was odd about the files."""

    @property
    def rows(self) -> list[Row]:
        """Every row of every file."""
        return [row for source in self.sources for row in source.rows]

    @property
    def labels(self) -> tuple[str, ...]:
        """Names that tell the files apart."""
        return tuple(source.label for source in self.sources)

    @cached_property
    def shown(self) -> list[Trials]:
        """The configurations to show, in their order of appearance."""
        return taking_turns(
            self.configurations,
            place=lambda one: (one.text("workload"), one.text("device_name"), one.file),
            limit=MAX_SHOWN,
        )

    @property
    def num_hidden(self) -> int:
        """Configurations that are not shown one by one."""
        return len(self.configurations) - len(self.shown)

    def samples(self) -> tuple[list[dict[str, object]], list[str]]:
        """Samples of the trials, as far as sidecars are there; and notes on what was not read."""
        found: list[dict[str, object]] = []
        notes: list[str] = []
        for number, source in enumerate(self.sources):
            path = samples_path(source.path)
            if not path.exists():
                notes.append(f"{source.label}: no samples beside it, so no steps are shown")
                continue
            size_bytes = path.stat().st_size
            if size_bytes > MAX_SAMPLES_BYTES:
                notes.append(
                    f"{source.label}: its samples ({size_bytes / 2**20:.0f} MiB) are more than a "
                    f"report opens ({MAX_SAMPLES_BYTES / 2**20:.0f} MiB), so no steps are shown"
                )
                continue
            try:
                found += [{**one, "file": number} for one in read_samples(path, note=notes.append)]
            except DataError as error:
                notes.append(f"samples are left out: {error}")
        return found, notes


def taking_turns(found: Iterable[T], *, place: Callable[[T], object], limit: int) -> list[T]:
    """At most `limit`, in their order: one of each place before any has two."""
    turns: Counter[object] = Counter()
    ranked = []
    for number, one in enumerate(found):
        ranked.append((turns[place(one)], number, one))
        turns[place(one)] += 1
    kept = sorted(ranked, key=lambda entry: entry[:2])[:limit]
    return [one for _, _, one in sorted(kept, key=lambda entry: entry[1])]


def gather_evidence(files: Sequence[tuple[str, Path]], *, note: Note = _LOG.warning) -> Evidence:
    """Read labelled result files; `NothingMatchedError` when none of them has a row."""
    notes: list[str] = []

    def keep(text: str) -> None:
        notes.append(text)
        note(text)

    read = [(label, path, read_rows(path, note=keep)) for label, path in files]
    if not any(rows for _, _, rows in read):
        names = ", ".join(str(path) for _, path in files)
        raise NothingMatchedError(f"{names}: no rows to report; was the run interrupted at once?")
    sources = [
        Source(
            label=label,
            path=path,
            rows=rows,
            sha256=_sha256(path),
            sidecar=_sidecar(path, note=keep),
        )
        for label, path, rows in read
    ]
    has_several = len(sources) > 1
    return Evidence(
        sources=tuple(sources),
        configurations=tuple(
            trials
            for source in sources
            for trials in gather(source.rows, file=source.label if has_several else "")
        ),
        notes=tuple(notes),
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sidecar(path: Path, *, note: Note) -> Sidecar | None:
    if not sidecar_path(path).exists():
        return None
    try:
        return read_sidecar(path)
    except DataError as error:
        note(f"its environment is left out: {error}")
        return None
