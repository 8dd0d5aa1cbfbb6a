"""Looking up catalogue rows: all, one by name, or those that a detected device may be.

No match means that the device is not in the catalogue, several mean that name and memory do not
tell it apart; neither is ever resolved by guessing, because a wrong row lends wrong peaks.
"""

import re
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache

from bench.core.errors import UsageError
from bench.core.nouns import Chip
from bench.hardware.catalogue import System, load_catalogue

# Drivers report less than is soldered on (up to 7 % kept for firmware and error correction), and
# vendors write GB where GiB are meant (1.0737), so what is reported may lie on either side.
_LEAST = 0.93
_MOST = 1.075


@cache
def load_chips() -> tuple[Chip, ...]:
    """All rows, in the order of the file."""
    return tuple(row.chip() for row in load_catalogue().chips)


def load_systems() -> tuple[System, ...]:
    """All named systems, in the order of the file."""
    return load_catalogue().systems


def chip(name: str) -> Chip:
    """Return one row by id, or by the start of an id that only one row has ('h20': h20-96g)."""
    rows = {row.id: row for row in load_chips()}
    if name in rows:
        return rows[name]
    variants = [id for id in rows if name and id.startswith(f"{name}-")]
    if len(variants) == 1:
        return rows[variants[0]]
    if variants:
        raise UsageError(f"chip {name!r} is ambiguous: {', '.join(variants)}; name one of them")
    stems = {id.split("-")[0]: id for id in reversed(rows)} | {id: id for id in rows}
    near = list(dict.fromkeys(stems[stem] for stem in get_close_matches(name, list(stems), n=3)))
    guess = f"; did you mean {' or '.join(near)}?" if near else ";"
    raise UsageError(
        f"chip {name!r} is not in the catalogue{guess} `bench list chips` shows all {len(rows)}"
    )


def _plain(name: str) -> str:
    """Lower case, without trademark signs and doubled blanks."""
    return " ".join(re.sub(r"\((r|tm|c)\)|[®™]", "", name.lower()).split())


def _has_memory(chip: Chip, *, memory_bytes: int | None) -> bool:
    if memory_bytes is None or chip.memory_bytes is None:
        return True
    torch_devices = chip.facts["torch_devices"]
    assert isinstance(torch_devices, int)
    nominal_bytes = chip.memory_bytes / torch_devices
    return _LEAST * nominal_bytes <= memory_bytes <= _MOST * nominal_bytes


def match_device(
    name: str, memory_bytes: int | None, *, compute_units: int | None = None
) -> list[Chip]:
    """Return the rows that name and memory allow; none: not in the catalogue; several: ambiguous.

    A processor row describes whole sockets, of which a container or virtual machine sees a part:
    it matches only when `compute_units` (physical cores) says that all of them are here. Its memory
    is a configuration and not compared. An accelerator's units decide between rows of one name.
    """
    patterns = {row.id: row.device_names for row in load_catalogue().chips}
    found = []
    for chip in load_chips():
        if not any(fnmatchcase(_plain(name), _plain(pattern)) for pattern in patterns[chip.id]):
            continue
        if chip.kind == "cpu":
            is_here = compute_units is not None and compute_units == chip.facts["compute_units"]
        else:
            is_here = _has_memory(chip, memory_bytes=memory_bytes)
        if is_here:
            found.append(chip)
    exact = [chip for chip in found if _units_of_device(chip) == compute_units]
    return exact if compute_units is not None and exact else found


def _units_of_device(chip: Chip) -> float | None:
    """Units of one torch device, which may be a die of the chip; None where the row has none."""
    units, torch_devices = chip.facts.get("compute_units"), chip.facts.get("torch_devices")
    if not isinstance(units, int | float) or not isinstance(torch_devices, int):
        return None
    return units / torch_devices
