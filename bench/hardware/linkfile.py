"""Link files: one link as YAML, written by `bench measure-link` or by hand, read by `--link`.

Holds rate and latency of a fitted or specified link and, if measured, the curve that then is
used in their place. Whoever reads one names it by path and digest of its content, so that a row
made with it cannot be mistaken for one made with a later measurement.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from bench.core.errors import DataError
from bench.core.paths import user_path
from bench.hardware.collectives import OPS
from bench.hardware.curves import Curve, Point, op_named
from bench.hardware.loader import Row, parse_document
from bench.hardware.wires import GIVEN_ERROR_FRACTION, Wire

_ENDINGS = (".yaml", ".yml")
_DIGEST = re.compile(r"(.+)@([0-9a-f]{8})", re.DOTALL)
_ALGORITHMS = ("ring", "tree", "mesh")
_FORBIDDEN = ("*", ",")
"""Characters that mean something in a link's text."""


def _split(text: str) -> tuple[str, str | None]:
    match = _DIGEST.fullmatch(text)
    return (text, None) if match is None else (match[1], match[2])


def is_link_file(text: str) -> bool:
    """Whether a link's text names a file: by its ending (with or without a digest behind it)."""
    path, _ = _split(text)
    return path.lower().endswith(_ENDINGS) and not re.search(r"\*\s*\d+\s*/", path)


def read_link_wire(text: str) -> Wire:
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
    return _build(parse_document(content, what=path.name), text=f"{name}@{digest}")


def _above_zero(row: Row, key: str, *, required: bool = False) -> float | None:
    value = row.number(key, required=required)
    if value == 0:
        raise row.complain(key, "must be above zero")
    return value


def _build(row: Row, *, text: str) -> Wire:
    rate = _above_zero(row, "bytes_per_s", required=True)
    latency_s = _above_zero(row, "latency_s", required=True)
    pair, error = _above_zero(row, "pair_bytes_per_s"), row.number("error_fraction")
    assert rate is not None and latency_s is not None
    algorithm = row.text("algorithm") or "ring"
    if algorithm not in _ALGORITHMS:
        raise row.complain("algorithm", f"{algorithm!r} is not one of {', '.join(_ALGORITHMS)}")
    row.text("name")
    row.child("provenance").keys()
    curve = _curve(row)
    units = row.count("contention_units")
    row.finish()
    error = GIVEN_ERROR_FRACTION if error is None else error
    return Wire(
        text=text,
        algorithm=algorithm,
        bytes_per_s=rate,
        pair_bytes_per_s=rate if pair is None else pair,
        hop_s=latency_s,
        error_fraction=error,
        contention_units=units,
        curve=curve,
        curve_error_fraction=None if curve is None else error,
    )


def _curve(row: Row) -> Curve | None:
    entries = row.mappings("curve")
    if not entries:
        return None
    return Curve(points=tuple(_point(entry) for entry in entries))


def _point(row: Row) -> Point:
    name = row.need_text("op")
    op = op_named(name)
    if op is None:
        raise row.complain("op", f"{name!r} is not one of {', '.join(OPS)}")
    ranks, size = (row.count(key, required=True) for key in ("num_ranks", "message_bytes"))
    latency_s = _above_zero(row, "latency_s", required=True)
    assert ranks is not None and size is not None and latency_s is not None
    if ranks < 2:
        raise row.complain("num_ranks", "a collective has at least 2")
    if size == 0:
        raise row.complain("message_bytes", "must be above zero")
    row.finish()
    return Point(op=op, num_ranks=ranks, message_bytes=size, latency_s=latency_s)


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
        document["curve"] = [
            {
                "op": point.op,
                "num_ranks": point.num_ranks,
                "message_bytes": point.message_bytes,
                "latency_s": point.latency_s,
            }
            for point in curve
        ]
    path.write_text(yaml.safe_dump(document, sort_keys=False, width=120), encoding="utf-8")
