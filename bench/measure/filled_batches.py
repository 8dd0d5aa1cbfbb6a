"""Whether samples fill a batch: asked of --data when a run is planned, and of any data in a trial.

A row says the batch that was asked for, so that a smaller one would be another measurement.
Torch-free.
"""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from bench.core.errors import DataError, UsageError
from bench.workload import Phase, UsedData, Workload


def words_of_data(workload: Workload, phase: Phase, *, data: Path) -> str:
    """Return which part of --data is used; `DataError` where it does not fill a batch."""
    used: Any = workload.data_used(phase, data)
    if not isinstance(used, UsedData):
        kind = type(used).__name__
        raise UsageError(f"the workload's data_used() answers {kind}; it must be a UsedData")
    if used.num_samples is not None:
        source = f"{data} ({used.words})" if used.words else str(data)
        check_filled(workload, phase, number=used.num_samples, source=source)
    return used.words


def check_filled(workload: Workload, phase: Phase, *, number: int, source: str) -> None:
    """Raise `DataError` where so many samples do not fill a batch."""
    size = workload.batch_size(phase)
    if number < size:
        ways = f"give more{_smaller(workload, phase, number=number)}"
        raise DataError(
            f"{source}: {number} samples for {phase.name}, but a batch takes {size}; {ways}"
        )


def _smaller(workload: Workload, phase: Phase, *, number: int) -> str:
    """Name the flag that makes a batch of so many samples; '' where there is none."""
    for field in fields(workload) if number else ():
        if getattr(workload, field.name) != workload.batch_size(phase):
            continue
        try:
            smaller = replace(workload, **{field.name: number})
        except (UsageError, ValueError):
            continue
        if smaller.batch_size(phase) == number:
            return f", or {'--batch ' if field.name == 'batch' else f'--set {field.name}='}{number}"
    return ""
