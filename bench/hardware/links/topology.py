"""A modelled link as the user writes it: one level, or two with nodes of a given size.

`h800-nvlink`, `infinite`, `bw=25GB/s,latency=5us`, a link file, or `h800-nvlink*8/ndr*4`: nodes of
eight, four of them, an adapter per device. `Topology.name` reads back to an equal topology; a
file is named with a digest of its content, since a table of results outlives the file.

A link file is YAML, written by `bench measure-link` or by hand: rate and latency of a fitted or
specified link and, if measured, the curve that then is used in their place.
"""

import hashlib
import re
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import yaml
from msgspec import to_builtins

from bench.core.errors import DataError, UsageError, one_of
from bench.core.paths import user_path
from bench.core.units import parse_duration_s, parse_rate_bytes_per_s
from bench.hardware.links.curves import Curve, Point
from bench.hardware.links.presets import GIVEN_ERROR_FRACTION, INFINITE, LinkLevel, link
from bench.hardware.loader import AboveZero, Count, Declared, Number, Text, parse_document

_BEFORE_DIGEST = re.compile(r"@(?=[0-9a-f]{8}\Z)")


class LinkFile(Declared, frozen=True, kw_only=True, omit_defaults=True):
    """What a link file holds."""

    name: Text | None = None
    algorithm: Literal["ring", "tree", "mesh"] = "ring"
    bytes_per_s: AboveZero
    pair_bytes_per_s: AboveZero | None = None
    latency_s: Number
    """Of one step; 0: all of its time is rate."""
    error_fraction: Number = GIVEN_ERROR_FRACTION
    """The misfit or the spread of the measurement."""
    contention_units: Count | None = None
    provenance: dict[str, Any] = {}
    """With what and when it was measured."""
    curve: tuple[Point, ...] = ()
    """What rate and latency were fitted on."""

    def level(self, text: str) -> LinkLevel:
        """Build what a cost model needs; a measured curve is used in place of rate and latency."""
        return LinkLevel(
            text=text,
            algorithm=self.algorithm,
            bytes_per_s=self.bytes_per_s,
            pair_bytes_per_s=self.pair_bytes_per_s or self.bytes_per_s,
            hop_s=self.latency_s,
            error_fraction=self.error_fraction,
            contention_units=self.contention_units,
            curve=Curve(points=self.curve) if self.curve else None,
            curve_error_fraction=self.error_fraction if self.curve else None,
        )

    def write(self, path: Path) -> None:
        """Write what `--link` reads."""
        text = yaml.safe_dump(to_builtins(self), sort_keys=False, width=120)
        path.write_text(text, encoding="utf-8")


def is_link_file(text: str) -> bool:
    """Whether a link's text names a file: by its ending (with or without a digest behind it)."""
    path = _BEFORE_DIGEST.split(text)[0]
    return path.lower().endswith((".yaml", ".yml")) and not re.search(r"\*\s*\d+\s*/", path)


def read_link_file(text: str) -> LinkLevel:
    """Read the file named `path` or `path@digest`; `DataError` names file and field."""
    name, *wanted = _BEFORE_DIGEST.split(text)
    if "*" in name or "," in name:  # which mean something in a link's text
        raise DataError(f"link file {name[:80]!r}: rename it without * and comma")
    path = user_path(name, what="link file")
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise DataError(f"link file {name}: cannot be read: {reason}") from None
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    if wanted and wanted != [digest]:
        raise DataError(
            f"link file {name}: its content has digest {digest}, not {wanted[0]}; "
            "it was changed since"
        )
    return parse_document(content, into=LinkFile, what=path.name).level(f"{name}@{digest}")


MAX_RANKS = 2**20
"""More than any machine has; a typing error otherwise."""
_RATES = (("GB/s", 1e9), ("MB/s", 1e6), ("KB/s", 1e3), ("B/s", 1.0))
_TIMES = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6))
_TWO_LEVELS = re.compile(r"(.+?)\*\s*(\d+)\s*/(.+)", re.DOTALL)
_SIZED = re.compile(r"(.+?)\*\s*(\d+)\s*", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Topology:
    """One or two levels of links."""

    inner: LinkLevel
    """Between the devices of one node; the only level where there is one."""
    outer: LinkLevel | None = None
    """Between nodes, an adapter per device."""
    inner_size: int | None = None
    """Devices on one node; None: any number."""
    num_nodes: int | None = None

    @property
    def name(self) -> str:
        """Text that `parse_topology` reads back to an equal topology."""
        inner = self.inner.text + ("" if self.inner_size is None else f"*{self.inner_size}")
        if self.outer is None:
            return inner
        outer = self.outer.text + ("" if self.num_nodes is None else f"*{self.num_nodes}")
        return f"{inner}/{outer}"

    @property
    def node_size(self) -> int | None:
        """Devices on one node where there are two levels; None: one level."""
        return None if self.outer is None else self.inner_size

    @property
    def max_devices(self) -> int | None:
        """Most devices it can hold; None: any number."""
        if self.outer is None:
            return self.inner_size
        if self.inner_size is None or self.num_nodes is None:
            return None
        return self.inner_size * self.num_nodes

    @property
    def is_infinite(self) -> bool:
        """Whether communication takes no time at all."""
        return self.inner.is_infinite and (self.outer is None or self.outer.is_infinite)

    def check_devices(self, num_devices: int) -> None:
        """Raise `UsageError` when it cannot hold that many, or no machine is built so."""
        inner, size = self.inner, self.inner_size
        joined, most = inner.largest_domain, size or num_devices
        if joined is not None and most > joined:
            raise UsageError(
                f"--link {self.name}: {inner.text} joins at most {joined} devices, not {most}; "
                f"name nodes and the network between them, such as --link {in_nodes(inner)}"
            )
        if self.max_devices is not None and num_devices > self.max_devices:
            raise UsageError(
                f"--link {self.name} holds {self.max_devices} devices and {num_devices} are asked "
                "for; raise the count after the last * or leave it out for any number"
            )
        if self.outer is None or size is None or num_devices <= size:
            return
        joined = self.outer.largest_domain
        if joined is not None and num_devices > joined:
            raise UsageError(
                f"--link {self.name}: between nodes, {self.outer.text} joins at most {joined} "
                f"devices, not {num_devices}; name a network, such as ndr or 100gbe"
            )
        self._check_full(num_devices, size=size)

    def _check_full(self, num_devices: int, *, size: int) -> None:
        """All nodes alike: what the exchange across them is modelled for."""
        rest = num_devices % size
        if rest:
            most = self.inner.largest_domain or size
            fits = next(one for one in range(most, 0, -1) if num_devices % one == 0)
            nodes = f", or for nodes of {fits}" if fits > 1 else ""
            raise UsageError(
                f"--link {self.name}: {num_devices} devices do not fill nodes of {size}; ask for "
                f"{num_devices - rest} or {num_devices - rest + size} of them{nodes}"
            )


USUAL_NODE = 8
"""Devices of a usual server: the boards, and what PCI Express servers mostly hold."""


def usual_node(level: LinkLevel) -> int:
    """Devices that a link joins in a usual server."""
    return min(USUAL_NODE, level.largest_domain or USUAL_NODE)


def in_nodes(level: LinkLevel) -> str:
    """A preset in usual servers, and the network that usually joins them, which it names."""
    return f"{level.text}*{usual_node(level)}/{level.network}"


def parse_topology(text: str) -> Topology:
    """Read one link as the user wrote it; `BenchError` in one line for anything else."""
    text = text.strip()
    if not text:
        raise UsageError(
            "the link is empty; allowed: a preset (`bench list links`), infinite, "
            "bw=25GB/s,latency=5us, a link file, or two levels such as h800-nvlink*8/ndr*4"
        )
    two = _TWO_LEVELS.fullmatch(text)
    if two is None:
        inner, size = _sized(text)
        return Topology(inner=_level(inner), inner_size=size)
    if _TWO_LEVELS.fullmatch(two[3]) is not None:
        raise UsageError(f"link {text!r} has more than two levels; write node*8/network*4")
    outer, num_nodes = _sized(two[3])
    return Topology(
        inner=_level(two[1]), inner_size=_size(two[2]), outer=_level(outer), num_nodes=num_nodes
    )


def _sized(text: str) -> tuple[str, int | None]:
    match = _SIZED.fullmatch(text)
    return (text, None) if match is None else (match[1], _size(match[2]))


def _size(text: str) -> int:
    size = int(text) if len(text) <= 7 else MAX_RANKS + 1
    if not 1 <= size <= MAX_RANKS:
        raise UsageError(f"a level of a link has 1 to {MAX_RANKS:,} parts, not {text[:20]}")
    return size


def _level(text: str) -> LinkLevel:
    text = text.strip()
    if text == INFINITE.text:
        return INFINITE
    if is_link_file(text):
        return read_link_file(text)
    if "=" in text:
        return _described(text)
    if "/" in text:
        raise UsageError(
            f"link {text[:80]!r} is no preset and no file; two levels need the size of a node, "
            "such as h800-nvlink*8/ndr*4"
        )
    return link(text).level()


def _described(text: str) -> LinkLevel:
    """Read `bw=25GB/s,latency=5us[,algorithm=ring][,error=20%]`; taken literally, no ramp."""
    values: dict[str, str] = {}
    for item in text.split(","):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals or key not in ("bw", "latency", "algorithm", "error") or key in values:
            raise UsageError(
                f"link {text[:80]!r}: {item.strip()[:40]!r} is not one of bw=25GB/s, latency=5us, "
                "algorithm=ring (or tree, mesh), error=20%, each once"
            )
        values[key] = value
    for key, example in (("bw", "bw=25GB/s"), ("latency", "latency=5us")):
        if key not in values:
            raise UsageError(f"link {text[:80]!r} has no {key}; add {example}")
    rate = _rounded(parse_rate_bytes_per_s(values["bw"], what="bw of the link"))
    if not 0 < rate < 1e300:
        raise UsageError(f"bw of the link is {values['bw']!r}; it must be above zero")
    latency_s = _latency_s(values["latency"])
    algorithm = values.get("algorithm", "ring")
    if algorithm not in ("ring", "tree", "mesh"):
        raise one_of("algorithm of the link", algorithm[:40], ["ring", "tree", "mesh"])
    error = _error_fraction(values.get("error"))
    parts = [f"bw={_exact(rate, _RATES)}", f"latency={_exact(latency_s, _TIMES)}"]
    if algorithm != "ring":
        parts.append(f"algorithm={algorithm}")
    if error is not None:
        parts.append(f"error={error!r}")
    return LinkLevel(
        text=",".join(parts),
        algorithm=algorithm,
        # A described mesh is described by one of its links; nothing else bounds a device.
        bytes_per_s=float("inf") if algorithm == "mesh" else rate,
        pair_bytes_per_s=rate,
        hop_s=latency_s,
        error_fraction=GIVEN_ERROR_FRACTION if error is None else error,
    )


def _latency_s(text: str) -> float:
    if text == "0":  # which is nothing in every unit
        return 0.0
    latency_s = _rounded(parse_duration_s(text.removeprefix("-"), what="latency of the link"))
    if text.startswith("-") or not latency_s < 1e300:
        raise UsageError(f"latency of the link is {text!r}; it must be 0 or more, such as 5us")
    return latency_s


def _error_fraction(text: str | None) -> float | None:
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*(%?)", text)
    value = float(match[1]) / (100 if match[2] else 1) if match else float("nan")
    if not (isfinite(value) and 0 <= value <= 100):
        raise UsageError(f"error of the link {text[:40]!r} is a share such as 20%")
    return value


def _rounded(value: float) -> float:
    """Twelve digits: 5us and 0.005ms are the same, whatever the conversion adds at the end."""
    return float(f"{value:.12g}")


def _exact(value: float, units: tuple[tuple[str, float], ...]) -> str:
    """Number in the first unit that makes it at least 1, and that reads back to the same."""
    for unit, factor in units:
        number = f"{value / factor:.12g}"
        is_last = factor == units[-1][1]
        if (value >= factor or is_last) and _rounded(float(number) * factor) == value:
            return f"{number}{unit}"
    return f"{value!r}{'B/s' if units is _RATES else 's'}"
