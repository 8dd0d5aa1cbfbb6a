"""What is said of a run's books, by requests made by hand."""

import random

from bench.serve.judgement import is_overloaded, problems_of
from bench.serve.tally import Served


def requests(times_s: list[float]) -> list[Served]:
    """Latencies rise from 1 to 2 s over the run."""
    source = random.Random(3)
    found = []
    for at_s in times_s:
        ended_s = at_s + (1.0 + at_s / times_s[-1]) * source.uniform(0.9, 1.1)
        found.append(
            Served(scheduled_s=at_s, sent_s=at_s, started_s=at_s, ended_s=ended_s, batch=1)
        )
    return found


def test_requests_present_are_rate_times_latency_or_the_books_are_wrong() -> None:
    found = requests([0.05 * place for place in range(1200)])
    right_s = sum(one.latency_s for one in found)

    def words(present_s: float | None) -> dict[str, str]:
        return dict(
            problems_of(
                found, slo=None, seconds=60.0, found=None, is_one_server=False, present_s=present_s
            )
        )

    codes = [[*words(share * right_s)] for share in (0.96, 0.99, 1.01, 1.04)]
    wrong = ["load_inconsistent", "overloaded"]
    assert [sorted(some) for some in codes] == [wrong, ["overloaded"], ["overloaded"], wrong]
    assert "load_inconsistent" not in words(None)
    assert words(2 * right_s)["load_inconsistent"] == (
        "57.9 requests present on average, rate x mean time is 29"
    )


def test_several_at_once_are_overloaded_where_it_is_not_the_load_that_grows() -> None:
    evenly = [0.05 * place for place in range(1200)]
    growing = [60.0 * (place / 1200) ** 0.5 for place in range(1200)]
    assert is_overloaded(requests(evenly), seconds=60.0, is_one_server=False)
    assert not is_overloaded(requests(growing), seconds=60.0, is_one_server=False)
