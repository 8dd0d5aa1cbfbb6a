"""What was measured, as a projection starts from it: one configuration on one device.

Trials of a configuration are taken together by their median. Only one real device is a start: a row
of several devices, or one that was throttled, emulated or simulated, already has a model in it.
Where nobody recorded an operator profile the row's own FLOPs and least bytes stand for one
operator, which says less and makes the interval wider.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from bench.analysis.projection.roofs import NARROWER_DTYPE, Roofs, Unknown, band
from bench.analysis.trials.configuration import Trials, gather, grouped, number, time_per_item_s
from bench.analysis.trials.service_times import ServiceTimes, Steps, service_times
from bench.core.errors import UsageError, one_of
from bench.core.log_estimate import LogEstimate, exact
from bench.core.nouns import DTYPE_BYTES, DTYPES
from bench.hardware.chips import chip
from bench.hardware.operators import Operators, total
from bench.results.beside_rows import StoredProfile
from bench.results.schema import Row

_KINDS = {"cpu": "cpu", "cuda": "gpu", "xpu": "gpu", "mps": "gpu"}
"""Kind of chip by torch device type; other accelerators are neural processors."""
_ALONE = (
    "that stands beside a projection from the whole device, and the files hold no start of the "
    "same configuration on the whole of it"
)
_NO_ROOF = (
    "the device's roof was not measured (smoke profile?): run it again without --profile smoke"
)
BOUND = (
    "less of a device is no other chip: what a limit does not name (bandwidth, caches, clocks) "
    "stays whole, so where memory holds the work it is an upper bound for a chip cut down alike"
)


@dataclass(frozen=True, kw_only=True)
class Start:
    """One configuration that was measured on one device."""

    workload: str
    is_training: bool
    """Whether gradients are there to be exchanged between devices."""
    size: str
    config_hash: str
    params_json: str = ""
    """Sizes of its net."""
    dtype: str
    """That asked for; it ran in that of its roofs."""
    device: str
    num_trials: int
    batch: int
    step_s: float
    """Mean step: the time per item times the items of a step, which may differ in size."""
    step_spread: float
    """Slowest trial's time per item over the fastest's."""
    items_per_step: float
    items_unit: str
    roofs: Roofs
    operators: tuple[Operators, ...]
    """Of one step; a single one made from the row's own figures where there is no profile."""
    has_profile: bool
    overhead_s: float
    """Part of the step that no operator on the device accounts for; 0 where that is not known."""
    is_host_bound: bool = False
    """Whether the host that queued the steps set their pace."""
    num_parameters: float | None
    memory_bytes: float | None
    """Peak of one step: measured on the device, else estimated."""
    times: ServiceTimes | None = None
    """Of each step: what a queue is made of."""
    limited: tuple[tuple[str, LogEstimate], ...] = ()
    """What was granted of the same device (`this device with 72 SMs`), and items per second there.

    No start, because no roof of a limited device is known; it brackets a projection.
    """

    @property
    def has_times(self) -> bool:
        """Whether its operators were timed, so that the gaps between them are known.

        Those of a user's own program are counted only.
        """
        return self.has_profile and total(self.operators, "time_s") > 0.0

    @property
    def least_busy_s(self) -> float:
        """Least time in which the device did the work of a step: at its roofs."""
        figures = ((total(self.operators, "flops"), self.roofs.matrix.mid),
                   (total(self.operators, "least_bytes"), self.roofs.memory.mid))  # fmt: skip
        return min(self.step_s, max(amount / rate for amount, rate in figures))

    @property
    def recast(self) -> str:
        """What is assumed of a dtype in which it did not run; '' where it ran in that asked for."""
        words = (
            f"{self.dtype} of a run in {self.roofs.dtype}: products at that roof, bytes as counted "
            f"or as its width has them, the rest as it was; x{NARROWER_DTYPE:g} either way"
        )
        return words if self.dtype != self.roofs.dtype else ""

    @property
    def throughput_per_s(self) -> float:
        """Items per second."""
        return self.items_per_step / self.step_s


def in_dtype(found: Sequence[Start], dtype: str) -> list[Start]:
    """Starts asked for in another dtype; one that ran in it is taken instead of its like."""
    if dtype not in DTYPES:
        raise one_of("--dtype", dtype, list(DTYPES))
    ran = {(one.workload, one.size) for one in found if one.dtype == dtype}
    return [
        replace(one, dtype=dtype)
        for one in found
        if one.dtype == dtype or (one.workload, one.size) not in ran
    ]


def measured_of(
    rows: Sequence[Row],
    *,
    profiles: Mapping[tuple[str, str, str], StoredProfile],
    steps: Steps | None = None,
) -> tuple[list[Start], list[Unknown]]:
    """Gather usable rows into configurations; `profiles` by (run_id, config_hash, device label).

    Rows of less of a device are no start: they stand beside that of the same configuration.
    """
    judged = [(trials, list(_why_not(trials))) for trials in gather(rows)]
    left_out = [_unknown(trials, reason) for trials, reasons in judged for reason in reasons]
    usable = [trials for trials, reasons in judged if not reasons]
    limited = grouped((one for one in usable if one.text("chip_limit")), _terms)
    found = []
    for trials in (one for one in usable if not one.text("chip_limit")):
        terms = _terms(trials)
        config, device = trials.text("config_hash"), trials.text("device")
        # Another machine's profile would be of another mix: only those of its own runs.
        runs = dict.fromkeys(str(row["run_id"]) for row in trials.used)
        found_profiles = (profiles.get((run, config, device)) for run in runs)
        profile = next(filter(None, found_profiles), None)
        start = _start(trials, profile=profile, limited=limited.get(terms, ()))
        if isinstance(start, Unknown):
            left_out.append(start)
        else:
            found.append(replace(start, times=service_times(trials, steps=steps or {})))
            limited.pop(terms, None)
    for trials in (one for alone in limited.values() for one in alone):
        left_out.append(_unknown(trials, f"measured on {trials.text('chip_limit')}: {_ALONE}"))
    return found, list(dict.fromkeys(left_out))


def _terms(trials: Trials) -> tuple[str, ...]:
    """What less of a device and the whole of it have in common."""
    return trials.terms(but=("chip_limit",))


def _unknown(trials: Trials, reason: str) -> Unknown:
    return Unknown(workload=trials.text("workload"), reason=reason)


def _why_not(trials: Trials) -> Iterator[str]:
    """Why trials say nothing of one real device, whole or limited; nothing where they do."""
    limit = trials.text("chip_limit")
    where = f" on {limit}" if limit else ""
    if not trials.used:
        for row in trials.rows:
            why = f": {row['reasons']}" if row.get("reasons") else ""
            yield f"no usable trial{where} ({row['status']}{why})"
    elif trials.is_served:
        yield "requests came by themselves: a projection starts from steps of a closed loop"
    elif trials.mode != "real":
        yield f"{trials.mode}: a projection starts from what was really measured"
    elif trials.num_devices > 1:
        yield "measured on several devices: a projection starts from one"
    elif trials.text("device_type") == "fake":
        yield "the fake device has no roofs"
    elif (dtype := trials.text("dtype")) not in DTYPE_BYTES:
        yield f"its dtype {dtype!r} is none of {', '.join(DTYPE_BYTES)}"
    elif where and trials.time_per_item_s is None:
        yield f"no step time was measured{where}"


def _start(
    trials: Trials, *, profile: StoredProfile | None, limited: Sequence[Trials]
) -> Start | Unknown:
    times_s = trials.of_each(time_per_item_s)
    per_step, roofs = trials.items_per_step, _roofs(trials)
    if not times_s or per_step is None:
        return _unknown(trials, "no step time was measured")
    if roofs is None:
        return _unknown(trials, _NO_ROOF)
    step_s = median(times_s) * per_step
    return Start(
        workload=trials.text("workload"),
        is_training=trials.phase == "train",
        size=trials.text("size"),
        config_hash=trials.text("config_hash"),
        params_json=trials.text("params_json"),
        dtype=trials.text("dtype"),
        device=trials.one_device,
        num_trials=len(times_s),
        batch=int(number(trials.first, "batch") or 1),
        step_s=step_s,
        step_spread=max(times_s) / min(times_s),
        items_per_step=per_step,
        items_unit=trials.text("items_unit") or "item",
        roofs=roofs,
        operators=profile.scaled_to(step_s)
        if profile is not None
        else _row_operators(trials, step_s=step_s, items=per_step),
        has_profile=profile is not None,
        overhead_s=0.0 if profile is None else step_s * (1.0 - profile.covered_frac),
        is_host_bound=any(
            "host_bound" in str(row.get("reasons")).split(";") for row in trials.used
        ),
        num_parameters=trials.median("num_parameters"),
        memory_bytes=trials.median("mem_alloc_peak_bytes") or trials.median("mem_estimate_bytes"),
        limited=tuple(
            (less.text("chip_limit"), exact(1.0).over(less.time_per_item_s))
            for less in limited
            if less.time_per_item_s is not None
        ),
    )


def _roofs(trials: Trials) -> Roofs | None:
    flops_per_s = trials.median("roof_flops_per_s")
    bytes_per_s = trials.median("roof_bytes_per_s")
    if flops_per_s is None or bytes_per_s is None:
        return None
    try:
        found = chip(trials.text("chip")) if trials.text("chip") else None
    except UsageError:  # a row of a newer catalogue
        found = None
    return Roofs(
        kind=_KINDS.get(trials.text("device_type"), "npu"),
        vendor=trials.text("device_vendor") or None,
        dtype=trials.text("dtype"),
        chip=found,
        matrix=band(flops_per_s, basis="measured here"),
        memory=band(bytes_per_s, basis="measured here"),
    )


def _row_operators(trials: Trials, *, step_s: float, items: float) -> tuple[Operators, ...]:
    """The row's own work of `items` in one step as a single operator; none where not even that."""
    flops, moved = trials.median("flops_per_item"), trials.median("bytes_per_item")
    if flops is None and moved is None:
        return ()
    whole = Operators(
        kind="gemm",
        dtype=trials.text("dtype"),
        calls=0,
        flops=(flops or 0.0) * items,
        bytes=(moved or 0.0) * items,
        least_bytes=(moved or 0.0) * items,
        time_s=step_s,
    )
    return (whole,)
