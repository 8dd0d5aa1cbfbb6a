"""The language of `--where`: `memory_bytes>=48e9 and (tdp_w<=350 or vendor=huawei)`.

A small language of its own, read by a parser of its own: comparisons of a field with a number or a
text, `and`, `or`, `not`, parentheses. Nothing is evaluated as code. Unknown figures make a
comparison neither true nor false. Units and arithmetic are left out.
"""

import operator
import re
from collections.abc import Callable

from bench.core.errors import UsageError, one_of
from bench.core.nouns import Scalar

_MAX_CHARACTERS = 2000
_MAX_DEPTH = 40
_TOKEN = re.compile(
    r"""\s*(?:(?P<bracket>[()])|(?P<operator><=|>=|!=|==|=|<|>)
    |(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.-]))
    |'(?P<single>[^']*)'|"(?P<double>[^"]*)"|(?P<word>[A-Za-z0-9_][\w.+/-]*))""",
    re.VERBOSE,
)
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
}
_EXAMPLE = "such as 'memory_bytes>=48e9 and tdp_w<=350'"

Fields = dict[str, Scalar]
Test = Callable[[Fields], tuple[bool | None, frozenset[str]]]
"""A condition on one row: its value, and the unknown fields that keep it from having one."""


def _tokens(text: str) -> list[tuple[str, str]]:
    if len(text) > _MAX_CHARACTERS:
        raise UsageError(f"--where is longer than {_MAX_CHARACTERS} characters")
    tokens = []
    position = 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise UsageError(f"--where: cannot read {text[position : position + 20]!r}; {_EXAMPLE}")
        kind = match.lastgroup
        assert kind is not None
        value = match[kind]
        tokens.append(("text" if kind in ("single", "double") else kind, value))
        position = match.end()
    return tokens


class _Parser:
    """Recursive descent over the tokens; `or` binds weakest, then `and`, then `not`."""

    def __init__(self, tokens: list[tuple[str, str]], *, types: dict[str, type]) -> None:
        self._tokens = tokens
        self._types = types
        self._at = 0

    def _next(self) -> tuple[str, str]:
        if self._at >= len(self._tokens):
            raise UsageError(f"--where ends too early; {_EXAMPLE}")
        self._at += 1
        return self._tokens[self._at - 1]

    def _accept(self, kind: str, value: str) -> bool:
        here = self._tokens[self._at : self._at + 1]
        if here and here[0][0] == kind and here[0][1].lower() == value:
            self._at += 1
            return True
        return False

    def parse(self) -> Test:
        test = self._either(depth=0)
        if self._at < len(self._tokens):
            raise UsageError(
                f"--where: {self._tokens[self._at][1]!r} comes unexpectedly; join comparisons with "
                "'and' or 'or'"
            )
        return test

    def _either(self, *, depth: int) -> Test:
        if depth > _MAX_DEPTH:
            raise UsageError(f"--where is nested deeper than {_MAX_DEPTH} levels")
        test = self._both(depth=depth)
        while self._accept("word", "or"):
            test = _join(test, self._both(depth=depth), decisive=True)
        return test

    def _both(self, *, depth: int) -> Test:
        test = self._one(depth=depth)
        while self._accept("word", "and"):
            test = _join(test, self._one(depth=depth), decisive=False)
        return test

    def _one(self, *, depth: int) -> Test:
        if depth > _MAX_DEPTH:
            raise UsageError(f"--where is nested deeper than {_MAX_DEPTH} levels")
        if self._accept("word", "not"):
            return _negate(self._one(depth=depth + 1))
        if self._accept("bracket", "("):
            test = self._either(depth=depth + 1)
            if not self._accept("bracket", ")"):
                raise UsageError("--where: a parenthesis is not closed")
            return test
        return self._comparison()

    def _comparison(self) -> Test:
        kind, field = self._next()
        if kind != "word":
            raise UsageError(f"--where: expected a field before {field!r}; {_EXAMPLE}")
        if field not in self._types:
            raise one_of("field", field, sorted(self._types))
        kind, sign = self._next()
        if kind != "operator":
            raise UsageError(f"--where: expected one of {' '.join(_COMPARE)} after {field!r}")
        kind, value = self._next()
        if self._types[field] is str:
            if sign not in ("=", "==", "!=") or kind not in ("text", "word", "number"):
                raise UsageError(f"--where: {field} holds text; compare it with = or != and a text")
            return _compare_text(field, value=value, is_equal=sign != "!=")
        if kind != "number":
            raise UsageError(f"--where: {field} holds a number; {value!r} is none; {_EXAMPLE}")
        return _compare_number(field, sign=sign, value=float(value))


def _compare_number(field: str, *, sign: str, value: float) -> Test:
    def test(row: Fields) -> tuple[bool | None, frozenset[str]]:
        known = row.get(field)
        if not isinstance(known, int | float):
            return None, frozenset({field})
        return _COMPARE[sign](known, value), frozenset()

    return test


def _compare_text(field: str, *, value: str, is_equal: bool) -> Test:
    def test(row: Fields) -> tuple[bool | None, frozenset[str]]:
        known = row.get(field)
        if known is None:
            return None, frozenset({field})
        return (str(known).lower() == value.lower()) == is_equal, frozenset()

    return test


def _join(left: Test, right: Test, *, decisive: bool) -> Test:
    """`or` where True decides, `and` where False decides; else unknown wins over the rest."""

    def test(row: Fields) -> tuple[bool | None, frozenset[str]]:
        (one, missing_one), (two, missing_two) = left(row), right(row)
        if decisive in (one, two):
            return decisive, frozenset()
        if one is None or two is None:
            return None, missing_one | missing_two
        return not decisive, frozenset()

    return test


def _negate(inner: Test) -> Test:
    def test(row: Fields) -> tuple[bool | None, frozenset[str]]:
        value, missing = inner(row)
        return (None if value is None else not value), missing

    return test


def parse_condition(text: str, *, types: dict[str, type]) -> Test:
    """Read a condition over the fields in `types` (str or float); mistakes are `UsageError`s."""
    return _Parser(_tokens(text), types=types).parse()
