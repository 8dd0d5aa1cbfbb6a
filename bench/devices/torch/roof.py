"""What a device can do at best, measured, and kept between runs.

Datasheet peaks are not reached by any program, so utilisation is also reported against a roof: the
fastest of a few square products of random numbers, on a processor of a few convolutions too, and a
copy much larger than the caches. Each device, driver, power limit, torch version and thread count
has one JSON file in the user's cache, because measuring takes seconds. A file that cannot be read
counts as missing, with a warning, and is written anew.
"""

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import torch
from msgspec import Meta, Struct, structs
from msgspec.structs import replace

from bench.core.nouns import Device
from bench.core.paths import cache_folder, write_whole
from bench.devices.host.cpu_noise import FOREIGN_CPU_WARN_FRAC, noise_between, take_snapshot
from bench.devices.telemetry.readers import baseline_of
from bench.devices.torch.detect import find
from bench.devices.torch.probe import float32_precision
from bench.devices.torch.rates import (
    CONVOLUTION_SIDES,
    SIDES,
    SUSTAINED_S,
    Timed,
    convolution_rates,
    copy_rate,
    product_rates,
    sustained_rate,
)
from bench.devices.torch.torch_adapter import adapter_for

METHOD = (
    "median of 5 batches of host wall clock between synchronisations; best square product, or "
    "on a CPU 3x3x3 convolution of 128 channels, of normal random numbers; copy counts bytes read "
    "plus written"
)
_LOG = logging.getLogger(__name__)
_CONVOLUTIONS_FRAC = 0.4
"""Of a dtype's time on a processor."""
Rate = Annotated[float, Meta(gt=0, le=1e300)]


class RoofKey(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a roof belongs to: measured under another of these it is another roof."""

    type: str
    name: str
    uuid_hash: str | None
    torch_version: str
    threads: int | None
    """CPU compute threads; None on an accelerator."""
    driver_version: str | None
    power_limit_w: float | None
    """In force when it was measured; both None on a CPU."""

    def path(self) -> Path:
        """File of the roof: readable at the front, unique at the end."""
        readable = re.sub(r"[^A-Za-z0-9]+", "-", self.name).strip("-").lower()[:40]
        kind = "cpu" if self.type == "cpu" else "accelerator"
        sides = (*SIDES[kind], *CONVOLUTION_SIDES[kind])
        own = [getattr(self, name) for name in RoofKey.__struct_fields__]
        return cache_folder() / f"roof-{readable}-{_digest(json.dumps([*own, *sides]))}.json"


class Roof(RoofKey, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Best rates seen on one device with one torch."""

    label: str
    flops_per_s: Mapping[str, Rate]
    """Best product or convolution by dtype."""
    sustained_flops_per_s: Mapping[str, Rate]
    """The best product over the last second of two, by dtype; empty on a CPU."""
    tried: Mapping[str, Mapping[str, Rate]]
    """FLOP/s of each shape, such as `8192 NT`, by dtype."""
    unsupported: tuple[str, ...]
    """Dtypes that were tried and raised."""
    bytes_per_s: Rate | None
    """Best copy, bytes read plus bytes written."""
    foreign_cpu_frac: float | None
    """Share of the machine that other programs used meanwhile; None where nothing shows it."""
    method: str
    measured_utc: str

    @property
    def is_disturbed(self) -> bool:
        """Whether so much else ran that a trial would be marked, too."""
        return (self.foreign_cpu_frac or 0.0) > FOREIGN_CPU_WARN_FRAC

    def source(self, dtype: str) -> str:
        """Where the rates of a row come from: method, best shape of those tried, and when."""
        tried = self.tried.get(dtype, {})
        best = max(tried, key=tried.__getitem__, default=None)
        shapes = f"; {best} of {', '.join(tried)}" if best else ""
        return f"{self.method}{shapes}; {self.measured_utc}"


def roof_for(device: Device, *, dtypes: Sequence[str]) -> Roof:
    """Roof from the cache, with whatever dtypes are missing in it measured and added."""
    known = load_roof(device)
    tried = () if known is None else (*known.flops_per_s, *known.unsupported)
    missing = [dtype for dtype in dtypes if dtype not in tried]
    if known is not None and not missing:
        return known
    roof = measure_roof(device.label, dtypes=missing)
    if known is not None:
        rates = ("flops_per_s", "sustained_flops_per_s", "tried")
        merged = {name: {**getattr(known, name), **getattr(roof, name)} for name in rates}
        roof = replace(roof, **merged, unsupported=(*known.unsupported, *roof.unsupported))
    save_roof(roof)
    return roof


def measure_roof(label: str, *, dtypes: Sequence[str], dtype_budget_s: float = 3.5) -> Roof:
    """Measure a device within about these seconds for each dtype, and one for the copy.

    On a CPU as many threads work as torch is set to use. The smallest shape is always measured, so
    a very slow dtype overruns the budget by a few products.
    """
    device = find(label)
    adapter = adapter_for(label)
    # An accelerator's best shape runs once more, to see what the power limit leaves of it.
    # A processor's convolutions come after its products.
    reserved_s = _CONVOLUTIONS_FRAC * dtype_budget_s if device.type == "cpu" else SUSTAINED_S
    least_s, before = dtype_budget_s / 4, take_snapshot(os.getpid())
    flops_per_s, sustained, tried = {}, {}, {}
    for dtype in dtypes:
        timed = Timed(device=device, adapter=adapter, dtype=dtype)
        with torch.inference_mode(), float32_precision(dtype):
            rates = product_rates(timed, budget_s=max(dtype_budget_s - reserved_s, least_s))
            if not rates:
                continue
            if device.type == "cpu":
                rates |= convolution_rates(timed, budget_s=reserved_s)
            shape = max(rates, key=rates.__getitem__)
            flops_per_s[dtype] = rates[shape]
            if device.type != "cpu":
                sustained[dtype] = sustained_rate(timed, shape=shape)
                flops_per_s[dtype] = max(sustained[dtype], rates[shape])
        tried[dtype] = {f"{side} {layout}": rate for (side, layout), rate in rates.items()}
    bytes_per_s = copy_rate(Timed(device=device, adapter=adapter), budget_s=1.0)
    noise = noise_between(before, take_snapshot(os.getpid()))
    return Roof(
        **structs.asdict(_key_of(device)),
        label=device.label,
        flops_per_s=flops_per_s,
        sustained_flops_per_s=sustained,
        tried=tried,
        unsupported=tuple(dtype for dtype in dtypes if dtype not in tried),
        bytes_per_s=bytes_per_s,
        foreign_cpu_frac=noise.foreign_cpu_frac,
        method=METHOD,
        measured_utc=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def load_roof(device: Device) -> Roof | None:
    """Roof measured earlier with this torch, or None; on a CPU for the threads torch uses now."""
    path = _key_of(device).path()
    try:
        roof = msgspec.json.decode(path.read_bytes(), type=Roof)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _LOG.warning("%s cannot be used (%s): the roof is measured again", path, error)
        return None
    return replace(roof, label=device.label)


def save_roof(roof: Roof) -> Path | None:
    """Write the roof; None where it cannot be kept.

    A processor's roof that was measured beside other programs is too low, and would stay so: it is
    not kept.
    """
    if roof.type == "cpu" and roof.is_disturbed:
        _LOG.warning(
            "other programs used %.0f %% of the processor: its roof is not kept",
            100 * (roof.foreign_cpu_frac or 0.0),
        )
        return None
    path = roof.path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, msgspec.json.format(msgspec.json.encode(roof), indent=2))
    except OSError as error:
        _LOG.warning("%s cannot be written (%s): the roof is measured each time", path, error)
        return None
    return path


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def hashed_uuid(device: Device) -> str | None:
    """Short hash of the device's identifier: enough to tell devices apart, not to trace one."""
    return None if device.uuid is None else _digest(device.uuid)


def _key_of(device: Device) -> RoofKey:
    """Key of a roof of this device now; an accelerator's driver and power limit are asked."""
    limits = baseline_of(device)
    return RoofKey(
        type=device.type,
        name=device.name,
        uuid_hash=hashed_uuid(device),
        torch_version=str(torch.__version__),
        threads=torch.get_num_threads() if device.type == "cpu" else None,
        driver_version=limits.driver_version,
        power_limit_w=limits.power_limit_w,
    )
