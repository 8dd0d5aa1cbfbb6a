"""Reading YAML data files strictly: a typo in one must not become a missing fact.

`read_document` refuses what a data file never needs and an accident or an attacker might put there:
anchors and aliases (small files that unfold to gigabytes), explicit tags, duplicate keys, deep
nesting, more than a megabyte. A `Row` hands out values by key and type, remembers what was asked
for, and `finish` names whatever nobody asked for. Every complaint is one line with row and key.
"""

import math
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar

import yaml

from bench.core.errors import DataError

MAX_BYTES = 1_000_000
MAX_DEPTH = 12
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_T = TypeVar("_T")


class _StrictLoader(_Base):  # type: ignore[misc]  # the C loader exists only where libyaml does
    """The safe loader without duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key.value, str)]
        for key in keys:
            if keys.count(key) > 1:
                raise DataError(f"key {key!r} stands twice in line {node.start_mark.line + 1}")
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep=deep)
        return mapping


def _refuse_unfolding(text: str) -> None:
    """Walk the events, which cost no more than the text itself, before anything is built."""
    depth = 0
    for event in yaml.parse(text, Loader=_Base):
        mark = event.start_mark
        line = mark.line + 1 if mark is not None else 0
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise DataError(f"line {line}: anchors and aliases are not allowed")
        if isinstance(event, yaml.NodeEvent) and getattr(event, "tag", None) not in (None, "!"):
            raise DataError(f"line {line}: tags are not allowed")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise DataError(f"line {line}: nested deeper than {MAX_DEPTH} levels")


def parse_document(text: str, *, what: str) -> "Row":
    """Build the top-level mapping of `text`; `what` is the file's name for messages."""
    if len(text) > MAX_BYTES:
        raise DataError(f"{what}: larger than {MAX_BYTES:,} characters, which no data file here is")
    try:
        _refuse_unfolding(text)
        document = yaml.load(text, Loader=_StrictLoader)
    except DataError as error:
        raise DataError(f"{what}: {error}") from None
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        detail = " ".join(str(error).split())
        raise DataError(f"{what}: not readable as YAML: {detail}") from None
    if not isinstance(document, dict):
        raise DataError(f"{what}: expected a mapping at the top, found {type(document).__name__}")
    return Row(document, what=what)


def read_document(path: Path) -> "Row":
    """Read and parse one file."""
    try:
        if path.stat().st_size > 4 * MAX_BYTES:
            raise DataError(f"{path.name}: larger than {4 * MAX_BYTES:,} bytes")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path.name}: cannot be read: {error}") from None
    return parse_document(text, what=path.name)


class Row:
    """One mapping of a data file, read key by key. Absent keys give None unless `required`."""

    def __init__(self, values: dict[Any, Any], *, what: str) -> None:
        self.what = what
        self._values = values
        self._asked: set[object] = set()

    def complain(self, key: str, problem: str) -> DataError:
        """Build the error that names file, row and key."""
        return DataError(f"{self.what}: {key}: {problem}")

    def _take(self, key: str, *, required: bool) -> object:
        self._asked.add(key)
        if key not in self._values:
            if required:
                raise self.complain(key, "missing")
            return None
        value: object = self._values[key]
        if value is None:
            raise self.complain(key, "empty; leave the key out where nothing is known")
        return value

    def keys(self) -> list[str]:
        """All keys, which must be text."""
        for key in self._values:
            if not isinstance(key, str):
                raise DataError(f"{self.what}: key {key!r} is not text")
        return list(self._values)

    def text(self, key: str, *, required: bool = False) -> str | None:
        """Non-empty text."""
        value = self._take(key, required=required)
        if value is None:
            return None
        if not isinstance(value, str) or not value.strip():
            raise self.complain(key, f"expected text, found {value!r}")
        return value.strip()

    def need_text(self, key: str) -> str:
        """Return text that must be there."""
        value = self.text(key, required=True)
        assert value is not None
        return value

    def number(self, key: str, *, required: bool = False) -> float | None:
        """Return a finite number that is not negative."""
        value = self._take(key, required=required)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.complain(key, f"expected a number, found {value!r}")
        if not abs(value) <= 1e300 or math.isnan(value):
            raise self.complain(key, "expected a finite number")
        if value < 0:
            raise self.complain(key, f"expected a number from zero up, found {value!r}")
        return float(value)

    def count(self, key: str, *, required: bool = False) -> int | None:
        """Return a whole number from zero up."""
        value = self._take(key, required=required)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 10**18:
            raise self.complain(key, f"expected a whole number from zero up, found {value!r}")
        return value

    def flag(self, key: str, *, required: bool = False) -> bool | None:
        """`true` or `false`."""
        value = self._take(key, required=required)
        if value is not None and not isinstance(value, bool):
            raise self.complain(key, f"expected true or false, found {value!r}")
        return value

    def choice(self, key: str, *, allowed: tuple[str, ...]) -> str:
        """Return one of the names in `allowed`."""
        value = self.need_text(key)
        if value not in allowed:
            raise self.complain(key, f"{value!r} is not one of {', '.join(allowed)}")
        return value

    def texts(self, key: str, *, required: bool = False) -> tuple[str, ...]:
        """Return a list of texts; empty when the key is absent."""
        value = self._take(key, required=required)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise self.complain(key, f"expected a list of texts, found {value!r}")
        return tuple(value)

    def numbers(self, key: str, *, required: bool = False) -> tuple[float, ...]:
        """Return a list of finite numbers from zero up; empty when the key is absent."""
        value = self._take(key, required=required)
        if value is None:
            return ()
        if not isinstance(value, list):
            raise self.complain(key, f"expected a list of numbers, found {value!r}")
        items = [Row({key: item}, what=self.what).number(key, required=True) for item in value]
        return tuple(item for item in items if item is not None)

    def child(self, key: str, *, required: bool = False) -> "Row":
        """Return the mapping below `key`, empty when absent."""
        value = self._take(key, required=required)
        if value is None:
            return Row({}, what=f"{self.what}: {key}")
        if not isinstance(value, dict):
            raise self.complain(key, f"expected a mapping, found {value!r}")
        return Row(value, what=f"{self.what}: {key}")

    def mappings(self, key: str) -> list["Row"]:
        """Return the list of mappings below `key`, numbered for messages; empty when absent."""
        value = self._take(key, required=False)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.complain(key, "expected a list of mappings")
        return [
            Row(item, what=f"{self.what}: {key} row {index}")
            for index, item in enumerate(value, start=1)
        ]

    def rows(self, key: str) -> list["Row"]:
        """Return the list of mappings below `key`, each with a unique `id` that names it."""
        value = self._take(key, required=True)
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.complain(key, "expected a list of mappings")
        rows: list[Row] = []
        seen: set[str] = set()
        for index, item in enumerate(value):
            unnamed = Row(item, what=f"{self.what}: {key} row {index + 1}")
            name = unnamed.need_text("id")
            if name in seen:
                raise self.complain(key, f"id {name!r} stands twice")
            seen.add(name)
            rows.append(Row(item, what=f"{self.what}: {name}"))
        return rows

    def finish(self) -> None:
        """Refuse keys that nobody asked for."""
        unknown = [key for key in self.keys() if key not in self._asked]
        if unknown:
            known = ", ".join(sorted(str(key) for key in self._asked))
            raise DataError(f"{self.what}: unknown key {unknown[0]!r}; known: {known}")


def load_rows(rows: list[Row], *, build: Callable[[Row], _T]) -> tuple[_T, ...]:
    """Build one noun per row and refuse rows that say more than the builder read."""
    built = []
    for row in rows:
        built.append(build(row))
        row.finish()
    return tuple(built)
