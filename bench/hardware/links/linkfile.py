"""Link files: one link as YAML, written by `bench measure-link` or by hand, read by `--link`.

Holds rate and latency of a fitted or specified link and, if measured, the curve that then is
used in their place. Whoever reads one names it by path and digest of its content, so that a row
made with it cannot be mistaken for one made with a later measurement.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from msgspec import Meta, to_builtins
from msgspec.structs import asdict

from bench.core.errors import DataError
from bench.core.paths import user_path
from bench.hardware.costs.collectives import OPS
from bench.hardware.links.curves import Curve, Point, op_named
from bench.hardware.links.link_levels import GIVEN_ERROR_FRACTION, LinkLevel
from bench.hardware.loader import AboveZero, Count, Declared, Number, Text, parse_document

_ENDINGS = (".yaml", ".yml")
_DIGEST = re.compile(r"(.+)@([0-9a-f]{8})", re.DOTALL)
_FORBIDDEN = ("*", ",")
"""Characters that mean something in a link's text."""


def _split(text: str) -> tuple[str, str | None]:
    match = _DIGEST.fullmatch(text)
    return (text, None) if match is None else (match[1], match[2])


def is_link_file(text: str) -> bool:
    """Whether a link's text names a file: by its ending (with or without a digest behind it)."""
    path, _ = _split(text)
    return path.lower().endswith(_ENDINGS) and not re.search(r"\*\s*\d+\s*/", path)


def read_link_wire(text: str) -> LinkLevel:
    """Read the file named `path` or `path@digest`; `DataError` names file and field."""
    name, wanted = _split(text)
    if any(sign in name for sign in _FORBIDDEN):
        raise DataError(f"link file {name[:80]!r}: rename it without * and comma")
    path = user_path(name, what="link file")
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise DataError(f"link file {name}: cannot be read: {reason}") from None
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    if wanted is not None and wanted != digest:
        raise DataError(
            f"link file {name}: its content has digest {digest}, not {wanted}; it was changed since"
        )
    return parse_document(content, into=_LinkFile, what=path.name).level(f"{name}@{digest}")


class _Point(Declared, frozen=True, kw_only=True):
    op: Text
    num_ranks: Annotated[int, Meta(ge=2, lt=10**18)]
    message_bytes: Annotated[int, Meta(gt=0, lt=10**18)]
    latency_s: AboveZero

    def __post_init__(self) -> None:
        if op_named(self.op) is None:
            raise ValueError(f"op: {self.op!r} is not one of {', '.join(OPS)}")

    def point(self) -> Point:
        """Return it with its operation as the curves name it."""
        return Point(**asdict(self) | {"op": op_named(self.op)})


class _LinkFile(Declared, frozen=True, kw_only=True):
    name: Text | None = None
    algorithm: Literal["ring", "tree", "mesh"] = "ring"
    bytes_per_s: AboveZero
    pair_bytes_per_s: AboveZero | None = None
    latency_s: AboveZero
    error_fraction: Number = GIVEN_ERROR_FRACTION
    contention_units: Count | None = None
    curve: tuple[_Point, ...] = ()
    provenance: dict[str, Any] = {}

    def level(self, text: str) -> LinkLevel:
        """Build what a cost model needs; a measured curve is used in place of rate and latency."""
        curve = Curve(points=tuple(one.point() for one in self.curve)) if self.curve else None
        return LinkLevel(
            text=text,
            algorithm=self.algorithm,
            bytes_per_s=self.bytes_per_s,
            pair_bytes_per_s=self.pair_bytes_per_s or self.bytes_per_s,
            hop_s=self.latency_s,
            error_fraction=self.error_fraction,
            contention_units=self.contention_units,
            curve=curve,
            curve_error_fraction=None if curve is None else self.error_fraction,
        )


def write_link_file(
    path: Path,
    *,
    name: str,
    bytes_per_s: float,
    latency_s: float,
    curve: Sequence[Point] = (),
    error_fraction: float | None = None,
    provenance: Mapping[str, str] | None = None,
) -> None:
    """Write what `--link` reads: the fitted rate and latency, and the points they were fitted on.

    `error_fraction` is the misfit or the spread of the measurement; `provenance` says with what
    and when it was measured.
    """
    document: dict[str, object] = {
        "name": name,
        "bytes_per_s": float(bytes_per_s),
        "latency_s": float(latency_s),
    }
    if error_fraction is not None:
        document["error_fraction"] = float(error_fraction)
    if provenance:
        document["provenance"] = dict(provenance)
    if curve:
        document["curve"] = [to_builtins(point) for point in curve]
    path.write_text(yaml.safe_dump(document, sort_keys=False, width=120), encoding="utf-8")
