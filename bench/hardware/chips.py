"""The catalogue of chips and systems from `chips.yaml`: all rows, one by name, or a device's own.

An unknown key, a wrong type or an unlisted source is an error that names row and key. Figures that
two sources dispute are noted in the row, not averaged. What a chip reaches is what somebody
measured, with its basis. No match of a device means that it is not in the catalogue, several mean
that name and memory do not tell it apart; neither is ever resolved by guessing, because a wrong row
lends wrong peaks.
"""

import re
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, field
from msgspec.structs import asdict

from bench.core.errors import UsageError
from bench.core.nouns import Chip, Reach, Scalar
from bench.hardware.loader import (
    AboveZero,
    Citations,
    Count,
    Declared,
    Number,
    Text,
    read_document,
)

# Drivers report less than is soldered on (up to 7 % kept for firmware and error correction), and
# vendors write GB where GiB are meant (1.0737), so what is reported may lie on either side.
_LEAST = 0.93
_MOST = 1.075


def _without(prefix: str) -> Any:
    """Keys inside a block do not repeat its name, fields of a flat row do."""
    return lambda name: name.removeprefix(prefix)


class _Memory(Declared, rename=_without("memory_"), frozen=True, kw_only=True):
    memory_bytes: Number | None = None
    memory_bytes_per_s: Number | None = None
    memory_type: Text | None = None
    l2_bytes: Number | None = None
    on_chip_bytes: Number | None = None


class _Torch(Declared, rename=_without("torch_"), frozen=True, kw_only=True):
    torch_stack: Text | None = None
    torch_device: Text | None = None


class _ChipLink(Declared, rename=_without("link_"), frozen=True, kw_only=True):
    link_name: Text | None = None
    link_topology: Text
    link_bytes_per_s: Number | None = None
    link_pair_bytes_per_s: Number | None = None


class _HostLink(Declared, rename=_without("host_"), frozen=True, kw_only=True):
    host_pcie_gen: Count | None = None
    host_lanes: Count | None = None
    host_bytes_per_s: Number | None = None


class _Units(Declared, frozen=True, kw_only=True):
    compute_units: Count | None = field(name="count", default=None)
    compute_unit_kind: Text | None = field(name="kind", default=None)
    cuda_cores: Count | None = None
    tensor_cores: Count | None = None


class _Derate(Declared, frozen=True, kw_only=True):
    fraction: Annotated[float, Meta(gt=0, le=1)]
    source: Text


class _Reach(Declared, frozen=True, kw_only=True):
    low: AboveZero
    high: AboveZero
    basis: Literal["measured", "kin", "formula"]
    sources: Citations
    note: Text | None = None

    def reach(self) -> Reach:
        return Reach(**asdict(self))


class _Facts(Declared, frozen=True, kw_only=True):
    """What a row states outside of its blocks and `Chip` has no field for."""

    form_factor: Text
    release_year: Count
    process_nm: Number | None = None
    torch_devices: Count
    dies: Count | None = None
    fp64_matrix_flops_per_s: Number | None = None
    fp32_matrix_flops_per_s: Number | None = None
    vector_fp32_flops_per_s: Number | None = None
    int8_vector_ops_per_s: Number | None = None
    fp4_flops_per_s: Number | None = None
    fp16_accumulate_fp16_flops_per_s: Number | None = None
    fp8_accumulate_fp16_flops_per_s: Number | None = None
    max_clock_hz: Number | None = None
    tensor_clock_hz: Number | None = None
    silicon: Text | None = None
    die_area_mm2: Number | None = None
    note: Text | None = None


class ChipRow(_Facts, frozen=True, kw_only=True):
    """One chip as the file has it."""

    id: Text
    name: Text
    vendor: Text
    kind: Literal["gpu", "npu", "cpu", "neuromorphic"]
    confidence: Literal["high", "medium", "low"]
    sources: Citations
    device_names: tuple[Text, ...] = ()
    named_in: tuple[Text, ...] = ()
    tdp_w: Number | None = None
    dense_per_s: dict[Literal["fp64", "fp32", "tf32", "bf16", "fp16", "fp8", "int8"], Number] = {}
    reaches: dict[Literal["gemm", "gemm_fp8", "memory", "cache"], _Reach] = {}
    derates: dict[Literal["p2p", "all_reduce"], _Derate] = {}
    memory: _Memory = _Memory()
    torch: _Torch = _Torch()
    link: _ChipLink
    host_link: _HostLink = _HostLink()
    units: _Units = _Units()

    def chip(self) -> Chip:
        """Build the noun; absent figures stay absent."""
        blocks = (self.torch, self.memory, self.link, self.host_link, self.units)
        facts: dict[str, Scalar] = {
            **{name: getattr(self, name) for name in _Facts.__struct_fields__},
            **{name: value for block in blocks for name, value in asdict(block).items()},
            "named_in": " ".join(self.named_in) or None,
            **{f"derate_{kind}_source": derate.source for kind, derate in self.derates.items()},
        }
        own = {"memory_bytes", "memory_bytes_per_s"}
        return Chip(
            id=self.id,
            name=self.name,
            vendor=self.vendor,
            kind=self.kind,
            peak_per_s={str(dtype): rate for dtype, rate in self.dense_per_s.items()},
            memory_bytes=self.memory.memory_bytes,
            memory_bytes_per_s=self.memory.memory_bytes_per_s,
            tdp_w=self.tdp_w,
            confidence=self.confidence,
            sources=self.sources,
            facts={x: fact for x, fact in facts.items() if fact is not None and x not in own},
            reaches={str(kind): one.reach() for kind, one in self.reaches.items()},
            derates={kind: derate.fraction for kind, derate in self.derates.items()},
        )


class System(Declared, frozen=True, kw_only=True):
    """A named machine or cluster made of catalogue chips."""

    id: Text
    name: Text
    chips: tuple[Text, ...]
    """Chip ids; several where a system was sold with one or the other, none where unknown."""
    num_chips: Count | None = None
    peak_dtype: Text | None = None
    peak_per_s: Number | None = None
    network: Text | None = None
    network_bytes_per_s_per_node: Number | None = None
    """One direction, all adapters of one node together."""
    named_in: tuple[Text, ...] = ()
    note: Text | None = None
    sources: Citations


class Catalogue(Declared, frozen=True, kw_only=True):
    """Everything in `chips.yaml`."""

    sources: dict[str, Any]
    chips: tuple[ChipRow, ...]
    systems: tuple[System, ...]


@cache
def load_catalogue() -> Catalogue:
    """Return the catalogue that comes with the harness, read once per process."""
    return read_document(Path(__file__).with_name("chips.yaml"), into=Catalogue)


@cache
def load_chips() -> tuple[Chip, ...]:
    """All rows, in the order of the file."""
    return tuple(row.chip() for row in load_catalogue().chips)


def id_of(text: str) -> str:
    """Write a name as an id is written: 'H100 PCIe' as h100-pcie."""
    return "-".join(re.findall(r"[a-z0-9]+", text.lower().replace(" gb", "gb")))


def chip(name: str) -> Chip:
    """Return the one row that a name means, in any case: by id or name, its start, or parts.

    'h20' is h20-96g and no h200. `UsageError` names the rows where several fit as well.
    """
    rows = {row.id: row for row in load_chips()}
    if name in rows:
        return rows[name]
    found = _meant(id_of(name))
    if len(found) == 1:
        return rows[found[0]]
    if found:
        raise UsageError(f"chip {name!r} is ambiguous: {', '.join(found)}; name one of them")
    stems = {id.split("-")[0]: id for id in reversed(rows)} | {id: id for id in rows}
    near = get_close_matches(name.lower(), list(stems), n=3)
    near = list(dict.fromkeys(stems[stem] for stem in near))
    guess = f"; did you mean {' or '.join(near)}?" if near else ";"
    raise UsageError(
        f"chip {name!r} is not in the catalogue{guess} `bench list chips` shows all {len(rows)}"
    )


def _meant(asked: str) -> list[str]:
    """Ids of the rows that fit what was asked for best."""
    wanted, fits = asked.split("-"), dict[str, int]()
    for row in load_catalogue().chips if asked else ():
        names = [id_of(one) for one in (row.id, row.name, *row.device_names)]
        parts = "-".join(names).split("-")
        kinds = (
            asked.replace("-", "") in [one.replace("-", "") for one in names],
            row.id.startswith(f"{asked}-"),
            all(any(part.startswith(one) for part in parts) for one in wanted),
        )
        fits |= {row.id: kinds.index(True)} if any(kinds) else {}
    return [id for id, kind in fits.items() if kind == min(fits.values())]


def _plain(name: str) -> str:
    return " ".join(re.sub(r"\((r|tm|c)\)|[®™]", "", name.lower()).split())


def match_device(
    name: str, memory_bytes: int | None, *, compute_units: int | None = None
) -> list[Chip]:
    """Return the rows that name and memory allow; none: not in the catalogue; several: ambiguous.

    A processor row describes whole sockets, of which a container or virtual machine sees a part:
    it matches only when `compute_units` (physical cores) says that all of them are here. Its memory
    is a configuration and not compared. An accelerator's units decide between rows of one name; one
    torch device may be a die of the chip.
    """
    found, exact = [], []
    for row, chip in zip(load_catalogue().chips, load_chips(), strict=True):
        if not any(fnmatchcase(_plain(name), _plain(pattern)) for pattern in row.device_names):
            continue
        units = row.units.compute_units
        if row.kind == "cpu":
            is_here = units is not None and units == compute_units
        else:
            is_here = _has_memory(row, memory_bytes=memory_bytes)
        if is_here:
            found.append(chip)
        if is_here and compute_units is not None and units == compute_units * row.torch_devices:
            exact.append(chip)
    return exact or found


def _has_memory(row: ChipRow, *, memory_bytes: int | None) -> bool:
    if memory_bytes is None or row.memory.memory_bytes is None:
        return True
    nominal_bytes = row.memory.memory_bytes / row.torch_devices
    return _LEAST * nominal_bytes <= memory_bytes <= _MOST * nominal_bytes
