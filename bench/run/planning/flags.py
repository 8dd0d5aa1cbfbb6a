"""What a flag of `bench run` is: its name, help and group, and how its value is read and written.

A flag with several values has them separated by commas, or is given several times. Only the form is
read here; whether a size, a device or a parameter is known is for those to say who know them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.core.errors import UsageError
from bench.core.units import parse_duration_s


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How a flag's value is typed, read from what was typed, and written again."""

    given: Any
    """What the command line hands over: str, int, float, bool or list[str]."""
    read: Callable[[Any, str], Any] = lambda value, _flag: value
    """From the given value and the flag's name; `UsageError` where the form is wrong."""
    write: Callable[[Any], Sequence[str]] = lambda value: (str(value),)
    """Values of the flag, which is repeated for each."""
    absent: Any = None
    """What a request has where nothing was given, unless the flag says otherwise."""


def parts(text: str) -> tuple[str, ...]:
    """Return what the commas separate, blanks left out."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def whole_numbers(text: str, flag: str) -> tuple[int, ...]:
    """Return the numbers that the commas separate; `UsageError` where one is none."""
    try:
        return tuple(int(part) for part in parts(text))
    except ValueError:
        raise UsageError(f"{flag} {text!r} needs whole numbers, such as 2 or 1,2,4") from None


def settings_of(texts: Sequence[str], _flag: str) -> dict[str, tuple[str, ...]]:
    """Return the values of each key of --set; `UsageError` where a text is not key=value."""
    settings: dict[str, tuple[str, ...]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        if not equals or not key.strip() or not parts(values):
            raise UsageError(f"--set {text!r} needs key=value, such as --set filters=16x32x64")
        settings[key.strip()] = parts(values)
    return settings


def split_links(texts: Sequence[str], _flag: str = "--link") -> tuple[str, ...]:
    """Split lists at commas, but keep 'bw=25GB/s,latency=5us' together: a new bw= begins a link."""
    links: list[str] = []
    for part in (part for text in texts for part in parts(text)):
        key = part.partition("=")[0].strip()
        if "=" in part and key != "bw" and links and "=" in links[-1].partition("/")[0]:
            links[-1] += f",{part}"
        else:
            links.append(part)
    return tuple(links)


TEXT, INTEGER = Kind(given=str), Kind(given=int)
NUMBER = Kind(given=float, write=lambda value: (f"{value:.12g}",))
SWITCH = Kind(given=bool, write=lambda _value: (), absent=False)
TEXTS = Kind(
    given=str,
    read=lambda text, _flag: parts(text),
    write=lambda values: (",".join(map(str, values)),),
    absent=(),
)
INTEGERS = dataclasses.replace(TEXTS, read=whole_numbers)
NAMES = Kind(
    given=list[str],
    read=lambda texts, _flag: tuple(part for text in texts for part in text.split(",") if part),
    write=tuple,
    absent=(),
)
LINKS = Kind(given=list[str], read=split_links, write=tuple, absent=())
SETTINGS = Kind(
    given=list[str],
    read=settings_of,
    write=lambda settings: [f"{key}={','.join(values)}" for key, values in settings.items()],
    absent={},
)
DURATION = Kind(
    given=str,
    read=lambda text, flag: parse_duration_s(text, what=flag),
    write=lambda seconds: (f"{seconds:.12g}s",),
)


@dataclass(frozen=True, kw_only=True)
class Flag:
    """One flag as the command line shows it."""

    names: tuple[str, ...]
    kind: Kind
    group: str
    help: str

    @property
    def parameter(self) -> str:
        """Name of the command's parameter, from which that of its environment variable follows."""
        return self.names[0].removeprefix("--").replace("-", "_")


def flag(names: str, kind: Kind, group: str, text: str, *, default: Any = None) -> Any:
    """Declare a field that is a flag."""
    declared = Flag(names=tuple(names.split()), kind=kind, group=group, help=text)
    absent = kind.absent if default is None else default
    if isinstance(absent, dict):
        return field(default_factory=absent.copy, metadata={"flag": declared})
    return field(default=absent, metadata={"flag": declared})
