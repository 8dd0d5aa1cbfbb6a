"""The JSON of pytest-benchmark 5, for `pytest-benchmark compare` and what else reads it.

Its rounds are our trials: `data` holds each trial's median step in seconds, and the statistics are
those that pytest-benchmark computes of its own rounds, by its definitions (a single round has a
standard deviation of 0 there). `ops` is steps per second. Throughput, memory and energy have no
place in this format; they are in `extra_info`.
https://pytest-benchmark.readthedocs.io/en/latest/comparing.html
"""

import json
import math
from collections.abc import Sequence
from statistics import median, stdev

from bench import __version__
from bench.report.exports.figures import HOW_AND_WHERE, ExportedRows, Named
from bench.results.schema import Row, has_unequal_steps

FORMAT_VERSION = "5.3.1"
"""Version of pytest-benchmark whose files these are like."""
_MACHINE = {
    "node": "host_hash",
    "processor": "cpu_model",
    "system": "os_version",
    "python_version": "python_version",
    "device": "device_name",
    "torch_version": "torch_version",
    "driver_version": "driver_version",
}
_EXTRA = (*HOW_AND_WHERE, "workload_version", "config_hash", "torch_version", "items_unit")


def document(selection: ExportedRows) -> str:
    """Return the file's text."""
    rows = selection.usable
    content = {
        "machine_info": {
            name: value for name, column in _MACHINE.items() if (value := _shared(rows, column))
        },
        "commit_info": _commit_info(rows),
        "benchmarks": [_entry(one) for one in selection.configurations if _steps_ms(one)],
        # When the last trial began, so that the same rows always give the same file.
        "datetime": max((str(row.get("started_utc") or "") for row in rows), default=""),
        "version": FORMAT_VERSION,
    }
    return json.dumps(content, indent=4, allow_nan=False) + "\n"


def _steps_ms(one: Named) -> list[float]:
    return one.trials.figures(f"step_{_kind(one)}_ms")


def _kind(one: Named) -> str:
    """Mean where steps are not alike."""
    return "mean" if any(map(has_unequal_steps, one.trials.used)) else "median"


def notes(selection: ExportedRows) -> list[str]:
    """Lines for stderr about configurations that have no step time."""
    untimed = [one.name for one in selection.configurations if not _steps_ms(one)]
    return [f"{name}: has no step time and is left out" for name in untimed]


def _entry(one: Named) -> dict[str, object]:
    row = one.trials.first
    facts = {name: row[name] for name in _EXTRA if row.get(name) is not None}
    return {
        "group": None,
        "name": one.name,
        "fullname": one.name,
        "params": {"device": row.get("device_name") or row["device"]},
        "param": None,
        "extra_info": {
            "made_by": f"gapbench {__version__}",
            "round": f"one trial: a fresh process; its time is the trial's {_kind(one)} step",
            **facts,
            "params": json.loads(str(row.get("params_json") or "{}")),
            "figures": {figure.key: figure.value for figure in one.figures()},
        },
        "options": {"timer": "perf_counter", "warmup": True},
        "stats": stats_of([value / 1e3 for value in _steps_ms(one)]),
    }


def stats_of(data_s: Sequence[float]) -> dict[str, object]:
    """Statistics of rounds, as pytest-benchmark defines each."""
    import numpy as np

    num, total_s = len(data_s), math.fsum(data_s)
    mean_s, ordered = total_s / num, sorted(data_s)
    stddev_s = stdev(data_s) if num > 1 else 0.0
    # Quartiles at n/4 - 1/2 and 3n/4 - 1/2 of the sorted rounds: Wikipedia's method 2 for an even
    # number and method 3 for an odd one, https://en.wikipedia.org/wiki/Quartile#Computing_methods
    q1_s, q3_s = map(float, np.percentile(data_s, (25, 75), method="hazen"))
    iqr_s = q3_s - q1_s
    low_s, high_s = q1_s - 1.5 * iqr_s, q3_s + 1.5 * iqr_s
    num_far = sum(not mean_s - stddev_s <= value <= mean_s + stddev_s for value in data_s)
    num_outside = sum(not low_s <= value <= high_s for value in data_s)
    return {
        "min": ordered[0],
        "max": ordered[-1],
        "mean": mean_s,
        "stddev": stddev_s,
        "rounds": num,
        "median": median(data_s),
        "iqr": iqr_s,
        "q1": q1_s,
        "q3": q3_s,
        "iqr_outliers": num_outside,
        "stddev_outliers": num_far,
        "outliers": f"{num_far};{num_outside}",
        "ld15iqr": min(value for value in ordered if value >= low_s),
        "hd15iqr": max(value for value in ordered if value <= high_s),
        "ops": num / total_s,
        "total": total_s,
        "data": list(data_s),
        "iterations": 1,
    }


def _shared(rows: Sequence[Row], column: str) -> str:
    """Return the value of a column in which all rows agree; '' where they do not."""
    values = {row.get(column) for row in rows}
    return str(values.pop() or "") if len(values) == 1 else ""


def _commit_info(rows: Sequence[Row]) -> dict[str, object]:
    commit = _shared(rows, "git_commit")
    id, is_dirty = commit.removesuffix("-dirty"), commit.endswith("-dirty")
    return {"id": id, "dirty": is_dirty, "project": "gapbench"} if commit else {}
