"""Requests that come by themselves, as typed: rows, screens and refusals, in simulated time."""

from pathlib import Path
from typing import Any

import pytest

from bench.core.queueing import mean_waits
from bench.results.beside_rows import read_samples
from bench.results.reader import read_rows
from bench.results.store import requests_path
from tests.cli.conftest import Ask, all_here, ask  # noqa: F401  (fixtures)

RUN = ("run", "--workload", "imaging-infer", "--size", "tiny", "--device", "fake")


@pytest.fixture
def served(ask: Ask, tmp_path: Path) -> Any:  # noqa: F811
    """Run with these flags; returns what was printed, and the rows' file."""

    def run(*flags: str, code: int = 0) -> Any:
        answer = ask(*RUN, *flags, "--out", tmp_path / "out", code=code)
        (path,) = (tmp_path / "out").glob("*.csv")
        return answer, path

    return run


def test_a_row_has_what_became_of_the_requests(served: Any) -> None:
    answer, path = served("--arrivals", "poisson:150/s", "--slo", "100ms@p99")
    (row,) = read_rows(path)
    assert (row["scenario"], row["status"], row["reasons"]) == ("open_loop", "OK", None)
    assert (row["arrivals"], row["slo"], row["max_batch"]) == ("poisson:150/s", "100ms@p99", 1)
    assert row["requests"] == row["lat_n"] and row["errors"] == 0
    assert row["offered_per_s"] == pytest.approx(150, rel=0.05)
    assert row["attainment_low_frac"] > 0.99 and row["window_s"] == 60.0
    # Pollaczek and Khinchine.
    service_s = row["service_p50_ms"] * 1e-3
    assert row["utilisation_frac"] == pytest.approx(row["offered_per_s"] * service_s, rel=0.02)
    (record,) = read_samples(requests_path(path))
    requests: Any = record["requests"]
    assert len(requests) == row["requests"] and record["arrivals"] == "poisson:150/s"
    waits = [one["started_s"] - one["scheduled_s"] for one in requests]
    (expected_s,) = mean_waits([row["offered_per_s"]], mean=service_s, cv2=row["service_cv"] ** 2)
    assert sum(waits) / len(waits) == pytest.approx(expected_s, rel=0.15)
    assert row["throughput_per_s"] is None and row["step_median_ms"] is None
    assert "in time [95 %]" in answer.out and "limit: 100ms@p99" in answer.out


def test_more_than_can_be_served_has_no_latency(served: Any) -> None:
    answer, path = served("--arrivals", "uniform:400/s", "--slo", "100ms@p99", "--seconds", "20")
    (row,) = read_rows(path)
    assert row["reasons"] == "overloaded" and row["status"] == "WARN"
    assert row["lat_p50_ms"] is None and row["attainment_frac"] < 0.1
    assert row["utilisation_frac"] > 0.99 and "overloaded: 1 of 1 trial" in answer.out


def test_a_batch_holds_as_many_as_asked_and_carries_more(served: Any) -> None:
    _, path = served("--arrivals", "poisson:400/s", "--max-batch", "8", "--max-wait", "10ms")
    (row,) = read_rows(path)
    assert row["status"] == "OK" and 1 < row["batch_mean"] < 8 and row["max_wait_ms"] == 10
    assert row["attainment_frac"] is None


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--slo", "2s@p99"), "--slo is about requests that come: give --arrivals as well"),
        (("--arrivals", "poisson"), "--arrivals"),
        (("--arrivals", "auto"), "needs what has to hold: --slo 2s@p99"),
        (("--arrivals", "auto", "--slo", "2s@p99", "--max-batch", "4"), "one at a time"),
        (("--arrivals", "uniform:9/s", "--slo", "ttft=2s@p99"), "limit its latency"),
        (("--arrivals", "uniform:9/s", "--max-wait", "9ms"), "give --max-batch as well"),
        (("--arrivals", "uniform:9/s", "--max-batch", "0"), "must be from 1 to"),
        (("--arrivals", "uniform:9/s", "--seconds", "-1"), "--seconds must be more"),
        (("--arrivals", "uniform:9/s", "-w", "imaging-train"), "is for inference"),
        (("--arrivals", "uniform:9/s", "--data", "resident"), "leave --data resident out"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(
    ask: Ask,  # noqa: F811
    flags: tuple[str, ...],
    words: str,
) -> None:
    assert words in ask(*RUN, *flags, code=2).one_line
