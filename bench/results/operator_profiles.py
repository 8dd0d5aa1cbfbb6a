"""`<stem>.operators.json`: operator profiles of a run, beside its rows.

One profile for each configuration and device, from a separate, untimed run: which classes of
operators a step spends its time in, with FLOPs and bytes from shapes. The times are shares; how
long a step takes is what the rows say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bench.core.errors import DataError
from bench.hardware.operators import Operators, from_dict, total
from bench.results.sidecar import write_whole

_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class StoredProfile:
    """The operators of one step of one configuration on one device."""

    operators: tuple[Operators, ...]
    covered_frac: float
    """Share of the profiled step's wall time that operators on the device account for; 1 where
    operators run on the host itself."""

    def scaled_to(self, step_s: float) -> tuple[Operators, ...]:
        """Lay the shares of time over a step measured without the profiler."""
        profiled_s = total(self.operators, "time_s")
        if profiled_s <= 0.0:
            return self.operators
        factor = step_s * self.covered_frac / profiled_s
        return tuple(replace(one, time_s=(one.time_s or 0.0) * factor) for one in self.operators)


def profiles_path(path: Path) -> Path:
    """`run.operators.json` beside `run.csv`."""
    return path.with_name(path.stem + ".operators.json")


def write_profile(
    path: Path, *, config_hash: str, device: str, profile: Mapping[str, object]
) -> None:
    """Add or replace one configuration's profile beside the result file `path`."""
    known = [
        one
        for one in _stored(path)
        if (one.get("config_hash"), one.get("device")) != (config_hash, device)
    ]
    known.append({"config_hash": config_hash, "device": device, **profile})
    text = json.dumps({"version": _VERSION, "profiles": known}, indent=1, allow_nan=False)
    try:
        write_whole(profiles_path(path), f"{text}\n".encode())
    except OSError as error:
        raise DataError(f"{profiles_path(path)}: cannot be written: {error.strerror}") from error


def read_profiles(path: Path) -> dict[tuple[str, str], StoredProfile]:
    """Profiles beside the result file, by (config_hash, device label); none when there is no file.

    `DataError` when the file is damaged.
    """
    what = str(profiles_path(path))
    found = {}
    for one in _stored(path):
        try:
            key = str(one["config_hash"]), str(one["device"])
            covered, listed = one["covered_frac"], one["operators"]
        except KeyError as error:
            raise DataError(f"{what}: a profile lacks {error}") from None
        if not isinstance(listed, list) or not isinstance(covered, int | float):
            raise DataError(f"{what}: a profile's operators cannot be read")
        if not 0.0 <= covered <= 1.0:
            raise DataError(f"{what}: covered_frac {covered} is not between 0 and 1")
        operators = tuple(from_dict(entry, what=what) for entry in listed)
        found[key] = StoredProfile(operators=operators, covered_frac=float(covered))
    return found


def _stored(path: Path) -> list[dict[str, object]]:
    sidecar = profiles_path(path)
    if not sidecar.exists():
        return []
    try:
        document = json.loads(sidecar.read_text(encoding="utf-8"))
        profiles = document["profiles"]
        version = document["version"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise DataError(f"{sidecar}: cannot be read ({error}); delete it or run again") from None
    if version != _VERSION or not isinstance(profiles, list):
        raise DataError(f"{sidecar}: is of version {version}, only {_VERSION} can be read here")
    if not all(isinstance(one, dict) for one in profiles):
        raise DataError(f"{sidecar}: profiles must be JSON objects")
    return profiles
