"""What a device can do at best, measured, and kept between runs.

Datasheet peaks are not reached by any program, so utilisation is also told against a roof: the
fastest of a few square products of random numbers, and a copy much larger than the caches. Each
device, torch version and thread count has one JSON file in the user's cache, because measuring
takes seconds. A file that cannot be read counts as missing, with a warning, and is written anew.
"""

import hashlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from bench.core.nouns import Device
from bench.devices.cpu import usable_cores
from bench.devices.detect import find
from bench.devices.noise import cpu_noise, take_snapshot
from bench.devices.rates import best_product, copy_rate
from bench.devices.torch_adapter import adapter_for

METHOD = (
    "median of 5 batches of host wall clock between synchronisations; best square product of "
    "normal random numbers; copy counts bytes read plus written"
)
_LOG = logging.getLogger(__name__)
_MOST_FOREIGN_CPU_FRAC = 0.05
"""From here on a trial is marked as disturbed, too."""
_TEXTS = ("type", "label", "name", "torch_version", "method", "measured_utc")


@dataclass(frozen=True, kw_only=True)
class Roof:
    """Best rates seen on one device with one torch."""

    type: str
    label: str
    name: str
    uuid_hash: str | None
    torch_version: str
    threads: int | None
    """CPU compute threads; None on an accelerator."""
    flops_per_s: Mapping[str, float]
    """Best product by dtype."""
    unsupported: tuple[str, ...]
    """Dtypes that were tried and raised."""
    bytes_per_s: float | None
    """Best copy, bytes read plus bytes written."""
    foreign_cpu_frac: float | None
    """Share of the machine that other programs used meanwhile; None where nothing tells."""
    method: str
    measured_utc: str


def roof_for(device: Device, *, dtypes: Sequence[str], budget_s: float = 8.0) -> Roof:
    """Roof from the cache, with whatever dtypes are missing in it measured and added."""
    known = load_roof(device, torch_version=torch.__version__)
    if known is None:
        roof = measure_roof(device.label, dtypes=dtypes, budget_s=budget_s)
    else:
        missing = set(dtypes) - set(known.flops_per_s) - set(known.unsupported)
        if not missing:
            return known
        added = measure_roof(device.label, dtypes=sorted(missing), budget_s=budget_s)
        roof = replace(
            added,
            flops_per_s={**known.flops_per_s, **added.flops_per_s},
            unsupported=(*known.unsupported, *added.unsupported),
        )
    save_roof(roof)
    return roof


def measure_roof(label: str, *, dtypes: Sequence[str], budget_s: float = 8.0) -> Roof:
    """Measure a device within about this many seconds; each dtype gets an equal part.

    On a CPU as many threads work as torch is set to use. The smallest shape is always measured, so
    a very slow dtype overruns the budget by a few products.
    """
    device = find(label)
    adapter = adapter_for(label)
    share_s = budget_s / (len(dtypes) + 1)
    before = take_snapshot(os.getpid())
    rates = {
        dtype: best_product(device, adapter=adapter, dtype=dtype, budget_s=share_s)
        for dtype in dtypes
    }
    bytes_per_s = copy_rate(device, adapter=adapter, budget_s=share_s)
    after = take_snapshot(os.getpid())
    noise = cpu_noise(
        [before, after], start_s=before.time_s, end_s=after.time_s, num_cores=usable_cores()
    )
    return Roof(
        type=device.type,
        label=device.label,
        name=device.name,
        uuid_hash=hashed_uuid(device),
        torch_version=str(torch.__version__),
        threads=_threads(device, None),
        flops_per_s={dtype: rate for dtype, rate in rates.items() if rate is not None},
        unsupported=tuple(dtype for dtype, rate in rates.items() if rate is None),
        bytes_per_s=bytes_per_s,
        foreign_cpu_frac=noise.foreign_cpu_frac,
        method=METHOD,
        measured_utc=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def load_roof(device: Device, *, torch_version: str, threads: int | None = None) -> Roof | None:
    """Roof measured earlier, or None; on a CPU for `threads`, by default those torch uses now."""
    path = roof_path(
        device_type=device.type,
        name=device.name,
        uuid_hash=hashed_uuid(device),
        torch_version=torch_version,
        threads=_threads(device, threads),
    )
    try:
        roof = _parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _LOG.warning("%s cannot be used (%s): the roof is measured again", path, error)
        return None
    return replace(roof, label=device.label)


def save_roof(roof: Roof) -> Path | None:
    """Write the roof in one step, so that nobody reads half; None where it cannot be kept.

    A processor's roof that was measured beside other programs is too low, and would stay so: it is
    not kept.
    """
    if roof.type == "cpu" and (roof.foreign_cpu_frac or 0.0) > _MOST_FOREIGN_CPU_FRAC:
        _LOG.warning(
            "other programs used %.0f %% of the processor: its roof is not kept",
            100 * (roof.foreign_cpu_frac or 0.0),
        )
        return None
    path = roof_path(
        device_type=roof.type,
        name=roof.name,
        uuid_hash=roof.uuid_hash,
        torch_version=roof.torch_version,
        threads=roof.threads,
    )
    try:
        _write(path, json.dumps(asdict(roof), indent=2, allow_nan=False))
    except OSError as error:
        _LOG.warning("%s cannot be written (%s): the roof is measured each time", path, error)
        return None
    return path


def cache_folder() -> Path:
    """`gapbench` in the user's cache; XDG_CACHE_HOME is honoured when it is absolute."""
    # https://specifications.freedesktop.org/basedir-spec/latest/: relative ones are to be ignored.
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "gapbench"


def roof_path(
    *, device_type: str, name: str, uuid_hash: str | None, torch_version: str, threads: int | None
) -> Path:
    """File of one roof: readable at the front, unique at the end."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower()[:40]
    key = json.dumps([device_type, name, uuid_hash, str(torch_version), threads])
    return cache_folder() / f"roof-{readable}-{_digest(key)}.json"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def hashed_uuid(device: Device) -> str | None:
    """Short hash of the device's identifier: enough to tell devices apart, not to trace one."""
    return None if device.uuid is None else _digest(device.uuid)


def _threads(device: Device, threads: int | None) -> int | None:
    if device.type != "cpu":
        return None
    return torch.get_num_threads() if threads is None else threads


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _parse(text: str) -> Roof:
    """Roof in a JSON text; ValueError says what is wrong with it."""
    document = json.loads(text)
    if not isinstance(document, dict) or set(document) != {item.name for item in fields(Roof)}:
        raise ValueError("not a roof of this version")
    for name in _TEXTS:
        if not isinstance(document[name], str):
            raise ValueError(f"{name} is {document[name]!r}")
    if not isinstance(document["flops_per_s"], dict) or not isinstance(
        document["unsupported"], list
    ):
        raise ValueError("the rates by dtype are not a table")
    rates: dict[str, Any] = dict(document["flops_per_s"])
    if document["bytes_per_s"] is not None:
        rates["bytes_per_s"] = document["bytes_per_s"]
    for name, rate in rates.items():
        if type(rate) not in (int, float) or not 0 < rate < float("inf"):
            raise ValueError(f"{name} is {rate!r}")
    document["unsupported"] = tuple(str(dtype) for dtype in document["unsupported"])
    return Roof(**document)
