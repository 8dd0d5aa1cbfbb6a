"""Which rows of some result files an export may use, and what to say about the others.

A trial counts once: the first usable attempt of it, however often its row was given (a file named
twice would otherwise look twice as certain). Rows that give no figure are kept beside the usable
ones, because every export says how many there were and why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bench.analysis.trials.configuration import is_virtual
from bench.report.tables.grid import plain
from bench.results.schema import USABLE, Row

_MADE_UP = ("loss_first", "loss_last", "energy_per_item_j")


@dataclass(frozen=True, kw_only=True)
class ExportedRows:
    """Rows of all files, distinguished by what may be done with them; each once, in their order."""

    rows: tuple[Row, ...]
    """Every row."""
    usable: tuple[Row, ...]
    """One row per usable trial."""
    unusable: tuple[Row, ...]
    """Rows that are not OK or WARN."""
    num_repeated: int
    """Rows left out because the same trial was given before."""

    def notes(self) -> list[str]:
        """Lines for stderr about what gives no figure; none when every row does."""
        lines = []
        if self.unusable:
            kinds = Counter(_kind(row) for row in self.unusable)
            reported = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
            lines.append(
                f"{len(self.unusable)} of {len(self.rows)} rows are not usable "
                f"and give no figures: {reported}"
            )
        if self.num_repeated:
            lines.append(f"{self.num_repeated} rows were given more than once and count once")
        return lines


def select(rows: Sequence[Row]) -> ExportedRows:
    """Sort the rows of one or more files; cells that virtual ranks make meaningless are blank."""
    rows = [_without_made_up(row) for row in rows]
    every: dict[tuple[object, ...], Row] = {}
    trials: dict[tuple[object, ...], Row] = {}
    for row in rows:
        trial = (row["run_id"], row["config_hash"], row["device"], row["trial"])
        every.setdefault((*trial, row.get("attempt"), row.get("started_utc"), row["status"]), row)
    for row in sorted(every.values(), key=lambda row: int(row.get("attempt") or 1)):
        if row["status"] in USABLE:
            trial = (row["run_id"], row["config_hash"], row["device"], row["trial"])
            trials.setdefault(trial, row)
    chosen = {id(row) for row in trials.values()}
    unusable = tuple(row for row in every.values() if row["status"] not in USABLE)
    usable = tuple(row for row in every.values() if id(row) in chosen)
    return ExportedRows(
        rows=tuple(every.values()),
        usable=usable,
        unusable=unusable,
        num_repeated=len(rows) - len(usable) - len(unusable),
    )


def _without_made_up(row: Row) -> Row:
    """Leave out what one real device cannot show of several: their loss, their energy per item."""
    if not is_virtual(row):
        return row
    return {**row, **dict.fromkeys(_MADE_UP)}


def _kind(row: Row) -> str:
    reasons = plain(str(row.get("reasons") or "")).replace(";", ", ")
    return f"{row['status']} ({reasons})" if reasons else str(row["status"])
