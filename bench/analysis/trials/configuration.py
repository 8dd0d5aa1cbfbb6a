"""The trials of one configuration on one device: what ran, which of them count, what they came to.

A trial is the unit of statistics. OK and WARN trials count, each by its first usable attempt; an
INVALID or FAILED one without such an attempt is lost, and counted. Nothing is dropped: a
configuration without a usable trial is still there, to be named. None is not measured.

Trials repeat one another when `IDENTITY` is equal. Configurations are set against each other when
`TERMS` are equal but for what is compared: the link, the phase, the number of devices, the device.
Standard library only.
"""

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Any, TypeVar

from bench.core.log_estimate import Ends, LogEstimate, estimate
from bench.core.nouns import OWN_DATA, Layout
from bench.results.schema import USABLE, Row, Value, has_unequal_steps

WORKLOAD = (
    "workload",
    "workload_version",
    "scenario",
    "size",
    "params_json",
    "dtype",
    "data",
    "compile",
    "compile_mode",
    "channels_last",
)
"""What was run, whatever it was run on and over however many devices."""
MITIGATION = ("mitigation", "grad_accum", "bucket_bytes", "schedule")
"""What can be done about a narrow link without another link."""
LAYOUT = ("mode", "link", "parallel", "layout", "device_count", *MITIGATION)
"""How the work was laid out over devices, over what, and how much of that is a model."""
DEVICE = ("device_type", "device_name")
_MACHINE_WORDS = {
    "host_hash": "host {:.8}",
    "torch_version": "torch {}",
    "driver_version": "driver {}",
    "runtime_version": "runtime {}",
    "dnn_version": "dnn {}",
    "python_version": "python {}",
    "cpu_cores_usable": "cores {}",
}
MACHINE = tuple(_MACHINE_WORDS)
"""Host and software below the device; Python too, since it paces the steps of a small net.

The cores of a rank too, which on a CPU are what it computes with.
"""
PLACE = (*DEVICE, *MACHINE)
TERMS = (*WORKLOAD, "chip_limit", *LAYOUT, *PLACE)
"""What may be distinguished or left out when configurations are set against each other."""
IDENTITY = ("workload", "workload_version", "config_hash", "dtype", *LAYOUT, *PLACE)
"""What trials that repeat one another have in common; the hash covers every flag."""
LEAST, MOST = 1e-60, 1e60
"""Figures outside are damaged cells: nothing measured here is that small or large."""
_USUAL: dict[str, tuple[Value, ...]] = {
    "mode": (None, "", "real"),
    "device_count": (None, 1),
    "mitigation": (None, ""),
    "grad_accum": (None, Layout().grad_accum),
    "bucket_bytes": (None, Layout().bucket_bytes),
    "schedule": (None, "", Layout().schedule),
}
_LOST = ("INVALID", "FAILED")
_Key = TypeVar("_Key", bound=Hashable)
_One = TypeVar("_One")


def number(row: Mapping[str, Any], name: str) -> float | None:
    """A cell's figure, zero allowed; None where it holds none or a damaged one."""
    value: Any = row.get(name)
    is_figure = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_figure and abs(value) < MOST else None


def is_served(row: Row) -> bool:
    """Whether requests came by themselves, and not when the one before ended."""
    return str(row.get("scenario")).startswith(("open_loop", "mlperf_"))


def time_per_item_s(row: Row) -> float | None:
    """Time of the window per item, all devices' items counted: the inverse of the throughput.

    None where requests came by themselves: the schedule says how long that takes.
    """
    if is_served(row):
        return None
    window_s, items, speed = (number(row, one) for one in ("window_s", "items", "throughput_per_s"))
    return window_s / items if window_s and items else 1.0 / speed if speed else None


def step_per_item_s(row: Row) -> float | None:
    """Median step per item, which delays of single steps leave alone."""
    step_ms, items, steps = (number(row, name) for name in ("step_median_ms", "items", "steps"))
    return step_ms * 1e-3 * steps / items if step_ms and items and steps else None


def is_virtual(row: Row) -> bool:
    """Whether devices took part that are not there: their energy and loss were not measured."""
    count = row.get("device_count")
    return row.get("mode") in ("emulated", "simulated") and isinstance(count, int) and count > 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Trials:
    """Trials of one configuration on one device in one file."""

    rows: Sequence[Row]
    """Every row, also of lost trials and of attempts that came to nothing; one at least."""
    file: str = ""
    """Label of the file; '' where there is only one."""
    machine: str = ""
    """Host and software, where rows of one device differ there: 'host 1a2b3c4d, torch 2.13.0'."""

    @cached_property
    def used(self) -> list[Row]:
        """Rows that count: of each trial the first usable attempt."""
        places: dict[tuple[Value, ...], int] = {}
        by_attempt = sorted(enumerate(self.rows), key=lambda one: number(one[1], "attempt") or 1)
        for place, row in by_attempt:
            if row["status"] in USABLE:
                places.setdefault(_trial(row), place)
        return [self.rows[place] for place in sorted(places.values())]

    @property
    def num_lost(self) -> int:
        """Trials that were invalid or failed, and have no usable attempt."""
        lost = {_trial(row) for row in self.rows if row["status"] in _LOST}
        return len(lost - {*map(_trial, self.used)})

    @property
    def lost_reasons(self) -> str:
        """Reason codes of attempts that were invalid or failed, each once."""
        lost = (row.get("reasons") for row in self.rows if row["status"] in _LOST)
        codes = (code for reasons in lost for code in str(reasons or "").split(";"))
        return ", ".join(dict.fromkeys(code for code in codes if code))

    @cached_property
    def first(self) -> Row:
        """The row that names the configuration."""
        return (self.used or self.rows)[0]

    def text(self, name: str) -> str:
        """A column that all trials share, as text; '' is blank."""
        value = self.first.get(name)
        return "" if value is None else f"{value:.15g}" if type(value) is float else str(value)

    @property
    def is_script(self) -> bool:
        """Whether it is a program of the user's own."""
        return self.text("data") == OWN_DATA

    @property
    def is_served(self) -> bool:
        """Whether requests came by themselves: its rate is theirs, and says nothing of speed."""
        return is_served(self.first)

    @property
    def phase(self) -> str:
        """`train` of `imaging-train`."""
        return self._net_and_phase[1]

    @property
    def net(self) -> str:
        """`imaging` of `imaging-train`."""
        return self._net_and_phase[0]

    @cached_property
    def _net_and_phase(self) -> tuple[str, str]:
        """As the name has them; a program that is named otherwise trains if it has an optimizer."""
        name = self.text("workload")
        net, _, phase = name.rpartition("-")
        if self.is_script and not (net and phase in ("train", "infer")):
            return name, "train" if self.text("optimizer") else "infer"
        return net, phase

    @property
    def mode(self) -> str:
        """real, throttled, emulated or simulated."""
        return self.text("mode") or "real"

    @property
    def link(self) -> str:
        """The modelled link; '' for what is really there."""
        return self.text("link")

    @property
    def num_devices(self) -> int:
        """Devices that took part, virtual ones included."""
        count = self.first.get("device_count")
        return count if isinstance(count, int) and count > 0 else 1

    @property
    def one_device(self) -> str:
        """Name of the device, with the machine where several have one of that name."""
        name = self.text("device_name") or self.text("device")
        return f"{name} ({self.machine})" if self.machine else name

    @property
    def device(self) -> str:
        """The same, with its count when several took part."""
        name = self.one_device
        return f"{self.num_devices} x {name}" if self.num_devices > 1 else name

    @property
    def is_wide(self) -> bool:
        """Whether several devices or a modelled link took part."""
        return bool(self.link or self.first.get("parallel") or self.num_devices > 1)

    def facts(self, names: Iterable[str]) -> tuple[str, ...]:
        """Values of some columns as text; blank and the default are the same."""
        return tuple(
            "" if self.first.get(name) in _USUAL.get(name, (None,)) else self.text(name)
            for name in names
        )

    def terms(self, *, but: Collection[str] = ()) -> tuple[str, ...]:
        """What must be equal for two configurations to be set against each other: `TERMS` but some.

        Rows of different files never are.
        """
        return self.file, *self.facts(name for name in TERMS if name not in but)

    def figures(self, column: str, *, over: str = "", scale: float = 1.0) -> list[float]:
        """A column, or its ratio to another, of each used trial; over 0 and of this world."""

        def figure(row: Row) -> float | None:
            value, divisor = number(row, column), number(row, over) if over else 1.0
            return scale * value / divisor if value and divisor else None

        return self.of_each(figure)

    def estimate(self, column: str, *, over: str = "", scale: float = 1.0) -> LogEstimate | None:
        """Geometric mean of such figures over trials."""
        return estimate(self.figures(column, over=over, scale=scale))

    def values(self, column: str) -> list[float]:
        """Figures of the used trials, zero allowed."""
        return [value for row in self.used if (value := number(row, column)) is not None]

    def mean(self, column: str) -> float | None:
        """Arithmetic mean over used trials, zero allowed: what formulas and replays gave."""
        values = self.values(column)
        return sum(values) / len(values) if values else None

    def median(self, column: str) -> float | None:
        """Middle of a column over 0: what formulas gave, and what a damaged cell must not move."""
        values = self.figures(column)
        return median(values) if values else None

    def word(self, column: str) -> str:
        """Texts of a column, each once."""
        return ", ".join(dict.fromkeys(str(row[column]) for row in self.used if row.get(column)))

    @property
    def items_per_step(self) -> float | None:
        """Items of an optimizer step, those of all devices together."""
        values = self.figures("items", over="steps")
        return median(values) if values else None

    @property
    def shows_mean(self) -> bool:
        """Whether the step shown is a mean: with a mitigation some steps may send nothing."""
        return bool(self.first.get("mitigation") and self.figures("window_s", over="steps"))

    @cached_property
    def step_s(self) -> LogEstimate | None:
        """Median step of each trial, or its mean (`shows_mean`)."""
        if self.shows_mean:
            return self.estimate("window_s", over="steps")
        return self.estimate("step_median_ms", scale=1e-3)

    @cached_property
    def step_ends_s(self) -> Ends | None:
        """Step at the fast and at the slow end, over trials as the step between them is."""
        ends = [self.estimate(f"step_{end}_ms", scale=1e-3) for end in ("low", "high")]
        low_s, high_s = (0.0 if end is None else end.value for end in ends)
        return (low_s, high_s) if 0.0 < low_s <= high_s else None

    def of_each(self, figure: Callable[[Row], float | None]) -> list[float]:
        """A figure worked out of each used trial; over 0 and of this world."""
        return [value for row in self.used if LEAST < (value := figure(row) or 0.0) < MOST]

    @cached_property
    def step_per_item_s(self) -> LogEstimate | None:
        """Median step per item; None where it is a step of one kind among several."""
        is_mixed = any(map(has_unequal_steps, self.used))
        return None if is_mixed else estimate(self.of_each(step_per_item_s))

    @cached_property
    def time_per_item_s(self) -> LogEstimate | None:
        """Time of each trial's window per item: times its items a day it is a day."""
        return estimate(self.of_each(time_per_item_s))


def _trial(row: Row) -> tuple[Value, ...]:
    return row["run_id"], row["config_hash"], row.get("device"), row["trial"]


def grouped(found: Iterable[_One], key: Callable[[_One], _Key]) -> dict[_Key, list[_One]]:
    """Things by what they have in common, in order of appearance."""
    groups: dict[_Key, list[_One]] = {}
    for one in found:
        groups.setdefault(key(one), []).append(one)
    return groups


def gather(rows: Iterable[Row], *, file: str = "", by: Collection[str] = IDENTITY) -> list[Trials]:
    """Gather the rows of one file into configurations, in order of appearance.

    A trial that died before it knew its device has the device of its run's other trials.
    """
    rows = list(rows)
    devices: dict[tuple[Value, Value], Row] = {
        (row["run_id"], row["device"]): {name: row.get(name) for name in DEVICE}
        for row in rows
        if row.get("device_name")
    }
    named = (
        row if row.get("device_name") else row | devices.get((row["run_id"], row["device"]), {})
        for row in rows
    )
    groups = grouped(named, lambda row: _cells(row, by))
    machines = _machines(_cells(group[0], PLACE) for group in groups.values())
    return [
        Trials(rows=group, file=file, machine=machines[_cells(group[0], PLACE)])
        for group in groups.values()
    ]


def _machines(found: Iterable[tuple[Value, ...]]) -> dict[tuple[Value, ...], str]:
    """What distinguishes each machine from the others with a device of its name."""
    places = dict.fromkeys(found)
    words: dict[tuple[Value, ...], str] = {}
    for place in places:
        alike = [other for other in places if other[: len(DEVICE)] == place[: len(DEVICE)]]
        facts = zip(_MACHINE_WORDS.values(), place[len(DEVICE) :], strict=True)
        parts = [
            word.format(cell or "unknown")
            for index, (word, cell) in enumerate(facts, start=len(DEVICE))
            if len({other[index] for other in alike}) > 1
        ]
        words[place] = ", ".join(parts)
    return words


def _cells(row: Row, names: Iterable[str]) -> tuple[Value, ...]:
    return tuple("" if (cell := row.get(name)) is None else cell for name in names)
