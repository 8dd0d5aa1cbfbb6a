"""Trials of result files, gathered into groups that repeat one configuration on one device.

A trial is the unit of statistics, a group is what is compared. OK and WARN trials count; an INVALID
or FAILED one is replaced by its second attempt where that is usable, and counted as lost otherwise.
Nothing is dropped: a group without a usable trial is still there, to be named. The arithmetic runs
on whole columns, since files may hold 100,000 rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pandas.api.types import union_categoricals

from bench.analysis.identity import DEVICE, IDENTITY, LEAST, MOST
from bench.analysis.metrics import STEADY_CLOCK_RATIO, Source
from bench.results.schema import BY_NAME, USABLE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

DESCRIPTION = (
    "size",
    "batch",
    "compile",
    "compile_mode",
    "channels_last",
    "chip_limit",
    "data",
    "scenario",
    "params_json",
    "seed",
)
"""What explains why two groups do not match; all of it is in `config_hash`."""
CONFOUNDERS = (
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
"""What may explain a difference between two groups that do match."""
_TRIAL = ("run_id", "trial", "attempt", "status", "reasons", "device")
_BESIDE = (
    "throughput_per_s",
    "energy_per_item_j",
    "roof_frac",
    "mfu_frac",
    "sm_clock_min_hz",
    "sm_clock_mean_hz",
)
COLUMNS = tuple(dict.fromkeys((*_TRIAL, *IDENTITY, *DEVICE, *DESCRIPTION, *CONFOUNDERS, *_BESIDE)))
"""Columns that comparing needs, beside those of the metric."""


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Number, mean and variance of the logarithm of a figure in each group."""

    num: Array
    mean: Array
    var: Array


@dataclass(frozen=True, kw_only=True)
class Groups:
    """All groups of all files; arrays have one entry per group."""

    labels: tuple[str, ...]
    """Name of each file."""
    trials: pd.DataFrame
    """Every row, with `file`, `group` and `is_used` added."""
    table: pd.DataFrame
    """One row per group: its file, its columns, and how many trials it has of which status."""

    def moments(self, values: pd.Series[float]) -> Moments:
        """Moments of log(values) per group, over used trials that have the figure."""
        figures = values.to_numpy(dtype=np.float64, na_value=np.nan)
        used = self.trials["is_used"].to_numpy() & (figures > LEAST) & (figures < MOST)
        group, logs = self.trials["group"].to_numpy()[used], np.log(figures[used])
        size = len(self.table)
        num = np.bincount(group, minlength=size).astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = np.bincount(group, weights=logs, minlength=size) / num
            spread = np.bincount(group, weights=(logs - mean[group]) ** 2, minlength=size)
            var = np.where(num >= 2, spread / (num - 1.0), np.nan)
        return Moments(num=num, mean=mean, var=var)

    def source_moments(self, source: Source) -> Moments:
        """Moments of a metric's source."""
        return self.moments(source.of(self.trials))

    def kinds(self, column: str) -> NDArray[np.str_]:
        """Value of a text column in each group; 'mixed' where its used trials disagree."""
        used = self.trials[self.trials["is_used"]]
        by_group = used[column].astype(str).groupby(used["group"])
        first = by_group.first().reindex(self.table.index, fill_value="")
        several = by_group.nunique().reindex(self.table.index, fill_value=0) > 1
        return np.where(several, "mixed", first.to_numpy(dtype=object)).astype(np.str_)

    def lost_reasons(self) -> dict[int, str]:
        """Reason codes of the trials that each group lost, where it lost any."""
        rows = self.trials
        lost = rows[rows["status"].isin(["INVALID", "FAILED"]) & ~rows["is_used"]]
        pairs = lost[["group", "reasons"]].astype({"reasons": str}).drop_duplicates()
        found: dict[int, dict[str, None]] = {}
        for group, codes in pairs.itertuples(index=False, name=None):
            found.setdefault(group, {}).update(dict.fromkeys(c for c in codes.split(";") if c))
        return {group: ", ".join(codes) for group, codes in found.items()}

    def has_steady_clock(self) -> NDArray[np.bool_]:
        """Whether the compute clock was sampled and held in every used trial of a group."""
        rows = self.trials
        is_steady = rows["sm_clock_min_hz"] >= STEADY_CLOCK_RATIO * rows["sm_clock_mean_hz"]
        counts = (rows["is_used"] & is_steady).groupby(rows["group"]).sum()
        held = (counts == self.table["num_used"]) & (self.table["num_used"] > 0)
        return held.to_numpy(dtype=bool)


def with_columns(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Select schema columns, adding those missing as not measured; text blanks become ''."""
    selected = {}
    for name in dict.fromkeys(columns):
        is_number = BY_NAME[name].kind in ("int", "float")
        if name not in frame:
            blank: object = np.nan if is_number else ""
            selected[name] = pd.Series(blank, index=frame.index)
        elif is_number:
            selected[name] = pd.to_numeric(frame[name], errors="coerce").astype("float64")
        else:
            selected[name] = _text(frame[name])
    return pd.DataFrame(selected, index=frame.index)


def _text(cells: pd.Series[Any]) -> pd.Series[Any]:
    """Categories with '' for a blank; cells of one file usually are categories already."""
    if not isinstance(cells.dtype, pd.CategoricalDtype):
        cells = cells.astype("string").astype("category")
    if not cells.isna().any():
        return cells
    if "" not in cells.cat.categories:
        cells = cells.cat.add_categories([""])
    return cells.fillna("")


def _joined(frames: Sequence[pd.DataFrame], *, columns: Sequence[str]) -> pd.DataFrame:
    """The rows of all files; a text that is categories in each of them stays so."""
    if len(frames) == 1:
        return frames[0].reset_index(drop=True)
    joined = {}
    for name in dict.fromkeys(columns):
        parts = [frame[name] for frame in frames if name in frame]
        if len(parts) < len(frames):
            parts = [frame.get(name, pd.Series(index=frame.index)) for frame in frames]
        if all(isinstance(part.dtype, pd.CategoricalDtype) for part in parts):
            joined[name] = pd.Series(union_categoricals(parts))
        else:
            joined[name] = pd.concat(parts, ignore_index=True)
    return pd.DataFrame(joined)


def _mark_used(rows: pd.DataFrame) -> tuple[pd.Series[bool], pd.Series[bool]]:
    """Which rows are used, the earliest usable attempt of each trial; which stand for a lost one.

    A trial is lost when it was INVALID or FAILED and no attempt of it is used.
    """
    same_trial = ["file", "key", "device_number", "run_id", "trial"]
    trial = rows.groupby(same_trial, dropna=False, observed=True, sort=False).ngroup()
    by_attempt = rows["attempt"].sort_values(kind="stable").index
    usable = rows["status"].isin(USABLE).loc[by_attempt]
    kept = usable.index[usable & ~trial.loc[by_attempt].where(usable, -1).duplicated()]
    is_used = pd.Series(False, index=rows.index)
    is_used.loc[kept] = True
    is_lost = rows["status"].isin(["INVALID", "FAILED"]) & ~trial.isin(trial[is_used])
    return is_used, is_lost & ~trial.where(is_lost, -1).duplicated()


def _name_devices(rows: pd.DataFrame) -> None:
    """Give a trial that died before it knew its device the device of its run's other trials."""
    is_blank = rows["device_name"] == ""
    if not is_blank.any() or is_blank.all():
        return
    where = ["file", "run_id", "device"]
    known = rows[~is_blank].drop_duplicates(where)[[*where, *DEVICE]]
    found = (
        rows.loc[is_blank, where].merge(known, on=where, how="left").set_index(rows.index[is_blank])
    )
    for name in DEVICE:
        text = rows[name].astype("string")
        text[is_blank] = found[name].astype("string").fillna("")
        rows[name] = text.astype("category")


def _num_by_group(mask: pd.Series[bool], *, rows: pd.DataFrame, size: int) -> NDArray[np.int64]:
    return np.bincount(rows["group"].to_numpy()[mask.to_numpy()], minlength=size)


def gather(files: Sequence[tuple[str, pd.DataFrame]], *, columns: Sequence[str]) -> Groups:
    """Gather labelled files into groups; `columns` are those of the metric."""
    needed = (*COLUMNS, *columns)
    rows = with_columns(_joined([frame for _, frame in files], columns=needed), needed)
    rows["file"] = np.repeat(np.arange(len(files)), [len(frame) for _, frame in files])
    _name_devices(rows)
    rows["key"] = rows.groupby(list(IDENTITY), dropna=False, observed=True, sort=False).ngroup()
    rows["device_number"] = rows.groupby(
        list(DEVICE), dropna=False, observed=True, sort=False
    ).ngroup()
    rows["is_used"], is_lost = _mark_used(rows)
    by_group = rows.groupby(["file", "key", "device_number"], sort=False)
    rows["group"] = by_group.ngroup()
    described = ("file", "key", "device_number", *IDENTITY, *DEVICE, *DESCRIPTION, *CONFOUNDERS)
    table = rows.loc[~rows["group"].duplicated(), ["group", *described]].set_index("group")
    size = len(table)
    table["num_used"] = _num_by_group(rows["is_used"], rows=rows, size=size)
    table["num_lost"] = _num_by_group(is_lost, rows=rows, size=size)
    table["num_skipped"] = _num_by_group(rows["status"] == "SKIPPED", rows=rows, size=size)
    return Groups(labels=tuple(label for label, _ in files), trials=rows, table=table)
