"""What a report rests on: the rows of several files, their sidecars, and a readable choice of them.

All rows are counted; of the configurations at most `MAX_SHOWN` become lines of a table and fewer
become marks in a plot. The choice takes turns over workloads and devices, so that each of them is
seen. Sidecars are optional: a result file that was sent alone is reported without them.
"""

import hashlib
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import TypeVar

from bench.analysis.trials.configuration import Trials, gather, grouped
from bench.core.errors import DataError, NothingMatchedError
from bench.results.beside_rows import read_samples
from bench.results.reader import read_together
from bench.results.schema import Row
from bench.results.store import Sidecar, read_sidecar, requests_path, samples_path, sidecar_path

T = TypeVar("T")
Note = Callable[[str], None]

MAX_SHOWN = 300
"""Configurations in a table; more are counted in words."""
MAX_SAMPLES_BYTES = 32 * 2**20
"""Largest samples sidecar that is opened: some 2,500 trials of a thousand steps."""


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
    notes: tuple[str, ...]
    """What was odd about the files."""

    @property
    def rows(self) -> list[Row]:
        """Every row of every file."""
        return [row for source in self.sources for row in source.rows]

    @cached_property
    def configurations(self) -> list[Trials]:
        """Configurations of each file by itself."""
        has_several = len(self.sources) > 1
        files = [(source.rows, source.label if has_several else "") for source in self.sources]
        return [trials for rows, label in files for trials in gather(rows, file=label)]

    @cached_property
    def shown(self) -> list[Trials]:
        """The configurations to show, in their order of appearance."""
        return taking_turns(
            self.configurations,
            place=lambda one: (one.text("workload"), one.one_device, one.file),
            limit=MAX_SHOWN,
        )

    @property
    def stepped(self) -> list[Trials]:
        """Those of them in which a step began when the one before ended."""
        return [one for one in self.shown if not one.is_served]

    @property
    def num_hidden(self) -> int:
        """Configurations that are not shown one by one."""
        return len(self.configurations) - len(self.shown)

    def samples(self) -> tuple[list[dict[str, object]], list[str]]:
        """Samples of the trials, as far as sidecars are there; and notes on what was not read."""
        return self._beside(samples_path, kind="samples", what="steps")

    def requests(self) -> tuple[list[dict[str, object]], list[str]]:
        """Requests of live runs, as samples are."""
        return self._beside(requests_path, kind="requests", what="hours")

    def _beside(
        self, path_of: Callable[[Path], Path], *, kind: str, what: str
    ) -> tuple[list[dict[str, object]], list[str]]:
        found: list[dict[str, object]] = []
        notes: list[str] = []
        for number, source in enumerate(self.sources):
            path = path_of(source.path)
            size_bytes = path.stat().st_size if path.exists() else 0
            if not size_bytes:
                notes.append(f"{source.label}: no {kind} beside it, so no {what} are shown")
            elif size_bytes > MAX_SAMPLES_BYTES:
                notes.append(
                    f"{source.label}: its {kind} ({size_bytes / 2**20:.0f} MiB) are more than a "
                    f"report opens ({MAX_SAMPLES_BYTES / 2**20:.0f} MiB), so no {what} are shown"
                )
            else:
                try:
                    samples = read_samples(path, note=notes.append)
                    found += [{**one, "file": number} for one in samples]
                except DataError as error:
                    notes.append(f"{kind} are left out: {error}")
        return found, notes


def taking_turns(found: Iterable[T], *, place: Callable[[T], Hashable], limit: int) -> list[T]:
    """At most `limit`, in their order: one of each place before any has two."""
    things = list(found)
    turns = grouped(range(len(things)), lambda number: place(things[number])).values()
    in_turn = chain.from_iterable(zip_longest(*turns))
    kept = islice((number for number in in_turn if number is not None), limit)
    return [things[number] for number in sorted(kept)]


def gather_evidence(
    files: Sequence[tuple[str, Path]], *, note: Note, workloads: Sequence[str] = ()
) -> Evidence:
    """Read labelled result files; `NothingMatchedError` when none of them has a row."""
    notes: list[str] = []

    def keep(text: str) -> None:
        notes.append(text)
        note(text)

    read = read_together([path for _, path in files], note=keep, workloads=workloads)
    sources = [
        Source(
            label=label,
            path=path,
            rows=rows,
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            sidecar=_sidecar(path, note=keep),
        )
        for (label, path), rows in zip(files, read, strict=True)
    ]
    if not any(source.rows for source in sources):
        names = ", ".join(str(path) for _, path in files)
        raise NothingMatchedError(f"{names}: no rows to report; was the run interrupted at once?")
    return Evidence(sources=tuple(sources), notes=tuple(notes))


def _sidecar(path: Path, *, note: Note) -> Sidecar | None:
    if not sidecar_path(path).exists():
        return None
    try:
        return read_sidecar(path)
    except DataError as error:
        note(f"its environment is left out: {error}")
        return None
