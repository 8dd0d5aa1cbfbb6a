"""What is said of a run's books, by requests made by hand."""

import random

from bench.serve.judgement import is_overloaded, problems_of
from bench.serve.tally import Served


def requests(
    times_s: list[float], *, kind: type[Served] = Served, late_s: float = 0.0
) -> list[Served]:
    """Latencies rise from 1 to 2 s over the run."""
    source = random.Random(3)
    found = []
    for at_s in times_s:
        ended_s = at_s + (1.0 + at_s / times_s[-1]) * source.uniform(0.9, 1.1)
        sent_s = at_s + late_s
        found.append(
            kind(scheduled_s=at_s, sent_s=sent_s, started_s=sent_s, ended_s=ended_s, batch=1)
        )
    return found


class SentLate(Served):
    """A request whose latency is taken from its sending."""

    @property
    def latency_s(self) -> float:
        return self.ended_s - self.sent_s


def test_requests_present_are_rate_times_latency_or_the_books_are_wrong() -> None:
    evenly = [0.05 * place for place in range(1200)]
    asked = {"slo": None, "seconds": 60.0, "found": None, "is_one_server": False}
    right = problems_of(requests(evenly, late_s=0.1), **asked)
    wrong = problems_of(requests(evenly, kind=SentLate, late_s=0.1), **asked)
    codes = {code for code, _ in wrong} - {code for code, _ in right}
    assert codes == {"load_inconsistent"}


def test_several_at_once_are_overloaded_where_it_is_not_the_load_that_grows() -> None:
    evenly = [0.05 * place for place in range(1200)]
    growing = [60.0 * (place / 1200) ** 0.5 for place in range(1200)]
    assert is_overloaded(requests(evenly), seconds=60.0, is_one_server=False)
    assert not is_overloaded(requests(growing), seconds=60.0, is_one_server=False)
