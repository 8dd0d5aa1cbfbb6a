"""What the benchmarks share: skipping where nothing is timed, and two sides that take turns."""

import random
import statistics
import time
from collections.abc import Callable

import pytest


@pytest.fixture
def only_when_timed(request: pytest.FixtureRequest) -> None:
    """Leave a measurement of minutes out of the normal suite."""
    if not request.config.getoption("--benchmark-enable"):
        pytest.skip("a measurement of minutes; run it with --benchmark-enable")


Report = Callable[[str, list[float]], float]


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Report:
    """Print the median of ratios with its error and return it."""

    def reported(name: str, ratios: list[float]) -> float:
        low, middle, high = statistics.quantiles(ratios, n=4)
        likely = 1.25 * (high - low) / 1.35 / len(ratios) ** 0.5
        with capsys.disabled():
            print(f"\n{name} {middle:.4f} +- {likely:.4f}, {len(ratios)} pairs")
        return middle

    return reported


def interleaved_ratios(
    first: Callable[[], float], second: Callable[[], float], *, fewest: int, measured_s: float
) -> list[float]:
    """Ratios of two times that are taken in turn, in either order, for so many pairs or so long."""
    ratios: list[float] = []
    order = random.Random(0)
    end_s = time.monotonic() + measured_s
    while len(ratios) < fewest or time.monotonic() < end_s:
        if order.random() < 0.5:
            second_s, first_s = second(), first()
        else:
            first_s, second_s = first(), second()
        ratios.append(first_s / second_s)
    return ratios
