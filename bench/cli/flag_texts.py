"""Texts of flags that hold several values: separated by commas, or key=value.

Only their form is read here; whether a size, a device or a parameter is known is for those to say
who know them.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.core.errors import UsageError


def parts(text: str | None) -> tuple[str, ...]:
    """Return what the commas separate, blanks left out; nothing for no text."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def whole_numbers(text: str | None, *, flag: str) -> tuple[int, ...]:
    """Return the numbers that the commas separate; `UsageError` where one is none."""
    try:
        return tuple(int(part) for part in parts(text))
    except ValueError:
        raise UsageError(f"{flag} {text!r} needs whole numbers, such as 2 or 1,2,4") from None


def settings_of(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the values of each key of --set; `UsageError` where a text is not key=value."""
    settings: dict[str, tuple[str, ...]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        if not equals or not key.strip() or not parts(values):
            raise UsageError(f"--set {text!r} needs key=value, such as --set filters=16x32x64")
        settings[key.strip()] = parts(values)
    return settings
