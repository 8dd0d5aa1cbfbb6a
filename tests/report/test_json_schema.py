"""The schema checker of these tests must be able to say no."""

from tests.report.json_schema import problems

SCHEMA = {
    "type": "object",
    "required": ["a"],
    "properties": {"a": {"type": "array", "items": {"type": "number"}}},
    "patternProperties": {"^x": {"type": "string"}},
}


def test_what_does_not_fit_is_named_with_its_place() -> None:
    assert problems({"a": [1, 2.5], "x1": "text", "other": None}, SCHEMA) == []
    assert problems({"a": [1, "2", True], "x1": 3}, SCHEMA) == [
        "$.a[1]: '2' is no number",
        "$.a[2]: True is no number",
        "$.x1: 3 is no string",
    ]
    assert problems({}, SCHEMA) == ["$: lacks a"]
    assert problems([], SCHEMA) == ["$: [] is no object"]
