"""Numbers in printed cells, so that a page can sort '850 us' before '1.2 ms'.

Cells are what tables print, whatever module made them; only the first quantity of a cell counts.
"""

from __future__ import annotations

import re

_TIMES_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_PREFIXES = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_BINARY = {"KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40}
_QUANTITY = re.compile(r"\s*x?([-+]?[0-9][0-9,]*(?:\.[0-9]+)?(?:e[-+]?[0-9]+)?)\s*([A-Za-z]*)")
_DURATION = re.compile(r"\s*([0-9]+) (min|h) ([0-9]+) (s|min)\b")


def sort_key(text: str) -> float | None:
    """The first quantity in base units; None where the cell does not begin with one."""
    if duration := _DURATION.match(text):
        first, unit, second, smaller = duration.groups()
        return int(first) * _TIMES_S[unit] + int(second) * _TIMES_S[smaller]
    quantity = _QUANTITY.match(text)
    if quantity is None:
        return None
    number, unit = float(quantity[1].replace(",", "")), quantity[2]
    if unit in _TIMES_S:
        return number * _TIMES_S[unit]
    if unit in _BINARY:
        return number * _BINARY[unit]
    # 'k', 'kJ', 'Gtoken', but not an unknown word that happens to begin with such a letter alone.
    return number * _PREFIXES.get(unit[:1], 1.0)
