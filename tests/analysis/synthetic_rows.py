"""Rows as a run would have written them, with times drawn from a known distribution.

Step times are log-normal between trials (`noise_frac` is the process-to-process spread), so that
the true ratio of two groups is known exactly.
"""

import csv
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from bench.results.schema import NAMES, SCHEMA_VERSION, Row, Value

BASE: Row = {
    "schema_version": SCHEMA_VERSION,
    "run_id": "run1",
    "attempt": 1,
    "status": "OK",
    "started_utc": "2026-01-02T03:04:05Z",
    "workload": "imaging-train",
    "workload_version": "1-abc",
    "scenario": "closed_loop",
    "size": "tiny",
    "config_hash": "c0ffee",
    "params_json": '{"batch": 2, "patch": 32}',
    "seed": 1,
    "dtype": "fp32",
    "data": "generated",
    "mode": "real",
    "compile": False,
    "channels_last": False,
    "batch": 2,
    "device": "cpu",
    "device_type": "cpu",
    "device_name": "Test CPU",
    "device_count": 1,
    "torch_version": "2.13.0",
    "items_unit": "patch",
    "elements_unit": "voxel",
    "elements_per_item": 32768.0,
    "items": 200,
    "steps": 100,
}


def trials(
    *, step_ms: float = 100.0, num: int = 5, noise_frac: float = 0.02, seed: int = 0, **cells: Value
) -> list[Row]:
    """Rows of `num` trials of one configuration around `step_ms`."""
    source = np.random.default_rng(seed)
    rows = []
    for trial in range(num):
        step = step_ms * math.exp(noise_frac * source.standard_normal())
        row = {**BASE, "trial": trial, **cells}
        window_s = float(str(row["steps"])) * step / 1e3
        row.setdefault("step_median_ms", step)
        row.setdefault("window_s", window_s)
        row.setdefault("throughput_per_s", float(str(row["items"])) / window_s)
        rows.append(row)
    return rows


def write_csv(path: Path, rows: Iterable[Row]) -> Path:
    """Write rows as a result file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(NAMES)
        for row in rows:
            cells = [row.get(name) for name in NAMES]
            writer.writerow([str(one).lower() if type(one) is bool else one for one in cells])
    return path
