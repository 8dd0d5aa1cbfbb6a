"""Which configuration of one file is compared with which of another, and why one is with none.

Configurations match when everything in `IDENTITY` is equal. The same machine comes first; what has
no counterpart there is set against the same device of another host or under other software, and
only what is still left against other devices (cross-hardware). What is
left over is explained by the columns in which it differs from its nearest relative.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.analysis.trials.configuration import (
    DEVICE,
    IDENTITY,
    MACHINE,
    PLACE,
    TERMS,
    Trials,
    grouped,
)
from bench.analysis.trials.titles import params_of, title_of

_ON_DEVICE = tuple(name for name in IDENTITY if name not in MACHINE)
_KEY = tuple(name for name in _ON_DEVICE if name not in DEVICE)
_EXPLAINING = (*(name for name in TERMS if name not in ("workload", *PLACE)), "batch", "seed",
               "arrivals", "slo", "max_batch", "max_wait_ms")  # fmt: skip
_CONFOUNDERS = ("workload_version", "torch_version", "driver_version", "runtime_version",
                "dnn_version", "python_version", "bench_version", "git_commit", "cpu_model",
                "os_version", "threads", "workers", "power_limit_w", "host_hash")  # fmt: skip
"""What may explain a difference between two configurations that do match."""
_MAX_RELATIVES = 50
"""Candidates looked at for the nearest relative of an unmatched configuration."""


@dataclass(frozen=True, kw_only=True)
class Unmatched:
    """A configuration that has no counterpart."""

    name: str
    """Its long title."""
    file: str
    missing_from: str
    reason: str


Pairs = list[tuple[Trials, Trials]]


def match(
    before: Sequence[Trials], after: Sequence[Trials], *, labels: tuple[str, str]
) -> tuple[Pairs, list[Unmatched]]:
    """Pair the configurations of one file with those of another; `labels` name the files."""
    pairs: Pairs = []
    alone = list(before), list(after)
    for columns in (IDENTITY, _ON_DEVICE, _KEY):
        found, alone = _paired(*alone, columns=columns)
        pairs += found
    return pairs, [
        *_explain(alone[0], elsewhere=after, labels=labels),
        *_explain(alone[1], elsewhere=before, labels=labels[::-1]),
    ]


def _paired(
    before: Sequence[Trials], after: Sequence[Trials], *, columns: Sequence[str]
) -> tuple[Pairs, tuple[list[Trials], list[Trials]]]:
    """Pairs with equal texts in `columns`, and what is left on either side."""
    here, there = _by(before, columns), _by(after, columns)
    pairs = [(one, other) for one in before for other in there.get(_named(one, columns), [])]
    return pairs, (
        [one for one in before if _named(one, columns) not in there],
        [one for one in after if _named(one, columns) not in here],
    )


def _by(found: Sequence[Trials], columns: Sequence[str]) -> dict[tuple[str, ...], list[Trials]]:
    return grouped(found, lambda one: _named(one, columns))


def _named(trials: Trials, columns: Sequence[str]) -> tuple[str, ...]:
    """Texts of columns; the revision of a user's own program is what is compared, if anything."""
    is_script = trials.is_script
    return tuple(
        "" if is_script and name == "workload_version" else trials.text(name) for name in columns
    )


def is_cross_hardware(before: Trials, after: Trials) -> bool:
    """Whether two configurations ran on different devices.

    One all of whose trials died early names no device; it is not another device's.
    """
    names = [_named(one, DEVICE) for one in (before, after)]
    return names[0] != names[1] and bool(before.text("device_name") and after.text("device_name"))


def confounders(before: Trials, after: Trials) -> tuple[str, ...]:
    """Columns that differ where both sides state them: 'torch_version 2 -> 3'."""
    cells = ((name, before.first.get(name), after.first.get(name)) for name in _CONFOUNDERS)
    return tuple(
        f"{name} {_shown(a)} -> {_shown(b)}"
        for name, a, b in cells
        if a not in (None, "") and b not in (None, "") and a != b
    )


def _explain(
    alone: Sequence[Trials], *, elsewhere: Sequence[Trials], labels: tuple[str, str]
) -> list[Unmatched]:
    file, missing_from = labels
    by_workload, known = _by(elsewhere, ("workload",)), _by(elsewhere, _KEY)

    def reason(one: Trials) -> str:
        if _named(one, _KEY) in known:
            return f"{missing_from} has it, but not on {one.one_device}"
        near = by_workload.get((one.text("workload"),), [])[:_MAX_RELATIVES]
        return _difference(one, near, missing_from=missing_from)

    return [
        Unmatched(
            name=title_of(one.first), file=file, missing_from=missing_from, reason=reason(one)
        )
        for one in alone
    ]


def _difference(one: Trials, relatives: Sequence[Trials], *, missing_from: str) -> str:
    if not relatives:
        return f"{missing_from} has no {one.text('workload')}"

    def differing(other: Trials) -> list[str]:
        cells = ((name, one.first.get(name), other.first.get(name)) for name in _EXPLAINING)
        return [name for name, a, b in cells if (a or None) != (b or None)]

    nearest = min(relatives, key=lambda other: len(differing(other)))
    names = differing(nearest)
    ours: Mapping[str, object] = one.first
    theirs: Mapping[str, object] = nearest.first
    if not names and any(_is_cut_down(one, other) for other in relatives if not differing(other)):
        return "a spreadsheet cut its config_hash down; give the file as it was before"
    if not names:
        return "the configuration differs in something that has no column (config_hash)"
    if names == ["params_json"]:
        ours, theirs = params_of(one.first), params_of(nearest.first)
        names = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    reasons = [
        f"{name} is {_shown(ours.get(name))}, in {missing_from} {_shown(theirs.get(name))}"
        for name in names
        if name != "params_json"
    ]
    return "; ".join(reasons) or "params_json differs"


def _is_cut_down(one: Trials, other: Trials) -> bool:
    """Whether two hashes are one that is all digits, without its first zeros or its last digits."""
    hashes = [trials.text("config_hash").lstrip("0") for trials in (one, other)]
    return hashes[0][:15] == hashes[1][:15] and all(text.isdigit() for text in hashes)


def _shown(value: object) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    text = "blank" if value is None or value == "" else text
    return text if len(text) <= 60 else text[:57] + "..."
