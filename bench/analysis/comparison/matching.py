"""Which configuration of one file is compared with which of another, and why one is with none.

Configurations match when everything in `IDENTITY` is equal. The same device comes first; only those
that have no counterpart on their own device are set against other devices (cross-hardware). What is
left over is explained by the columns in which it differs from its nearest relative.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.analysis.trials.configuration import Trials
from bench.analysis.trials.identity import DEVICE, IDENTITY, TERMS
from bench.analysis.trials.titles import title_of
from bench.results.schema import Value

_KEY = tuple(name for name in IDENTITY if name not in DEVICE)
_EXPLAINING = (*(name for name in TERMS if name not in ("workload", *DEVICE)), "batch", "seed")
_CONFOUNDERS = (
    "torch_version",
    "driver_version",
    "runtime_version",
    "dnn_version",
    "python_version",
    "bench_version",
    "git_commit",
    "cpu_model",
    "os_version",
    "threads",
    "workers",
    "power_limit_w",
    "host_hash",
)
"""What may explain a difference between two configurations that do match."""
_MAX_RELATIVES = 50
"""Candidates looked at for the nearest relative of an unmatched configuration."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two configurations to compare."""

    before: Trials
    after: Trials
    is_cross_hardware: bool

    @property
    def confounders(self) -> tuple[str, ...]:
        """Columns that differ where both sides state them: 'torch_version 2 -> 3'."""
        cells = ((n, self.before.first.get(n), self.after.first.get(n)) for n in _CONFOUNDERS)
        return tuple(
            f"{name} {_shown(a)} -> {_shown(b)}"
            for name, a, b in cells
            if a not in (None, "") and b not in (None, "") and a != b
        )


@dataclass(frozen=True, kw_only=True)
class Unmatched:
    """A configuration that has no counterpart."""

    name: str
    """Its long title."""
    file: str
    missing_from: str
    reason: str


def _by(found: Sequence[Trials], columns: Sequence[str]) -> dict[tuple[str, ...], list[Trials]]:
    together: dict[tuple[str, ...], list[Trials]] = {}
    for trials in found:
        together.setdefault(_named(trials, columns), []).append(trials)
    return together


def _named(trials: Trials, columns: Sequence[str]) -> tuple[str, ...]:
    return tuple(trials.text(name) for name in columns)


def match(
    before: Sequence[Trials], after: Sequence[Trials], *, labels: tuple[str, str]
) -> tuple[list[Pair], list[Unmatched]]:
    """Pair the configurations of one file with those of another; `labels` name the files."""
    there, here = _by(after, IDENTITY), _by(before, IDENTITY)
    pairs = [
        Pair(before=one, after=other, is_cross_hardware=False)
        for one in before
        for other in there.get(_named(one, IDENTITY), [])
    ]
    rest = (
        [one for one in before if _named(one, IDENTITY) not in there],
        [one for one in after if _named(one, IDENTITY) not in here],
    )
    others = [_by(side, _KEY) for side in rest]
    pairs += [
        # One all of whose trials died early names no device; it is not another device's.
        Pair(before=one, after=other,
             is_cross_hardware=bool(one.text("device_name") and other.text("device_name")))
        for one in rest[0]
        for other in others[1].get(_named(one, _KEY), [])
    ]  # fmt: skip
    alone = [
        [one for one in side if _named(one, _KEY) not in other]
        for side, other in zip(rest, reversed(others), strict=True)
    ]
    return pairs, [
        *_explain(alone[0], elsewhere=after, labels=labels),
        *_explain(alone[1], elsewhere=before, labels=labels[::-1]),
    ]


def _explain(
    alone: Sequence[Trials], *, elsewhere: Sequence[Trials], labels: tuple[str, str]
) -> list[Unmatched]:
    file, missing_from = labels
    by_workload, known = _by(elsewhere, ("workload",)), _by(elsewhere, _KEY)
    result = []
    for one in alone:
        if _named(one, _KEY) in known:
            reason = f"{missing_from} has it, but not on {one.text('device_name')}"
        else:
            near = by_workload.get((one.text("workload"),), [])[:_MAX_RELATIVES]
            reason = _difference(one, near, missing_from=missing_from)
        name = title_of(one.first)
        result.append(Unmatched(name=name, file=file, missing_from=missing_from, reason=reason))
    return result


def _cells(trials: Trials) -> dict[str, Value]:
    return {name: trials.first.get(name) or None for name in _EXPLAINING}


def _difference(one: Trials, relatives: Sequence[Trials], *, missing_from: str) -> str:
    if not relatives:
        return f"{missing_from} has no {one.text('workload')}"
    ours = _cells(one)

    def differing(theirs: Mapping[str, Value]) -> list[str]:
        return [name for name in _EXPLAINING if ours[name] != theirs[name]]

    nearest = min(map(_cells, relatives), key=lambda theirs: len(differing(theirs)))
    names = differing(nearest)
    if not names:
        return "the configuration differs in something that has no column (config_hash)"
    if names == ["params_json"]:
        return _parameters(one.text("params_json"), str(nearest["params_json"]), missing_from)
    return "; ".join(
        f"{name} is {_shown(ours[name])}, in {missing_from} {_shown(nearest[name])}"
        for name in names
        if name != "params_json"
    )


def _shown(value: object) -> str:
    text = (
        "blank"
        if value is None or value == ""
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )
    return text if len(text) <= 60 else text[:57] + "..."


def _parameters(here: str, there: str, missing_from: str) -> str:
    ours, theirs = json.loads(here or "{}"), json.loads(there or "{}")
    if not (isinstance(ours, dict) and isinstance(theirs, dict)):
        return "params_json differs"
    names = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    return "; ".join(
        f"{name} is {_shown(ours.get(name))}, in {missing_from} {_shown(theirs.get(name))}"
        for name in names
    )
