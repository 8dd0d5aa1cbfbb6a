"""What a user's own program is called with, as parameters that can be compared one by one."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

_FLAG = re.compile(r"--?[A-Za-z][^=]*")


def parameters_of(words: Sequence[str]) -> dict[str, str]:
    """Return the value of each flag by its name, '' for one alone; the rest is `arguments`.

    What a flag takes is not known: a word behind one is its value. That is wrong behind a switch,
    and then alike in all runs.
    """
    values: dict[str, list[str]] = {}
    rest: list[str] = []
    flag = None
    for word in words:
        name, equals, value = word.partition("=")
        if _FLAG.fullmatch(name):
            values.setdefault(name, []).extend([value] if equals else [])
            flag = None if equals else name
        else:
            (rest if flag is None else values[flag]).append(word)
            flag = None
    found = {
        name: given[0] if len(given) == 1 else shlex.join(given) for name, given in values.items()
    }
    return found | ({"arguments": shlex.join(rest)} if rest else {})
