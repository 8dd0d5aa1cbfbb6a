"""Served runs as a user starts them: against theory, under load, stopped, interrupted.

They need a machine that does nothing else.
"""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.core.queueing import sojourn_times
from bench.results.beside_rows import read_samples
from bench.results.reader import read_rows
from bench.results.store import requests_path
from tests.run.bench_process import command, environment, processes_with, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SLEEP = ("--workload", "sleep-infer", "--size", "tiny", "--device", "cpu", "--threads", "1")
SERVICE_S = 0.02


@contextmanager
def started(*flags: str, out: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run in a process of its own, that is not left behind."""
    run = subprocess.Popen(command(*flags, "--quiet", out=out), env=environment(out))
    try:
        yield run
    finally:
        run.kill()
        run.wait()


def served(*flags: str, out: Path) -> tuple[list[dict[str, Any]], list[list[dict[str, Any]]]]:
    """Rows, and the requests of each live run."""
    with started(*flags, out=out) as run:
        run.wait(1200)
    return found(out)


def found(out: Path) -> tuple[list[dict[str, Any]], list[list[dict[str, Any]]]]:
    (path,) = out.glob("*.csv")
    requests: Any = [record["requests"] for record in read_samples(requests_path(path))]
    rows: Any = read_rows(path)
    return rows, requests


def trial_of(out: Path) -> int:
    """Process id of the trial, when it has begun to serve."""
    both: set[int] = set()

    def is_there() -> bool:
        both.update(set(processes_with("bench.serve.served_trial")) & set(processes_with(str(out))))
        return bool(both)

    wait_until(is_there, timeout_s=60)
    return both.pop()


@pytest.mark.parametrize("used", [0.3, 0.6, 0.8])
def test_waits_are_those_of_a_queue_with_the_same_arrivals(used: float, tmp_path: Path) -> None:
    arrivals = f"poisson:{used / SERVICE_S:g}/s"
    flags = ("--arrivals", arrivals, "--slo", "200ms@p99", "--profile", "quick")
    (row,), (requests,) = served(*SLEEP, *flags, out=tmp_path)
    times = np.array([one["scheduled_s"] for one in requests])
    services = np.array([one["ended_s"] - one["started_s"] for one in requests])
    expected_s = (sojourn_times(times, services) - services).mean()
    waits_s = np.array([one["started_s"] - one["scheduled_s"] for one in requests])
    assert waits_s.mean() == pytest.approx(expected_s, rel=0.1, abs=1e-3)
    assert services.mean() == pytest.approx(SERVICE_S, rel=0.05)
    assert row["utilisation_frac"] == pytest.approx(used, rel=0.1)
    assert row["send_lag_p99_ms"] < 5.0 and "load_inconsistent" not in str(row["reasons"])


def test_a_predicted_capacity_is_confirmed_by_its_own_live_runs(tmp_path: Path) -> None:
    # One thread, so that the client has a core of its own.
    flags = ("--workload", "imaging-infer", "--size", "tiny", "--device", "cpu", "--threads", "1")
    rows, _ = served(
        *flags, "--trials", "5", "--arrivals", "auto", "--slo", "300ms@p95", out=tmp_path
    )
    verdicts = [row["capacity_is"] for row in rows if row["status"] in ("OK", "WARN")]
    assert verdicts.count("confirmed") >= 4, [row["detail"] for row in rows]


def test_a_client_that_is_kept_from_its_core_makes_the_row_invalid(tmp_path: Path) -> None:
    burners = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(8 * (os.cpu_count() or 1))
    ]
    try:
        flags = ("--arrivals", "poisson:30/s", "--slo", "60ms@p99", "--seconds", "10")
        rows, _ = served(*SLEEP, *flags, "--profile", "smoke", out=tmp_path)
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()
    assert rows[0]["status"] == "INVALID" and "client_late" in rows[0]["reasons"]


def test_a_server_that_stands_still_is_in_the_latencies(tmp_path: Path) -> None:
    flags = ("--arrivals", "uniform:20/s", "--seconds", "12", "--profile", "smoke")
    with started(*SLEEP, *flags, out=tmp_path) as run:
        trial = trial_of(tmp_path)
        for _ in itertools.takewhile(lambda _: run.poll() is None, range(8)):
            time.sleep(2)
            with suppress(ProcessLookupError):  # it has ended
                os.kill(trial, signal.SIGSTOP)
                time.sleep(0.3)
                os.kill(trial, signal.SIGCONT)
        run.wait(120)
    _, (requests, *_) = found(tmp_path)
    latencies_s = sorted(one["ended_s"] - one["scheduled_s"] for one in requests)
    assert latencies_s[-1] > 0.29 and latencies_s[len(latencies_s) // 2] < 0.1


def test_an_interrupt_keeps_the_requests_that_ended(tmp_path: Path) -> None:
    flags = ("--arrivals", "uniform:20/s", "--seconds", "60", "--profile", "smoke")
    with started(*SLEEP, *flags, out=tmp_path) as run:
        trial_of(tmp_path)
        time.sleep(20)
        run.send_signal(signal.SIGINT)
        assert run.wait(60) == 130
    (row,), (requests,) = found(tmp_path)
    assert row["reasons"] == "interrupted" and len(requests) > 20
