"""The only place where quantities change unit: parsing what is typed, printing what is read.

Inside the harness everything is seconds, bytes, FLOP, joules, watts. GB is 1e9, GiB is 2**30.
"""

import itertools
import re
from collections.abc import Callable, Sequence

from bench.core.errors import UsageError

_TIME_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_WORDS = {"second": "s", "minute": "min", "hour": "h", "day": "d"}
PERIOD_S = {"s": 1.0, "min": 60.0, "h": 3600.0, "day": 86400.0, "d": 86400.0}
"""Periods that a rate is given per."""
_BYTES = {
    "b": 1,
    **{f"{p}b": 1000 ** (i + 1) for i, p in enumerate("kmgt")},
    **{f"{p}ib": 1024 ** (i + 1) for i, p in enumerate("kmgt")},
}
_FREQUENCY = re.compile(r"([0-9]*\.?[0-9]+(?:e[0-9]+)?)\s*/\s*([a-z]+)")
_QUANTITY = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*([A-Za-z]+)\s*")

_RATE = re.compile(
    r"\s*([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*(?:([kKMGT])(i)?)?(B|bit|b)(?:/s|ps)\s*"
)


def _parse(text: str, *, what: str, factors: dict[str, float] | dict[str, int]) -> float:
    match = _QUANTITY.fullmatch(text)
    units = ", ".join(factors)
    if match is None:
        raise UsageError(
            f"{what} {text!r} needs a number with a unit ({units}), such as 10{list(factors)[-2]}"
        )
    unit = match[2].lower()
    factor = factors.get(match[2]) or factors.get(_WORDS.get(unit.removesuffix("s"), unit))
    if factor is None:
        raise UsageError(f"{what} {text!r} has unknown unit {match[2]!r}; allowed: {units}")
    return float(match[1]) * factor


def parse_duration_s(text: str, *, what: str = "duration", is_over_0: bool = False) -> float:
    """Seconds in '90s', '10m', '7 days'. A number without a unit is refused with `UsageError`."""
    seconds = _parse(text, what=what, factors=_TIME_S)
    if is_over_0 and seconds <= 0.0:
        raise UsageError(f"{what} {text!r}: the time must be over 0")
    return seconds


def parse_frequency(text: str, *, what: str, example: str) -> tuple[float, str]:
    """Number and period of '800/day', the period one of `PERIOD_S`; `what` is for messages."""
    match = _FREQUENCY.fullmatch(text.strip().lower())
    if match is None or match[2] not in PERIOD_S or not 1e-18 < float(match[1]) < 1e18:
        raise UsageError(
            f"{what} is not a rate, a number over 0 per {', '.join(PERIOD_S)}, such as {example}"
        )
    return float(match[1]), match[2]


def parse_percentile(text: str, *, what: str) -> float:
    """0.95 of 'p95'; `UsageError` for what is none, or too far out to be known."""
    match = re.fullmatch(r"[pP]([0-9]+(?:\.[0-9]+)?)", text.strip())
    if match is None or not 1.0 <= float(match[1]) <= 99.9:
        raise UsageError(f"{what} {text!r} is not a percentile from p1 to p99.9, such as p95")
    return float(match[1]) / 100.0


def parse_bytes(text: str, *, what: str = "size") -> int:
    """Bytes in '24GB' (1e9) or '24GiB' (2**30)."""
    return int(_parse(text, what=what, factors=_BYTES))


def parse_rate_bytes_per_s(text: str, *, what: str = "rate") -> float:
    """Bytes per second in '25GB/s', or in '200Gb/s' and '200Gbps', where a small b means bits."""
    match = _RATE.fullmatch(text)
    if match is None:
        raise UsageError(
            f"{what} {text!r} needs a number with a unit per second, such as 25GB/s (bytes) or "
            "200Gb/s (bits)"
        )
    base = 1024 if match[3] else 1000
    factor = float(base ** ("KMGT".index(match[2].upper()) + 1 if match[2] else 0))
    return float(match[1]) * (factor / 8 if match[4] in ("b", "bit") else factor)


def _rounded(value: float) -> str:
    """Three significant digits up to a thousand; small is not zero."""
    magnitude = abs(value)
    if 0.0 < magnitude < 1.0:
        return f"{value:.3g}"
    return f"{value:.{0 if magnitude >= 100 else 1 if magnitude >= 10 else 2}f}"


def format_si(value: float, unit: str) -> str:
    """`format_si(9.89e14, 'FLOP/s')` is '989 TFLOP/s'."""
    size, prefix = _prefixed(value)
    return f"{_rounded(value / size)} {prefix}{unit}"


def format_bytes(value: float) -> str:
    """Binary prefixes, as memory is sold and reported: '3.20 GiB'."""
    size, unit = bytes_scale(value)
    return f"{value:.0f} B" if unit == "B" else f"{_rounded(value / size)} {unit}"


def format_duration(value_s: float) -> str:
    """'850 us', '12.3 ms', '4.56 s', '3 min 20 s', '2 h 05 min'."""
    if value_s < 60:
        size_s, unit = duration_scale(value_s)
        return f"{value_s / size_s:.3g} {unit}"
    minutes, seconds = divmod(round(value_s), 60)
    if minutes < 60:
        return f"{minutes} min {seconds:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def format_number(value: float) -> str:
    """Three significant digits, no exponent below a million: '0.0123', '45.6', '1,230'."""
    if value == 0:
        return "0"
    magnitude = abs(value)
    if magnitude >= 1e6:
        return format_si(value, "").strip()
    if magnitude >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def plural(noun: str, num: float) -> str:
    """A noun as it stands beside a number: 'trial' beside 1, 'patches' or 'studies' beside 2."""
    if num == 1 or not noun:
        return noun
    if re.search(r"[^aeiou]y$", noun):
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("s", "x", "z", "ch", "sh")) else f"{noun}s"


def counted(num: int, noun: str) -> str:
    """'1 trial', '2 patches', '7,200 voxels'."""
    return f"{num:,} {plural(noun, num)}"


def format_ranges(numbers: Sequence[int]) -> str:
    """Write (0, 1, 2, 8) as '0-2,8'."""
    runs = itertools.groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])
    ends = [[number for _, number in run] for _, run in runs]
    return ",".join(f"{a[0]}" if len(a) == 1 else f"{a[0]}-{a[-1]}" for a in ends)


def duration_scale(value_s: float) -> tuple[float, str]:
    """Seconds in a unit that suits a duration, and its name; '' from a minute on."""
    if value_s >= 60.0:
        return 1.0, ""
    return next(((s, u) for s, u in ((1.0, "s"), (1e-3, "ms")) if value_s >= s), (1e-6, "us"))


def in_unit_of(text: str) -> Callable[[float], tuple[float, str]]:
    """Scale of times in the unit in which the user gave one ('7 days'), from a hundredth on."""
    unit = re.split(r"[^A-Za-z]", text.strip())[-1]
    unit_s = parse_duration_s(f"1{unit}")

    def scale(value_s: float) -> tuple[float, str]:
        if value_s >= 0.01 * unit_s:
            return unit_s, unit
        return (60.0, "min") if value_s >= 60.0 else duration_scale(value_s)

    return scale


def bytes_scale(value: float) -> tuple[float, str]:
    """Bytes in a binary unit that suits a size, and its name."""
    sizes = ((2.0**40, "TiB"), (2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"))
    return next((size for size in sizes if abs(value) >= size[0]), (1.0, "B"))


def _prefixed(value: float) -> tuple[float, str]:
    sizes = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
    return next((size for size in sizes if abs(value) >= size[0]), (1.0, ""))


def si_scale(value: float, unit: str, *, period_s: float = 1.0) -> tuple[float, str]:
    """Base units, or those in a period, in a unit with an SI prefix, from ten thousand on."""
    size, prefix = _prefixed(value * period_s) if abs(value * period_s) >= 1e4 else (1.0, "")
    return size / period_s, f"{prefix}{unit}"
