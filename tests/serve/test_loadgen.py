"""LoadGen itself against services that are known: its verdict is carried in its own words."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from bench.core.errors import UsageError
from bench.core.traffic import RequestKind, Traffic, capacity
from bench.serve.mlperf import loadgen
from bench.serve.mlperf.loadgen import (
    SCENARIOS,
    LoadGenTest,
    LoadGenVerdict,
    Query,
    complete,
    read_answers,
    run_test,
)

needs_loadgen = pytest.mark.skipif(
    loadgen.importlib.util.find_spec("mlperf_loadgen") is None, reason="LoadGen is not installed"
)


def of_scenario(scenario: str, *, least_s: float, sample_s: float = 0.0) -> LoadGenTest:
    return LoadGenTest(
        scenario=scenario,
        num_samples=20,
        least_s=least_s,
        sample_s=sample_s or (5e-7 if scenario == "mlperf-offline" else 2.5e-6),
        rate_per_s=10_000.0,
        limit_s=2.0,
    )


def done_at_once(queries: list[Query]) -> None:
    complete([identifier for identifier, _ in queries])


@contextmanager
def served_by(serve: Callable[[list[Query]], None]) -> Iterator[Callable[[list[Query]], None]]:
    """Give what LoadGen asks to a thread that does one after the other."""
    asked: queue.SimpleQueue[list[Query] | None] = queue.SimpleQueue()

    def loop() -> None:
        while (queries := asked.get()) is not None:
            serve(queries)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield asked.put
    finally:
        asked.put(None)
        thread.join()


def stalled(folder: Path) -> LoadGenVerdict:
    """200 queries a second of a service that takes no time, but stops once."""
    test = replace(of_scenario("mlperf-server", least_s=1.5), rate_per_s=200.0, limit_s=0.02)
    num = 0

    def serve(queries: list[Query]) -> None:
        nonlocal num
        num += 1
        time.sleep(0.3 if num == 50 else 0.0)
        done_at_once(queries)

    with served_by(serve) as issue:
        return run_test(test, issue=issue, folder=folder)


@needs_loadgen
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_service_without_time_is_valid_and_every_sample_comes_as_often(
    scenario: str, tmp_path: Path
) -> None:
    counts = [0] * 20

    def issue(queries: list[Query]) -> None:
        for _, index in queries:
            counts[index] += 1
        done_at_once(queries)

    verdict = run_test(of_scenario(scenario, least_s=0.1), issue=issue, folder=tmp_path)
    assert verdict.is_valid, verdict.words
    assert verdict.words.startswith("VALID")
    assert verdict.version.startswith("6.")
    if scenario != "mlperf-multi-stream":  # whose queries hold eight, and are not a round
        assert max(counts) - min(counts) <= 1


@needs_loadgen
def test_a_stall_is_invalid_in_the_words_of_loadgen(tmp_path: Path) -> None:
    verdict = stalled(tmp_path)
    assert verdict.is_valid is False
    assert "Early stopping satisfied: NO; Reduce target QPS to improve latency" in verdict.words
    assert "with the run being successful if every additional query" in verdict.words
    # From the schedule on: who came in the stall waited for its end.
    assert verdict.figures["result_99.00_percentile_latency_ns"] > 0.25e9


@needs_loadgen
def test_early_stopping_says_how_many_queries_are_missing(tmp_path: Path) -> None:
    test = replace(of_scenario("mlperf-server", least_s=0.001), num_samples=100)
    verdict = run_test(test, issue=done_at_once, folder=tmp_path)
    assert verdict.figures["result_query_count"] == 100
    assert "Would need to run at least 359 more queries" in verdict.words


@needs_loadgen
def test_a_run_takes_little_longer_than_asked_and_its_queries_one_at_a_time(tmp_path: Path) -> None:
    def serve(queries: list[Query]) -> None:
        time.sleep(0.004)
        done_at_once(queries)

    test = of_scenario("mlperf-single-stream", least_s=0.5, sample_s=0.004)
    begins_s = time.perf_counter()
    with served_by(serve) as issue:
        verdict = run_test(test, issue=issue, folder=tmp_path)
    assert verdict.is_valid, verdict.words
    assert 0.5 < time.perf_counter() - begins_s < 5.0
    assert verdict.figures["result_min_latency_ns"] > 4e6


@needs_loadgen
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_accuracy_asks_for_each_sample_once_and_keeps_its_answer(
    scenario: str, tmp_path: Path
) -> None:
    def serve(queries: list[Query]) -> None:
        answers = [f"sample {index}".encode() for _, index in queries]
        complete([identifier for identifier, _ in queries], answers)

    test = replace(of_scenario(scenario, least_s=0.1), mode="AccuracyOnly", rate_per_s=1_000.0)
    with served_by(serve) as issue:
        verdict = run_test(test, issue=issue, folder=tmp_path)
    assert verdict.is_valid is None
    answers = read_answers(tmp_path)
    assert set(answers) == {(index, f"sample {index}".encode()) for index in range(20)}
    assert len(answers) == 20 or scenario == "mlperf-multi-stream"  # its last query is filled up


def test_without_loadgen_the_way_to_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loadgen.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(UsageError, match=r"pip install 'gapbench\[loadgen\]'"):
        loadgen.check_installed()


@needs_loadgen
@pytest.mark.slow
def test_its_own_search_beside_capacity_by_replay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only printed: a constant 2.15 ms with p99 within 20 ms has 354/s (M/D/1)."""
    service_s = 0.00215

    def serve(queries: list[Query]) -> None:
        end_s = time.perf_counter() + service_s
        time.sleep(service_s - 0.0005)
        while time.perf_counter() < end_s:
            pass
        done_at_once(queries)

    test = of_scenario("mlperf-server", least_s=1.0, sample_s=service_s)
    test = replace(test, rate_per_s=300.0, limit_s=0.02, mode="FindPeakPerformance")
    with served_by(serve) as issue:
        verdict = run_test(test, issue=issue, folder=tmp_path)
    kind = RequestKind(services=((service_s,) * 700,))
    ours = capacity(Traffic(kinds=(kind,), at=0.99, limit=0.02)).rate
    with capsys.disabled():
        print(
            f"\nconstant {1e3 * service_s} ms, p99 within 20 ms: by replay {ours:.0f}/s; LoadGen's "
            f"search {verdict.figures['effective_target_qps']:.0f}/s, of which it says: "
            f"{verdict.words}"
        )
