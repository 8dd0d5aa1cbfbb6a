"""Requests that come by themselves, as typed: rows, screens and refusals, in simulated time."""

from pathlib import Path
from typing import Any

import pytest

from bench.core.queueing import mean_waits
from bench.measure.messages import ServedSoFar
from bench.results.beside_rows import read_samples
from bench.results.reader import read_rows
from bench.results.store import requests_path, samples_path
from bench.run.launching import launch
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


def test_a_rate_is_found_and_live_runs_say_what_it_is_worth(served: Any) -> None:
    answer, path = served("--arrivals", "auto", "--slo", "40ms@p95")
    (row,) = read_rows(path)
    assert row["arrivals"] == "auto" and row["capacity_is"] == "confirmed", row["detail"]
    low, high = row["capacity_low_per_s"], row["capacity_high_per_s"]
    assert low < row["capacity_per_s"] < high < 1.1 * low
    assert row["offered_per_s"] == pytest.approx(low, rel=0.03)
    assert row["attainment_frac"] >= 0.95 and "short_run" not in str(row["reasons"])
    assert "live at" in row["detail"] and "breaks" in row["detail"]
    assert f"carries {low:.0f} - {high:.0f} volume/s at 40ms@p95 (confirmed by live" in answer.out
    at_low, above = read_samples(requests_path(path))
    assert at_low["attainment_frac"] == row["attainment_frac"]
    assert above["offered_per_s"] == pytest.approx(1.15 * high, rel=0.03)
    assert len(above["requests"]) > 1.1 * len(at_low["requests"])  # type: ignore[arg-type]
    (steps,) = read_samples(samples_path(path))
    assert len(steps["step_s"]) >= 700  # type: ignore[arg-type]


def test_a_rate_of_batches_is_found_from_batches_of_each_size(served: Any) -> None:
    flags = ("--arrivals", "auto", "--slo", "40ms@p95", "--max-batch", "4", "--max-wait", "5ms")
    answer, path = served(*flags)
    (row,) = read_rows(path)
    assert row["capacity_is"] == "confirmed" and row["batch_mean"] > 1.5, row["detail"]
    # One alone takes some 4 ms, four together 2.5 times as long: 4 / 2.5 of the rate at most.
    most_per_s = 1e3 / row["service_p50_ms"] * 4 / 2.5
    assert row["capacity_low_per_s"] < row["capacity_per_s"] < row["capacity_high_per_s"]
    assert 0.8 * most_per_s < row["capacity_per_s"] < most_per_s
    assert row["offered_per_s"] == pytest.approx(row["capacity_low_per_s"], rel=0.03)
    assert "(confirmed by live" in answer.out
    (steps,) = read_samples(samples_path(path))
    assert len(steps["step_s"]) >= 175  # type: ignore[arg-type]


def test_batches_that_wait_longer_than_promised_are_told_apart_from_slow_ones(served: Any) -> None:
    flags = ("--slo", "20ms@p95", "--max-batch", "4", "--max-wait", "50ms")
    _, path = served("--arrivals", "auto", *flags)
    (row,) = read_rows(path)
    assert row["capacity_per_s"] == 0.0 and "find nobody do not hold 20ms@p95" in row["detail"]


@pytest.mark.parametrize(
    ("flags", "rate", "words"),
    [
        (("--slo", "100ms@p99", "--seconds", "3"), True, "no live run: at "),
        (("--slo", "3ms@p99"), False, "requests that find nobody do not hold 3ms@p99"),
    ],
)
def test_a_rate_that_no_live_run_can_check_is_a_prediction(
    served: Any, flags: tuple[str, ...], rate: bool, words: str
) -> None:
    answer, path = served("--arrivals", "auto", *flags)
    (row,) = read_rows(path)
    assert (row["capacity_is"], row["reasons"]) == ("predicted", "capacity_not_confirmed")
    assert bool(row["capacity_per_s"]) == rate and row["requests"] is None
    assert words in row["detail"] and words in answer.out


def test_open_and_closed_loops_are_never_set_against_each_other(
    served: Any,
    ask: Ask,  # noqa: F811
    tmp_path: Path,
) -> None:
    _, path = served("--arrivals", "poisson:150/s", "--slo", "100ms@p99", "--trials", "3")
    closed = tmp_path / "closed"
    ask(*RUN, "-w", "imaging-train", "--out", closed)
    (other,) = closed.glob("*.csv")
    hashes = {row["config_hash"] for row in read_rows(path)}
    assert hashes.isdisjoint(row["config_hash"] for row in read_rows(other))
    said = ask("compare", other, path, code=5).out
    assert "scenario is closed_loop" in said
    itself = ask("compare", path, path, "--metric", "latency").out
    assert "latency B/A" in itself and "1 SAME" in itself
    (gap,) = ask("gap", other, path, "--json").document["gaps"]
    (alone,) = ask("gap", other, "--json").document["gaps"]
    assert gap["time_ratio"] == alone["time_ratio"]
    ask("gap", path, code=5)
    exported = ask("export", path, "--to", "bmf").document
    assert any("goodput_per_s" in measures for measures in exported.values())


def test_an_interrupt_keeps_the_requests_that_ended(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended_by_the_user(*words: str, on_message: Any, **how: Any) -> None:
        ended = [{"scheduled_s": 0.1, "ended_s": 0.2, "status": "ok"}]
        so_far = {"elapsed_s": 1.0, "arrivals": "poisson:9/s", "num": 1, "held_frac": None}
        on_message(ServedSoFar(**so_far, requests=ended))  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, "run_child", ended_by_the_user)
    _, path = served("--arrivals", "poisson:9/s", code=130)
    (row,) = read_rows(path)
    (record,) = read_samples(requests_path(path))
    assert row["reasons"] == "interrupted" and len(record["requests"]) == 1  # type: ignore[arg-type]


def test_a_file_that_changed_is_another_schedule(
    served: Any,
    ask: Ask,  # noqa: F811
    tmp_path: Path,
) -> None:
    day = tmp_path / "day.txt"
    day.write_text(" ".join(map(str, [1] * 12 + [3] * 12)))
    _, path = served("--arrivals", f"day:100/s:{day}", "--trials", "2")
    rows = read_rows(path)
    assert [row["trial"] for row in rows] == [0, 1] and rows[0]["requests"] != rows[1]["requests"]
    kept = path.read_text().splitlines(keepends=True)
    path.write_text("".join(kept[:-1]))
    ask("run", "--resume", path)
    assert len(read_rows(path)) == 2
    path.write_text("".join(kept[:-1]))
    day.write_text(" ".join(["1"] * 24))
    assert "start a new run" in ask("run", "--resume", path, code=4).one_line


def test_a_trace_that_ends_before_the_run_does_is_offered_at_its_own_rate(
    served: Any, tmp_path: Path
) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text("".join(f'{{"timestamp": {5 * place}}}\n' for place in range(801)))
    _, path = served("--arrivals", f"trace:{trace}", "--slo", "100ms@p99")
    (row,) = read_rows(path)
    assert row["requests"] == 801 and row["window_s"] == pytest.approx(4.005)
    rates = row["offered_per_s"], row["goodput_per_s"], row["achieved_per_s"]
    assert rates == pytest.approx((200, 200, 200), rel=0.01)
    assert row["utilisation_frac"] == pytest.approx(0.2 * row["service_p50_ms"], rel=0.02)


def test_a_morning_without_requests_is_part_of_the_achieved_rate(
    served: Any, tmp_path: Path
) -> None:
    day = tmp_path / "day.txt"
    day.write_text(" ".join(["0"] * 12 + ["1"] * 12))
    _, path = served("--arrivals", f"day:40/s:{day}")
    (row,) = read_rows(path)
    assert row["achieved_per_s"] == pytest.approx(row["offered_per_s"], rel=1e-3)


def test_what_settings_carry_is_told_apart(
    served: Any,
    ask: Ask,  # noqa: F811
    tmp_path: Path,
) -> None:
    day = tmp_path / "day.txt"
    day.write_text(" ".join(["1"] * 24))
    at = ("--slo", "100ms@p90", "--seconds", "10")
    answer, _ = served("--arrivals", f"day:90/s:{day}", "--max-batch", "8", *at)
    said = " ".join(answer.out.split())
    assert "(day:day.txt, up to 8 at once) carries at least" in said
    assert "volume/s over the whole day at 100ms@p90" in said
    arm = " ".join((*RUN[1:], "--arrivals", "uniform:9/s"))
    assert "--arrivals cannot be part of an arm" in ask("ab", arm, arm, code=2).one_line


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--slo", "2s@p99"), "--slo is about requests that come: give --arrivals as well"),
        (("--arrivals", "poisson"), "--arrivals"),
        (("--arrivals", "auto"), "needs what has to hold: --slo 2s@p99"),
        (("--arrivals", "uniform:9/s", "--slo", "ttft=2s@p99"), "limit its latency"),
        (("--arrivals", "uniform:9/s", "--slo", "1s@p99,tpot=1s@p99"), "limit its latency"),
        (("--arrivals", "poisson:800/day"), "0.556 requests in 60 s; raise --seconds"),
        (("--arrivals", "poisson:1e9/s"), "6e+10 requests in 60 s are over"),
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
