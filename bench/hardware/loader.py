"""Reading YAML data files strictly: a typo in one must not become a missing fact.

`read_document` refuses what a data file never needs and an accident or an attacker might put there:
anchors and aliases (small files that unfold to gigabytes), explicit tags, duplicate keys, deep
nesting, more than a megabyte. What is left is decoded by msgspec into a `Declared`, whose fields
say what a file may hold. Every complaint is one line with file, row and key.
"""

import re
from collections.abc import Hashable
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin

import yaml
from msgspec import Meta, Struct, ValidationError, convert, structs

from bench.core.errors import DataError

MAX_BYTES = 1_000_000
MAX_DEPTH = 12
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_T = TypeVar("_T")

Text = Annotated[str, Meta(pattern=r"\S")]
Number = Annotated[float, Meta(ge=0, le=1e300)]
AboveZero = Annotated[float, Meta(gt=0, le=1e300)]
Count = Annotated[int, Meta(ge=0, lt=10**18)]
Citations = Annotated[tuple[Text, ...], Meta(min_length=1)]
"""Keys of the file's table of sources; read as 'title, address'."""

_WORDS = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "nothing",
}


class Declared(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of what a data file declares: each field is a key, and no other key is allowed."""


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


def parse_document(text: str, *, into: type[_T], what: str) -> _T:
    """Decode `text` as `into`; `what` is the file's name for messages."""
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
    table = document.get("sources") if isinstance(document, dict) else None
    sources = None if not isinstance(table, dict) else _addresses(table, what=what)
    return decode(_checked(document, sources=sources, where=what), into=into, what=what)


def read_document(path: Path, *, into: type[_T]) -> _T:
    """Read and decode one file."""
    try:
        if path.stat().st_size > 4 * MAX_BYTES:
            raise DataError(f"{path.name}: larger than {4 * MAX_BYTES:,} bytes")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path.name}: cannot be read: {error}") from None
    return parse_document(text, into=into, what=path.name)


def decode(document: object, *, into: type[_T], what: str, is_text: bool = False) -> _T:
    """Turn plain values of YAML or JSON into `into`; `DataError` names row and key.

    `is_text` reads numbers out of texts, as the cells of a CSV are.
    """
    try:
        return convert(document, into, strict=not is_text)
    except ValidationError as error:
        raise DataError(_told(str(error), document, into=into, what=what)) from None


class _Source(Declared, frozen=True, kw_only=True):
    """One line of a file's table of sources."""

    title: Text
    url: Text | None = None


def _addresses(table: dict[Any, Any], *, what: str) -> dict[Any, str]:
    """Return 'title, address' by key: one address stands in one place."""
    sources = {}
    for key, entry in table.items():
        source = decode(entry, into=_Source, what=f"{what}: sources: {key}")
        sources[key] = source.title + (f", {source.url}" if source.url else "")
    return sources


def _checked(value: Any, *, sources: dict[Any, str] | None, where: str) -> Any:
    """Return a copy with addresses for citations; refuse empty values and ids that stand twice."""
    if isinstance(value, dict):
        return {
            key: _cited(entry, sources=sources, where=f"{where}: {key}")
            if key in ("source", "sources") and sources is not None and not isinstance(entry, dict)
            else _checked(entry, sources=sources, where=f"{where}: {key}")
            for key, entry in value.items()
        }
    if isinstance(value, list):
        names = [entry.get("id") for entry in value if isinstance(entry, dict)]
        for name in names:
            if name is not None and names.count(name) > 1:
                raise DataError(f"{where}: id {name!r} stands twice")
        return [_checked(x, sources=sources, where=_row(where, x, n)) for n, x in enumerate(value)]
    if value is None:
        raise DataError(f"{where}: empty; leave the key out where nothing is known")
    return value.strip() if isinstance(value, str) else value


def _cited(value: object, *, sources: dict[Any, str], where: str) -> object:
    for name in value if isinstance(value, list) else [value]:
        if not isinstance(name, str) or name not in sources:
            raise DataError(f"{where}: {name!r} is not in the table of sources")
    return [sources[x] for x in value] if isinstance(value, list) else sources[cast(str, value)]


def _row(where: str, row: object, index: int) -> str:
    """Name a row of a list by its id, else by its number."""
    name = row.get("id") if isinstance(row, dict) else None
    if isinstance(name, str):
        return f"{where.rpartition(': ')[0] or where}: {name}"
    return f"{where} row {index + 1}"


def _told(problem: str, document: Any, *, into: Any, what: str) -> str:
    """Say msgspec's complaint about `$.chips[0].tdp_w` in our words, with the row's id."""
    problem, _, path = problem.partition(" - at `")
    if path.startswith("key`") and not problem.startswith("Invalid"):
        problem = "a key is not text"
    where, value, kind = what, document, into
    for key, index in re.findall(r"\.([^.\[`]+)|\[(\d+|\.\.\.)\]", path):
        kind = _plain(kind, value)
        if index.isdigit():
            value, kind = value[int(index)], get_args(kind)[0]
            where = _row(where, value, int(index))
            continue
        if key:
            kind = _keys(kind).get(key)
        else:  # msgspec does not say which key of a mapping
            kind = get_args(kind)[1]
            key = next(key for key, entry in value.items() if not _is_convertible(entry, kind))
        value, where = value.get(key), f"{where}: {key}"
    return f"{where}: {_reworded(problem, value, kind=_plain(kind, value))}"


def _is_convertible(value: object, kind: Any) -> bool:
    try:
        convert(value, kind)
    except ValidationError:
        return False
    return True


def _plain(kind: Any, value: Any) -> Any:
    """Return a type without its bounds and None; of several declared ones the one that is named."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) not in (Union, UnionType):
        return kind
    kinds = [one for one in get_args(kind) if one is not type(None)]
    if len(kinds) == 1 or not isinstance(value, dict):
        return _plain(kinds[0], value)
    tags = {one.__struct_config__.tag: one for one in kinds}
    field = kinds[0].__struct_config__.tag_field
    return tags.get(str(value.get(field)), {field: Literal[tuple(tags)]})


def _keys(kind: Any) -> dict[str, Any]:
    if isinstance(kind, dict):
        return kind
    return {field.encode_name: field.type for field in structs.fields(kind)}


def _reworded(problem: str, value: object, *, kind: Any) -> str:
    if found := re.fullmatch(r"Object missing required field `(.+)`", problem):
        return f"{found[1]}: missing"
    if found := re.fullmatch(r"Object contains unknown field `(.+)`", problem):
        return f"unknown key {found[1]!r}; known: {', '.join(sorted(_keys(kind)))}"
    if (found := re.match("Invalid enum value (.+)", problem)) and get_origin(kind) is dict:
        return f"unknown key {found[1]}; known: {', '.join(get_args(get_args(kind)[0]))}"
    if problem.startswith("Invalid"):
        return f"{value!r} is not one of {', '.join(map(str, get_args(kind)))}"
    if not (found := re.match(r"Expected `(\w+)[^`]*`( [<>]=? \S+)?", problem)):
        return problem
    kind_name = "int" if "multiple of 1" in problem else found[1]
    return f"expected {_WORDS.get(kind_name, kind_name)}{found[2] or ''}, found {value!r:.80}"
