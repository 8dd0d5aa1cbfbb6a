"""What a report rests on: the rows of several files, their sidecars, and a readable choice of them.

All rows are counted; of the configurations at most `MAX_SHOWN` become lines of a table and fewer
become marks in a plot. The choice takes turns over workloads and devices, so that each of them is
seen. Sidecars are optional: a result file that was sent alone is reported without them.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.analysis.groups import Groups, gather
from bench.core.errors import DataError, NothingMatchedError
from bench.report.tables.run_table import Line
from bench.results.frame import read_frame
from bench.results.samples import read_samples
from bench.results.schema import USABLE, Row
from bench.results.sidecar import Sidecar, read_sidecar, sidecar_path
from bench.results.store import samples_path

if TYPE_CHECKING:
    import pandas as pd

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
    num_rows: int
    sha256: str
    sidecar: Sidecar | None


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One configuration on one device in one file, as the report shows it."""

    line: Line
    file: str
    """Label of the file; '' when there is only one."""

    @property
    def device(self) -> str:
        """Name of the device, with its count when several took part."""
        row = self.line.first
        count = row.get("device_count")
        name = str(row.get("device_name") or row["device"])
        return f"{count} x {name}" if isinstance(count, int) and count > 1 else name

    @property
    def mode(self) -> str:
        """real, throttled, emulated or simulated."""
        return str(self.line.first.get("mode") or "real")


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Rows, groups and sidecars of all files."""

    sources: tuple[Source, ...]
    frames: tuple[pd.DataFrame, ...]
    frame: pd.DataFrame
    groups: Groups
    notes: tuple[str, ...]
    """What was odd about the files."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names that tell the files apart."""
        return tuple(source.label for source in self.sources)

    @cached_property
    def chosen(self) -> list[int]:
        """Numbers of the groups to show, in their order of appearance."""
        table = self.groups.table
        places = ["workload", "device_number", "file"]
        turn = table.groupby(places, observed=True, sort=False).cumcount()
        first = turn.sort_values(kind="stable").index[:MAX_SHOWN]
        return sorted(int(number) for number in first)

    @property
    def num_hidden(self) -> int:
        """Configurations that are not shown one by one."""
        return len(self.groups.table) - len(self.chosen)

    @cached_property
    def shown(self) -> list[Shown]:
        """The configurations to show, each with its rows."""
        by_group = self.rows_by_group(self.chosen)
        has_several = len(self.sources) > 1
        files = self.groups.table["file"]
        return [
            Shown(
                line=Line(rows=rows, usable=[row for row in rows if row["status"] in USABLE]),
                file=self.labels[int(files[number])] if has_several else "",
            )
            for number, rows in by_group.items()
        ]

    def rows_by_group(self, numbers: Sequence[int]) -> dict[int, list[Row]]:
        """Rows of some groups as dictionaries, blanks as None."""
        group = self.groups.trials["group"].to_numpy()
        is_wanted = np.isin(group, np.asarray(numbers))
        part = self.frame[is_wanted]
        part = part.dropna(axis="columns", how="all")
        columns = {str(name): _cells(part[name]) for name in part}
        found: dict[int, list[Row]] = {number: [] for number in numbers}
        for number, cells in zip(
            group[is_wanted].tolist(), zip(*columns.values(), strict=True), strict=True
        ):
            found[number].append(dict(zip(columns, cells, strict=True)))
        return found

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


def _cells(series: pd.Series) -> list[object]:
    values = series.astype(object)
    return values.where(series.notna(), None).tolist()


def gather_evidence(files: Sequence[tuple[str, Path]], *, note: Note = _LOG.warning) -> Evidence:
    """Read labelled result files; `NothingMatchedError` when none of them has a row."""
    import pandas as pd

    notes: list[str] = []

    def keep(text: str) -> None:
        notes.append(text)
        note(text)

    frames = [read_frame([path], note=keep) for _, path in files]
    if not any(len(frame) for frame in frames):
        names = ", ".join(str(path) for _, path in files)
        raise NothingMatchedError(f"{names}: no rows to report; was the run interrupted at once?")
    sources = [
        Source(
            label=label,
            path=path,
            num_rows=len(frame),
            sha256=_sha256(path),
            sidecar=_sidecar(path, note=keep),
        )
        for (label, path), frame in zip(files, frames, strict=True)
    ]
    labelled = [(source.label, frame) for source, frame in zip(sources, frames, strict=True)]
    return Evidence(
        sources=tuple(sources),
        frames=tuple(frames),
        frame=frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True),
        groups=gather(labelled, columns=()),
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
