"""Checks a value against the few words of JSON Schema that other tools' documentation uses."""

import re
from typing import Any

_TYPES: dict[str, Any] = {"object": dict, "array": list, "string": str, "number": (int, float)}


def problems(value: Any, schema: dict[str, Any], *, at: str = "$") -> list[str]:
    """Lines about what does not fit; none when everything does."""
    kind = schema.get("type")
    if kind is not None and (not isinstance(value, _TYPES[kind]) or isinstance(value, bool)):
        return [f"{at}: {value!r} is no {kind}"]
    found = [f"{at}: lacks {name}" for name in schema.get("required", ()) if name not in value]
    if isinstance(value, dict):
        for name, item in value.items():
            for inner in _schemas(name, schema):
                found += problems(item, inner, at=f"{at}.{name}")
    if isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            found += problems(item, schema["items"], at=f"{at}[{index}]")
    return found


def _schemas(name: str, schema: dict[str, Any]) -> list[dict[str, Any]]:
    found = [
        inner
        for pattern, inner in schema.get("patternProperties", {}).items()
        if re.search(pattern, name)
    ]
    exact = schema.get("properties", {}).get(name)
    return found if exact is None else [exact, *found]
