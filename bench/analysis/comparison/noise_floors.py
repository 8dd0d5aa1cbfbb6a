"""Noise floors: how far two measurements of the very same thing lie apart on this machine.

An A/A comparison runs one configuration as two arms. What it finds is noise, so a threshold below
twice that would raise alarms about nothing. Floors are kept in one JSON file in the user's cache,
by workload, configuration and device.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from bench.analysis.comparison.comparison import Strictness, compare
from bench.analysis.comparison.verdicts import METRICS
from bench.core.errors import DataError
from bench.core.paths import cache_folder
from bench.core.statistics import t_quantile
from bench.results.schema import Row
from bench.results.whole_files import write_document


@dataclass(frozen=True, kw_only=True)
class NoiseFloor:
    """Noise of one configuration on one device."""

    workload: str
    config_hash: str
    device_name: str
    floor_frac: Annotated[float, msgspec.Meta(ge=0.0)]
    """Larger of the standard error of the A/A ratio and its distance from 1."""
    ratio: float
    num_trials: int
    """Trials of the arm that has fewer."""
    measured_utc: str


def default_noise_path() -> Path:
    """Where floors are kept."""
    return cache_folder() / "noise.json"


def measure_noise(
    arm_a: Sequence[Row], arm_b: Sequence[Row], *, measured_utc: str
) -> list[NoiseFloor]:
    """Floors of every configuration that both arms have with three trials or more."""
    arms = [("A", arm_a), ("B", arm_b)]
    comparison = compare(arms, metric=METRICS["time"], strictness=Strictness())
    floors = []
    for row in comparison.rows:
        if row.verdict in ("", "NOT COMPARED"):
            continue
        assert row.change is not None and row.change.half_width is not None, "judged by it"
        num = min(row.a.num, row.b.num)
        # The arms are alike, so their pooled degrees of freedom stand for Welch's.
        error = row.change.half_width / t_quantile(0.975, 2.0 * num - 2.0)
        floor = NoiseFloor(
            workload=row.a.trials.text("workload"),
            config_hash=row.a.trials.text("config_hash"),
            device_name=row.b.device,
            floor_frac=math.expm1(max(error, abs(row.change.log))),
            ratio=row.change.value,
            num_trials=num,
            measured_utc=measured_utc,
        )
        floors.append(floor)
    return floors


class _Kept(msgspec.Struct):
    """The file."""

    version: Literal[1]
    floors: list[NoiseFloor]


def load_floors(path: Path) -> list[NoiseFloor]:
    """Floors kept in `path`; none when there is no such file."""
    if not path.exists():
        return []
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Kept).floors
    except (OSError, msgspec.DecodeError) as error:
        raise DataError(
            f"{path}: is no file of noise floors ({error}); delete it and run bench calibrate"
        ) from error


def save_floors(path: Path, *, floors: Sequence[NoiseFloor]) -> None:
    """Keep floors in `path`, replacing those of the same configuration and device."""
    kept = {_key(floor): floor for floor in (*load_floors(path), *floors)}
    text = msgspec.json.format(msgspec.json.encode(_Kept(version=1, floors=list(kept.values()))))
    write_document(path, f"{text.decode()}\n", with_folder=True)


def floors_by_key(path: Path | None = None) -> dict[tuple[str, str, str], float]:
    """As `Strictness.noise_floors` takes them; those of this user where no file is named."""
    return {_key(floor): floor.floor_frac for floor in load_floors(path or default_noise_path())}


def _key(floor: NoiseFloor) -> tuple[str, str, str]:
    return floor.workload, floor.config_hash, floor.device_name
