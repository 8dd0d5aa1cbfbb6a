"""Link files: one link as YAML, written by `bench measure-link` or by hand, read by `--link`.

Holds rate and latency of a fitted or specified link and, if measured, the curve that then is
used in their place. Whoever reads one names it by path and digest of its content, so that a row
made with it cannot be mistaken for one made with a later measurement.
"""

import hashlib
import re
from pathlib import Path
from typing import Any, Literal

import yaml
from msgspec import to_builtins

from bench.core.errors import DataError
from bench.core.paths import user_path
from bench.hardware.links.curves import Curve, Point
from bench.hardware.links.presets import GIVEN_ERROR_FRACTION, LinkLevel
from bench.hardware.loader import AboveZero, Count, Declared, Number, Text, parse_document

_DIGEST = re.compile(r"(.+)@([0-9a-f]{8})", re.DOTALL)


class LinkFile(Declared, frozen=True, kw_only=True, omit_defaults=True):
    """What a link file holds."""

    name: Text | None = None
    algorithm: Literal["ring", "tree", "mesh"] = "ring"
    bytes_per_s: AboveZero
    pair_bytes_per_s: AboveZero | None = None
    latency_s: AboveZero
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


def _split(text: str) -> tuple[str, str | None]:
    match = _DIGEST.fullmatch(text)
    return (text, None) if match is None else (match[1], match[2])


def is_link_file(text: str) -> bool:
    """Whether a link's text names a file: by its ending (with or without a digest behind it)."""
    path, _ = _split(text)
    return path.lower().endswith((".yaml", ".yml")) and not re.search(r"\*\s*\d+\s*/", path)


def read_link_file(text: str) -> LinkLevel:
    """Read the file named `path` or `path@digest`; `DataError` names file and field."""
    name, wanted = _split(text)
    if "*" in name or "," in name:  # which mean something in a link's text
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
    return parse_document(content, into=LinkFile, what=path.name).level(f"{name}@{digest}")
