"""How long a device works on each request of an inference phase, as the trials measured it.

A request is one step: a study at a time where the batch is one. Every step of the window is in the
samples beside the rows. Rows without samples still have a mean, and two percentiles or none: their
services are then quantiles of a log-normal law, which `basis` says. Standard library only.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

from bench.analysis.trials.configuration import LEAST, MOST, Trials, number
from bench.core.traffic import RequestKind
from bench.core.units import counted
from bench.results.beside_rows import KEYS, read_samples
from bench.results.schema import Row, Value
from bench.results.store import samples_path

Steps = Mapping[tuple[Value, ...], Sequence[float]]
"""Step times in seconds of each attempt, by run and `KEYS`."""
ASSUMED_CV = 0.3
"""Standard deviation over mean of services of which nothing but the mean is known."""
_NUM_QUANTILES = 999
_MOST_ABOVE = 100.0
"""p90 over p50 beyond which a row is damaged."""


@dataclass(frozen=True, kw_only=True)
class ServiceTimes:
    """What requests of one phase take on one device."""

    kind: RequestKind
    """In seconds; every request weighs the same."""
    items_per_request: float
    num_trials: int
    is_simulated: bool
    """A step by a replay over a modelled link: the samples are of the run that it replays."""
    spread: str
    """Where the spread is not measured: what stands for it, in words; else ''."""

    @property
    def basis(self) -> str:
        """How much is known, in words."""
        if not self.spread:
            return f"from {counted(self.kind.num, 'service time')} measured in a closed loop"
        how = "simulated" if self.is_simulated else "measured"
        return f"from a mean service time {how} in a closed loop, {self.spread}"

    @property
    def no_interval(self) -> str:
        """Why these give no interval; '' where they do."""
        if self.spread:
            return self.spread
        if not self.kind.has_enough:
            worth = counted(math.floor(self.kind.num_independent), "independent one")
            return f"{counted(self.kind.num, 'service time')}, worth {worth}, are too few"
        return "one trial" if self.num_trials < 2 else ""


def read_steps(paths: Sequence[Path], read: Sequence[Sequence[Row]]) -> Steps:
    """Step times beside each file of rows, as far as there are any."""
    steps: dict[tuple[Value, ...], Sequence[float]] = {}
    for path, rows in zip(paths, read, strict=True):
        beside = samples_path(path)
        runs = {row["run_id"] for row in rows}
        # Samples do not name their run: beside rows of several they are of nobody knows which.
        if len(runs) == 1 and beside.exists():
            for record in read_samples(beside):
                key = (*runs, *map(record.get, KEYS))
                steps[key] = _times(record.get("step_s"))  # type: ignore[index]
    return steps


def _times(values: object) -> list[float]:
    """Figures that can be times, out of whatever the sidecar holds."""
    found = values if isinstance(values, list) else []
    return [one for one in found if type(one) in (int, float) and LEAST < one < MOST]


def service_times(trials: Trials, *, steps: Steps) -> ServiceTimes | None:
    """What the used trials measured; None where they have no time, or no count of items."""
    per_request, mean_s = trials.items_per_step, trials.time_per_item_s
    if per_request is None or mean_s is None:
        return None
    is_simulated = trials.mode == "simulated"
    used = [] if is_simulated else trials.used
    found = [steps.get((row["run_id"], *map(row.get, KEYS)), ()) for row in used]
    series = tuple(tuple(one) for one in found if one)
    spread = ""
    if not series:
        sigma, spread = _spread(trials)
        series = (_log_normal(mean_s.value * per_request, sigma=sigma),)
    return ServiceTimes(
        kind=RequestKind(services=series, is_measured=not spread),
        items_per_request=per_request,
        num_trials=len(series) if not spread else len(trials.used),
        is_simulated=is_simulated,
        spread=spread,
    )


def _spread(trials: Trials) -> tuple[float, str]:
    """Standard deviation of the services' logarithm, from two percentiles where they are there."""

    def above(row: Row) -> float | None:
        half, most = number(row, "lat_p50_ms"), number(row, "lat_p90_ms")
        return most / half if half and most and most > half else None

    ratios = trials.of_each(above)
    if not ratios:
        return math.sqrt(math.log1p(ASSUMED_CV**2)), f"their spread assumed: {ASSUMED_CV:g}"
    most = min(max(ratios), _MOST_ABOVE)
    return math.log(most) / NormalDist().inv_cdf(0.9), "their spread from p50 and p90"


def _log_normal(mean: float, *, sigma: float) -> tuple[float, ...]:
    places = ((one + 0.5) / _NUM_QUANTILES for one in range(_NUM_QUANTILES))
    values = [math.exp(sigma * NormalDist().inv_cdf(place)) for place in places]
    scale = mean * _NUM_QUANTILES / math.fsum(values)
    return tuple(scale * value for value in values)
