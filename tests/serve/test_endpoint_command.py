"""`bench run --endpoint`: from flags to a row, against a server with known times."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bench.measure.asking import same_modules
from bench.results.beside_rows import read_samples
from bench.results.reader import read_rows
from bench.results.schema import USABLE
from bench.results.store import requests_path
from bench.serve.endpoint.token_server import server_process
from tests.cli.conftest import Ask, all_here, ask  # noqa: F401  (fixtures)

SERVER = str(Path(__file__).with_name("faulty_server.py"))
FIRST_S, TOKEN_S = 0.02, 0.004
SHORT = ("--prompt-tokens", "fixed:20", "--output-tokens", "fixed:6", "--stall", "0.5s")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with server_process([SERVER, str(FIRST_S), str(TOKEN_S)]) as address:
        yield f"http://{address.origin}/v1"


@pytest.fixture
def rows_of(ask: Ask, tmp_path: Path, url: str) -> Any:  # noqa: F811
    """Run against the server with these flags; returns what was printed, the rows, their file."""

    def run(model: str, *flags: str, code: int = 0) -> Any:
        own = ("--endpoint", url) if "--endpoint" not in flags else ()
        words = ("run", *own, "--model", model, *SHORT, *flags, "--out", tmp_path / "out")
        answer = ask(*words, code=code)
        (path,) = (tmp_path / "out").glob("*.csv")
        return answer, list(read_rows(path)), path

    return run


def test_a_row_has_what_users_of_the_server_saw(rows_of: Any) -> None:
    flags = ("--arrivals", "uniform:40/s", "--seconds", "1", "--slo", "ttft=500ms@p90")
    answer, (row,), path = rows_of("plain", *flags)
    assert (row["workload"], row["scenario"]) == ("plain-serve", "open_loop")
    assert row["status"] in USABLE
    assert (row["device"], row["device_name"]) == ("endpoint", answer.err.split("/")[2])
    assert row["engine"] == "known times"
    assert (row["requests"], row["errors"], row["attainment_frac"]) == (40, 0, 1.0)
    assert row["ttft_p50_ms"] == pytest.approx(1e3 * FIRST_S, abs=10.0)
    assert row["tpot_p50_ms"] == pytest.approx(1e3 * TOKEN_S, rel=0.25)
    assert (row["tokens_asked_mean"], row["tokens_sent_mean"], row["tokens_got_mean"]) == (6, 20, 6)
    assert 0.0 < row["client_overhead_p50_ms"] <= row["client_overhead_p99_ms"]
    for unknown in ("dtype", "chip", "peak_flops_per_s", "roof_flops_per_s", "wait_p50_ms"):
        assert row[unknown] is None, unknown
    params = json.loads(str(row["params_json"]))
    assert params["model"] == "plain" and params["request_prompt_tokens"] == "fixed:20"
    (record,) = read_samples(requests_path(path))
    assert len(record["requests"]) == 40  # type: ignore[arg-type]
    assert "in time [95 %]" in answer.out and "first token" in answer.out


def test_what_the_server_would_not_take_is_in_the_detail(rows_of: Any) -> None:
    _, (row,), _ = rows_of("strict", "--arrivals", "uniform:40/s", "--seconds", "0.5", "--chat")
    assert "takes no ignore_eos" in row["detail"] and "as a chat is" in row["detail"]
    assert row["errors"] == 0


def test_errors_are_counted_once_and_make_a_row_invalid(rows_of: Any) -> None:
    flags = ("--arrivals", "uniform:40/s", "--seconds", "1", "--slo", "ttft=500ms@p90")
    _, (row,), _ = rows_of("503@4", *flags, code=4)
    assert (row["status"], row["errors"], row["requests"]) == ("INVALID", 10, 40)
    assert "endpoint_errors_heavy" in row["reasons"]
    assert "10 x http_503" in row["detail"] and "not now" in row["detail"]


@pytest.mark.parametrize("fault", ["html", "drip", "endless", "refused"])
def test_a_server_of_nothing_is_a_row_with_its_line(rows_of: Any, fault: str) -> None:
    start_s = time.monotonic()
    away = ("--endpoint", "http://127.0.0.1:9/v1") if fault == "refused" else ()
    answer, (row,), _ = rows_of(fault, "--arrivals", "poisson:2/s", *away, code=4)
    assert time.monotonic() - start_s < 10.0
    assert (row["status"], row["reasons"]) == ("FAILED", "error")
    assert row["detail"] in answer.out.replace("\n", " ") or row["detail"] in answer.err


class WantsKey(BaseHTTPRequestHandler):
    """Answers who has the key, and repeats another one."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        given = self.headers.get("Authorization", "")
        is_right = given == "Bearer right-key"
        self.send_response(200 if is_right else 401)
        self.send_header("Content-Type", "text/event-stream" if is_right else "application/json")
        self.end_headers()
        if not is_right:
            self.wfile.write(json.dumps({"error": {"message": f"bad key {given}"}}).encode())
            return
        usage = {"prompt_tokens": len(asked["prompt"]), "completion_tokens": asked["max_tokens"]}
        events: list[Any] = [{"choices": [{"index": 0, "text": " a"}]}] * asked["max_tokens"]
        for one in [*events, {"choices": [], "usage": usage}]:
            self.wfile.write(f"data: {json.dumps(one)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *_words: Any) -> None:
        """Say nothing."""


def test_a_key_is_sent_from_the_environment_and_kept_nowhere(
    rows_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), WantsKey)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    flags = ("--endpoint", f"http://127.0.0.1:{server.server_port}/v1", "--seconds", "0.5")

    def asked(key: str, code: int) -> tuple[Any, Any]:
        monkeypatch.setenv("BENCH_API_KEY", key)
        answer, rows, path = rows_of("m", *flags, "--arrivals", "uniform:20/s", code=code)
        kept = [one.read_bytes() for one in path.parent.iterdir() if one.is_file()]
        assert not key or key.encode() not in b"".join(kept)
        assert not key or key not in answer.out + answer.err
        path.unlink()
        return answer, rows[-1]

    assert "set BENCH_API_KEY" in asked("", 4)[1]["detail"]
    assert "bad key Bearer [key]" in asked("wrong-key", 4)[1]["detail"]
    assert "no header takes" in asked("wr\u00f6ng", 4)[1]["detail"]
    assert asked("right-key", 0)[1]["errors"] == 0
    server.shutdown()
    server.server_close()


def test_flags_that_cannot_be_meant_are_refused_in_a_line(ask: Ask, url: str) -> None:  # noqa: F811
    on, named = ("run", "--endpoint", url), ("--model", "m")
    for words, said in (
        (("run", "--workload", "sleep", "--model", "m"), "give --endpoint"),
        (("run", "--workload", "sleep", "--chat"), "give --endpoint"),
        ((*on, "--arrivals", "poisson:2/s"), "needs --model"),
        ((*on, *named), "needs --arrivals"),
        ((*on, *named, "--arrivals", "auto"), "needs what has to hold"),
        ((*on, *named, "--arrivals", "poisson:2/s", "-w", "llm"), "takes no --workload"),
        ((*on, *named, "--arrivals", "poisson:2/s", "--max-batch", "4"), "takes no --max-batch"),
        ((*on, *named, "--arrivals", "poisson:2/s", "--stall", "0s"), "--stall"),
        (("run", "--endpoint", "host:8000", *named, "--arrivals", "poisson:2/s"), "no address"),
    ):
        assert said in ask(*words, code=2).one_line


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_answered(url: str, tmp_path: Path) -> None:
    words = ["run", "--endpoint", url, "--model", "plain", *SHORT, "--arrivals", "uniform:40/s"]
    started = subprocess.Popen(
        [sys.executable, "-m", "bench", *words, "--out", str(tmp_path)],
        env=same_modules(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(15.0)
    started.send_signal(signal.SIGINT)
    _, err = started.communicate(timeout=30.0)
    assert started.returncode == 130 and "--resume" in err
    (path,) = tmp_path.glob("*.csv")
    (row,) = read_rows(path)
    assert row["reasons"] == "interrupted"
    (record,) = read_samples(requests_path(path))
    assert len(record["requests"]) > 40  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_rate_that_is_looked_for_is_a_bracket_with_users(rows_of: Any) -> None:
    flags = ("--arrivals", "auto", "--slo", "ttft=500ms@p90", "--seconds", "30", "--think", "1s")
    answer, (row,), _ = rows_of("queue", *flags)
    low, high = row["capacity_low_per_s"], row["capacity_high_per_s"]
    assert 0.0 < low < high and row["capacity_is"] == "confirmed"
    assert row["arrivals"] == "auto" and f"{low:.3g}/s holds" in row["detail"]
    assert row["users"] is None or row["users"] >= low
    assert "carries" in answer.out
