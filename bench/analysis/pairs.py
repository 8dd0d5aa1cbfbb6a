"""Which group of one file is compared with which group of another, and why a group is with none.

Groups match when everything in `IDENTITY` is equal. The same device comes first; only groups that
have no counterpart on their own device are set against other devices (cross-hardware). What is left
over is explained by the columns in which it differs from its nearest relative.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bench.analysis.groups import DESCRIPTION, Groups
from bench.analysis.identity import IDENTITY

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Index = NDArray[np.int64]

_MAX_RELATIVES = 50
"""Candidates looked at for the nearest relative of an unmatched group."""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Groups to compare: `before[i]` with `after[i]`, by their number."""

    before: Index
    after: Index
    is_cross: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Unmatched:
    """A group that has no counterpart."""

    name: str
    """Workload, and what else tells it from its relatives."""
    file: str
    missing_from: str
    reason: str


def match(groups: Groups, *, before: int, after: int) -> tuple[Pairs, list[Unmatched]]:
    """Pair the groups of file number `before` with those of file number `after`."""
    table = groups.table[["file", "key", "device_number", "device_name"]].reset_index(names="group")
    sides = [table[table["file"] == file] for file in (before, after)]
    same = sides[0].merge(sides[1], on=["key", "device_number"], suffixes=("_a", "_b"))
    matched = (same["group_a"], same["group_b"])
    rest = [side[~side["group"].isin(taken)] for side, taken in zip(sides, matched, strict=True)]
    cross = rest[0].merge(rest[1], on="key", suffixes=("_a", "_b"))
    # A group all of whose trials died early names no device; it is not another device's.
    is_named = (cross["device_name_a"] != "") & (cross["device_name_b"] != "")
    pairs = Pairs(
        before=np.concatenate([same["group_a"], cross["group_a"]]).astype(np.int64),
        after=np.concatenate([same["group_b"], cross["group_b"]]).astype(np.int64),
        is_cross=np.concatenate([np.zeros(len(same), bool), is_named.to_numpy(bool)]),
    )
    left = [
        side[~side["group"].isin(cross[name])]["group"].to_numpy()
        for side, name in zip(rest, ("group_a", "group_b"), strict=True)
    ]
    return pairs, [
        *_explain(left[0], groups=groups, here_there=(before, after)),
        *_explain(left[1], groups=groups, here_there=(after, before)),
    ]


def _explain(alone: Index, *, groups: Groups, here_there: tuple[int, int]) -> list[Unmatched]:
    if not len(alone):
        return []
    here, there = here_there
    missing_from = groups.labels[there]
    fields = [name for name in (*IDENTITY, *DESCRIPTION) if name not in ("workload", "config_hash")]
    columns = ["workload", *fields]
    elsewhere = groups.table[groups.table["file"] == there]
    relatives: dict[str, list[dict[str, object]]] = {}
    for record in elsewhere[columns].to_dict("records"):
        relatives.setdefault(str(record["workload"]), []).append(_named(record))
    known_keys = set(elsewhere["key"])
    result = []
    for record in groups.table.loc[alone, [*columns, "key", "device_name"]].to_dict("records"):
        if record["key"] in known_keys:
            reason = f"{missing_from} has it, but not on {record['device_name']}"
        else:
            near = relatives.get(str(record["workload"]), [])[:_MAX_RELATIVES]
            reason = _difference(_named(record), near, fields=fields, missing_from=missing_from)
        title = _title(record)
        file = groups.labels[here]
        result.append(Unmatched(name=title, file=file, missing_from=missing_from, reason=reason))
    return result


def _title(record: Mapping[Any, Any]) -> str:
    batch = "" if record["batch"] != record["batch"] else f"batch {record['batch']:.0f}"
    count = record["device_count"]
    parts = (
        record["workload"],
        record["size"],
        record["dtype"],
        batch,
        f"x{count:.0f}" if count > 1 else "",  # not for one that is not a number
        record["parallel"],
        record["link"],
        record["mitigation"],
        "" if record["mode"] in ("", "real") else f"[{record['mode']}]",
    )
    return " ".join(str(part) for part in parts if part)


def _named(record: Mapping[Any, Any]) -> dict[str, object]:
    """The record with not measured numbers as None, so that they are equal to one another."""
    return {name: None if value != value else value for name, value in record.items()}


def _difference(
    record: dict[str, object],
    relatives: list[dict[str, object]],
    *,
    fields: list[str],
    missing_from: str,
) -> str:
    if not relatives:
        return f"{missing_from} has no {record['workload']}"

    def differing(other: dict[str, object]) -> list[str]:
        return [name for name in fields if record[name] != other[name]]

    nearest = min(relatives, key=lambda other: len(differing(other)))
    names = differing(nearest)
    if not names:
        return "the configuration differs in something that has no column (config_hash)"
    if names == ["params_json"]:
        return _parameters(str(record["params_json"]), str(nearest["params_json"]), missing_from)
    if "params_json" in names:
        names.remove("params_json")
    return "; ".join(
        f"{name} is {_shown(record[name])}, in {missing_from} {_shown(nearest[name])}"
        for name in names
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


def confounders(groups: Groups, *, pairs: Pairs, columns: tuple[str, ...]) -> list[tuple[str, ...]]:
    """For each pair the columns that differ where both sides state them: 'torch_version 2 -> 3'."""
    found: list[list[str]] = [[] for _ in pairs.before]
    for name in columns:
        values = groups.table[name].astype(object).to_numpy()
        before, after = values[pairs.before], values[pairs.after]
        is_stated = _is_stated(before) & _is_stated(after)
        for i in np.flatnonzero(is_stated & (before != after)):
            found[i].append(f"{name} {_shown(before[i])} -> {_shown(after[i])}")
    return [tuple(names) for names in found]


def _is_stated(values: NDArray[np.object_]) -> NDArray[np.bool_]:
    return np.asarray(~(pd.isna(values) | (values == "")), dtype=bool)
