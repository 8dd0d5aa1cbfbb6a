"""How much the steps changed over the window, and how well that is known.

The window is cut into batches longer than three autocorrelation times, and a line is laid through
the batches' medians: `frac` is its rise over the window. How far the medians lie from the line says
how well that is known, whatever the noise. Medians, because a shared machine delays single steps by
many times their length, and because the median step is what comparisons stand on.

Correlation is that of the steps without their line and without the one jump that explains most:
otherwise a real change would look like correlation, and hide. Taking so much away makes correlation
look weaker than it is, by about (p + (p + 1) r) / n in the lag-one value r of n steps after p
parameters (for the mean alone: Marriott and Pope 1954, https://doi.org/10.2307/2332719).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.core import statistics
from bench.measure.engine.engine import StepCount

LEVEL_FRAC = 0.02
DRIFT_FRAC = 0.03
"""A smaller change is no drift, however well it is known."""
NOISY_FRAC = 0.05
"""Where the change is not known to this much, the window cannot tell whether the steps drifted."""
_MIN_BATCHES, _MAX_BATCHES = 5, 32
_JUMP_BATCHES = 10
"""With fewer medians there is a line only: the jump would leave nothing to judge it by."""
_DEPENDENT_BATCHES = 24
"""As many medians show whether they still depend on each other, as where steps wander slowly."""
_MOST_STEPS = 2000
_OFTEN = 3
"""Steps of one size whose median is that size's."""
StepSize = tuple[int, int | None, float | None]
"""Items, elements and FLOPs of a step."""
Seconds = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Change:
    """Rise of the steps over the window as a share of their median."""

    frac: float
    half_width_frac: float
    """Of its 95 % interval."""
    is_drift: bool
    """Whether it is over 3 % and over three standard errors."""


def change_over(step_s: Sequence[float]) -> Change | None:
    """Return how much the steps changed; None under ten of them."""
    if len(step_s) < 2 * _MIN_BATCHES:
        return None
    steps = _thinned(step_s, size=-(-len(step_s) // _MOST_STEPS))
    _, rest, num_parameters = _fit(_without_tails(steps), jump=True)
    asked = math.floor(3.0 * correlated_steps(rest, num_parameters=num_parameters)) + 1
    num_batches = max(_MIN_BATCHES, min(len(steps) // asked, _MAX_BATCHES))
    length = len(steps) // num_batches
    medians = np.median(steps[-num_batches * length :].reshape(num_batches, length), axis=1)
    middle_s = float(np.median(medians))
    if middle_s <= 0.0:
        return None
    slope, rest, num_parameters = _fit(medians, jump=num_batches >= _JUMP_BATCHES)
    freedom = num_batches - num_parameters
    # The variance of a least-squares slope over 0, 1, ..., n - 1 is 12 s^2 / (n (n^2 - 1)).
    # Batches that had to be shorter than asked are worth fewer.
    variance = float(rest @ rest) / freedom * max(1.0, asked / length)
    if num_batches >= _DEPENDENT_BATCHES:
        variance *= correlated_steps(rest, num_parameters=num_parameters)
    error = math.sqrt(variance * 12.0 * num_batches / (num_batches**2 - 1.0)) / middle_s
    frac = slope * num_batches / middle_s
    # Few batches have long tails: there three errors would be too few.
    surely = max(3.0, statistics.t_quantile(0.995, freedom)) * error
    return Change(
        frac=frac,
        half_width_frac=statistics.t_quantile(0.975, freedom) * error,
        is_drift=abs(frac) > max(DRIFT_FRAC, surely),
    )


def levelled(step_s: Sequence[float], counts: Sequence[StepCount]) -> list[float]:
    """Steps as if all had been of one size, their mean kept; `counts` may hold later ones too.

    A size that was seen often enough is judged by its own median, others by the work in them.
    """
    kinds = {_size(count) for count in {id(count): count for count in counts}.values()}
    if len(kinds) < 2:
        return list(step_s)
    pairs = list(zip(step_s, counts, strict=False))
    groups: dict[StepSize, list[float]] = {}
    for one_s, count in pairs:
        groups.setdefault(_size(count), []).append(one_s)
    by_work_s = statistics.median([one_s / _work(count) for one_s, count in pairs])
    often_s = {
        size: statistics.median(group) for size, group in groups.items() if len(group) >= _OFTEN
    }
    level = [
        one_s / (often_s.get(_size(count)) or by_work_s * _work(count)) for one_s, count in pairs
    ]
    scale_s = sum(step_s) / sum(level)
    return [scale_s * one for one in level]


def _size(count: StepCount) -> StepSize:
    return count.items, count.elements, count.flops


def _work(count: StepCount) -> float:
    return count.flops or count.elements or count.items or 1.0


def is_level(first_s: Sequence[float], second_s: Sequence[float]) -> bool:
    """Whether the medians of two adjacent windows agree: within 2 %, or two standard errors."""
    size = -(-(len(first_s) + len(second_s)) // _MOST_STEPS)
    first, second = _thinned(first_s, size=size), _thinned(second_s, size=size)
    before_s, after_s = float(np.median(first)), float(np.median(second))
    _, rest, num_parameters = _fit(_without_tails(np.concatenate((first, second))), jump=True)
    worth = correlated_steps(rest, num_parameters=num_parameters)
    worth *= 1 / len(first) + 1 / len(second)
    # A median of normal values is known pi / 2 times less well than their mean, in variance.
    variance = math.pi / 2 * float(rest @ rest) / (len(rest) - num_parameters)
    return abs(after_s - before_s) <= max(LEVEL_FRAC * before_s, 2.0 * math.sqrt(variance * worth))


def correlated_steps(rest: Seconds, *, num_parameters: int) -> float:
    """Autocorrelation time of what a fit of so many parameters left of the steps, at least 1."""
    variance = float(rest @ rest)
    if variance <= 1e-24 * len(rest):
        return 1.0
    lag_one = float(rest[1:] @ rest[:-1]) / variance
    lag_one += (num_parameters + (num_parameters + 1) * lag_one) / len(rest)
    if lag_one >= 1.0:
        return float(len(rest))
    by_lag_one = (1.0 + lag_one) / (1.0 - lag_one)
    return max(1.0, by_lag_one, statistics.autocorrelation_time(rest.tolist()))


def _thinned(step_s: Sequence[float], *, size: int) -> Seconds:
    """Medians of so many steps each: short steps are many, and the answer may cost some ms only."""
    steps = np.asarray(step_s, dtype=np.float64)
    if size == 1:
        return steps
    whole = len(steps) // size * size
    return np.asarray(np.median(steps[len(steps) - whole :].reshape(-1, size), axis=1))


def _without_tails(steps: Seconds) -> Seconds:
    """Cut single delays, and whatever else is over five interquartile ranges off the median."""
    low, middle, high = np.quantile(steps, (0.25, 0.5, 0.75))
    return np.clip(steps, middle - 5 * (high - low), middle + 5 * (high - low))


def _fit(values: Seconds, *, jump: bool) -> tuple[float, Seconds, int]:
    """Slope of the line through the values, what the fit leaves, and its number of parameters.

    With `jump` the fit is a line and one jump, where it explains most; a jump nearer to an end than
    a tenth is not looked for.
    """
    num = len(values)
    times = np.arange(num) - (num - 1) / 2
    slope = float(times @ values) / float(times @ times)
    rest = values - values.mean() - slope * times
    if not jump:
        return slope, rest, 2
    first = max(2, num // 10)
    starts = np.arange(first, num - first + 1)
    after = num - starts
    # A jump is 1 from its start on; this is its length squared without mean and line.
    lean = after * starts / 2 / float(times @ times)
    lengths = after * starts / num - lean**2 * float(times @ times)
    sums = np.cumsum(rest)[starts - 1]
    best = int(np.argmax(sums**2 / lengths))
    shape = (np.arange(num) >= starts[best]) - after[best] / num - lean[best] * times
    return slope, rest + sums[best] / lengths[best] * shape, 3
