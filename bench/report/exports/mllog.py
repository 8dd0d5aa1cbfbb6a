"""Lines in the form that MLPerf's logging package writes, for tools that read such logs.

One POINT_IN_TIME line per usable trial and figure, timed at the trial's start. This is no MLPerf
result and must not be called one: the keys are ours and none of MLPerf's, the namespace says where
the lines come from, and every line's metadata says so again.
https://github.com/mlcommons/logging/blob/master/mlperf_logging/mllog/mllog.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime

from bench.report.exports.figures import MEASURES, configurations, item_of, trial_values
from bench.report.exports.selection import Selection
from bench.results.schema import Row

NOTE = (
    "these lines only have the form of MLPerf's log: "
    "they are no MLPerf result and must not be published as one"
)
_TOKEN = ":::MLLOG"


def document(selection: Selection) -> str:
    """Return the lines."""
    return "".join(pieces(selection))


def pieces(selection: Selection) -> Iterator[str]:
    """Yield the lines."""
    for one in configurations(selection.usable):
        for row in one.line.usable:
            yield from _lines(row, name=one.name)


def notes(selection: Selection) -> list[str]:
    """Lines for stderr: what this is not, and which trials have no time to log them at."""
    num_undated = sum(row.get("started_utc") is None for row in selection.usable)
    undated = f"{num_undated} rows without started_utc are left out: a log line needs a time"
    return [NOTE, *([undated] if num_undated else [])]


def _lines(row: Row, *, name: str) -> Iterator[str]:
    if row.get("started_utc") is None:
        return
    time_ms = round(datetime.fromisoformat(str(row["started_utc"])).timestamp() * 1e3)
    item = item_of(row)
    for measure in MEASURES:
        for value in trial_values([row], measure.column):
            content = {
                "namespace": "gapbench",
                "time_ms": time_ms,
                "event_type": "POINT_IN_TIME",
                "key": f"gapbench_{measure.key.format(item=item)}",
                "value": value,
                "metadata": {
                    "is_mlperf_result": False,
                    "name": name,
                    "unit": measure.unit.format(item=item),
                    "trial": row["trial"],
                    "status": row["status"],
                    "mode": row.get("mode"),
                    "link": row.get("link"),
                    "device_count": row.get("device_count"),
                    "run_id": row["run_id"],
                },
            }
            yield f"{_TOKEN} {json.dumps(content, allow_nan=False)}\n"
