"""`<stem>.operators.json`: operator profiles of a run, beside its rows.

One profile for each configuration and device, from a separate, untimed run: which classes of
operators a step spends its time in, with FLOPs and bytes from shapes. The times are shares; how
long a step takes is what the rows say.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from bench.core.errors import DataError
from bench.hardware.operators import Operators, total
from bench.results.whole_files import write_document


class StoredProfile(Struct, frozen=True, kw_only=True):
    """The operators of one step of one configuration on one device."""

    config_hash: str
    device: str
    """Its label."""
    covered_frac: Annotated[float, Meta(ge=0, le=1)]
    """Share of the profiled step's wall time that operators on the device account for; 1 where
    operators run on the host itself."""
    operators: tuple[Operators, ...]

    def scaled_to(self, step_s: float) -> tuple[Operators, ...]:
        """Lay the shares of time over a step measured without the profiler."""
        profiled_s = total(self.operators, "time_s")
        if profiled_s <= 0.0:
            return self.operators
        factor = step_s * self.covered_frac / profiled_s
        return tuple(replace(one, time_s=(one.time_s or 0.0) * factor) for one in self.operators)


class _File(Struct):
    version: Literal[1]
    profiles: list[StoredProfile]


def profiles_path(path: Path) -> Path:
    """`run.operators.json` beside `run.csv`."""
    return path.with_name(path.stem + ".operators.json")


def write_profile(
    path: Path, *, config_hash: str, device: str, profile: Mapping[str, object]
) -> None:
    """Add or replace one configuration's profile beside the result file `path`."""
    known = read_profiles(path)
    whole = {"config_hash": config_hash, "device": device, **profile}
    known[config_hash, device] = msgspec.convert(whole, StoredProfile)
    text = msgspec.json.encode(_File(version=1, profiles=list(known.values())))
    write_document(profiles_path(path), msgspec.json.format(text, indent=1).decode() + "\n")


def read_profiles(path: Path) -> dict[tuple[str, str], StoredProfile]:
    """Profiles beside the result file, by (config_hash, device label); none when there is no file.

    `DataError` when the file is damaged.
    """
    sidecar = profiles_path(path)
    if not sidecar.exists():
        return {}
    try:
        found = msgspec.json.decode(sidecar.read_bytes(), type=_File).profiles
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{sidecar}: cannot be read ({error}); delete it or run again") from None
    return {(one.config_hash, one.device): one for one in found}
