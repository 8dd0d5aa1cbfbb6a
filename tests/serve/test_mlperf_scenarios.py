"""LoadGen's requests on a real server: rows, logs, screens, and answers to the wrong request."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.analysis.trials.configuration import gather
from bench.cli import main
from bench.core.nouns import Serving
from bench.measure.messages import Messages, TrialRequest, TrialResult
from bench.measure.timing.limits import PROFILES
from bench.report.tables.cells import text_of
from bench.report.tables.offered_table import offered_grid
from bench.results.beside_rows import keep_logs
from bench.run.record import serving_columns
from bench.serve.live.serving_engine import ServingEngine
from bench.serve.mlperf.loadgen import SCENARIOS
from bench.serve.served_trial import run_request
from tests.analysis.synthetic_rows import trials
from tests.cli.conftest import Ask, all_here, ask  # noqa: F401  (fixtures)
from tests.measure.trial_requests import request_of

pytest.importorskip("mlperf_loadgen", reason="LoadGen is not installed")
SERVICE_S = 0.005


def request_for(
    scenario: str, *, arrivals: str = "poisson:100/s", slo: str = "1s@p99", max_batch: int = 1
) -> TrialRequest:
    """Somewhat over half a second of services that take 5 ms."""
    typed = {"arrivals": arrivals, "given": arrivals, "slo": slo}
    known = typed if scenario == "mlperf-server" else {"arrivals": ""}
    asked = Serving(scenario=scenario, max_batch=max_batch, seconds=0.6, **known)  # type: ignore[arg-type]
    return request_of(
        "sleep-infer",
        overrides={"seconds": SERVICE_S},
        limits=replace(PROFILES["smoke"].limits, is_smoke=False),
        data="generated",
        serving=asked,
    )


@pytest.fixture
def trial() -> Iterator[Any]:
    """Run a trial in this process, and return what it sends."""

    def run(request: TrialRequest) -> TrialResult:
        sent: list[Any] = []
        messages = Messages()
        messages.send = sent.append  # type: ignore[method-assign]
        run_request(request, messages)
        return sent[-1]  # type: ignore[no-any-return]

    threads = torch.get_num_threads()
    yield run
    torch.set_num_threads(threads)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_each_scenario_is_a_row_with_the_words_of_loadgen(scenario: str, trial: Any) -> None:
    result = trial(request_for(scenario))
    row = result.row
    assert result.detail.startswith("LoadGen 6."), result.detail
    assert "not a submission" in result.detail
    assert "at least 600 ms asked, MLPerf asks for 10 min" in result.detail
    assert row["service_p50_ms"] >= 1e3 * SERVICE_S
    assert row["requests"] > 20 and row["achieved_per_s"] < 1 / SERVICE_S
    if scenario in ("mlperf-single-stream", "mlperf-offline"):
        assert row["loadgen_valid"] is True, result.detail
        assert "loadgen_invalid" not in result.reasons
    else:  # too few queries: it says how many it needs
        assert row["loadgen_valid"] is False and "loadgen_invalid" in result.reasons
        assert "Early stopping satisfied: NO" in result.detail
    assert ("lat_p50_ms" in row) == (scenario != "mlperf-offline")
    streams = 8 if scenario == "mlperf-multi-stream" else 1
    if scenario != "mlperf-offline":
        assert row["lat_n"] == row["requests"] / streams
        assert row["lat_p50_ms"] >= 1e3 * SERVICE_S * streams
    names = {"accuracy/mlperf_log_accuracy.json", "performance/mlperf_log_summary.txt"}
    assert names < result.logs.keys()


def test_a_server_is_asked_at_the_capacity_by_replay(trial: Any) -> None:
    row = trial(request_for("mlperf-server", arrivals="auto")).row
    assert 0.5 / SERVICE_S < row["capacity_per_s"] < 1 / SERVICE_S
    assert row["capacity_is"] == "predicted"
    assert row["offered_per_s"] == pytest.approx(row["capacity_per_s"], rel=0.3)


def test_a_limit_that_nothing_holds_leaves_loadgen_unasked(trial: Any) -> None:
    result = trial(request_for("mlperf-server", arrivals="auto", slo="1ms@p99"))
    assert "capacity_not_confirmed" in result.reasons
    assert "LoadGen was not asked" in result.detail
    assert result.row["capacity_per_s"] == 0.0 and "loadgen_valid" not in result.row


def test_a_batch_is_of_as_many_as_are_asked_for(trial: Any) -> None:
    row = trial(request_for("mlperf-offline", max_batch=4)).row
    assert row["batch_mean"] > 3.5
    assert row["loadgen_valid"] is True


def test_a_batch_that_mixes_up_its_answers_is_wrong(
    trial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve = ServingEngine.serve

    def mixed_up(engine: ServingEngine, requests: Any) -> Any:
        output = serve(engine, requests)
        return output.flip(0) if len(requests) > 1 else output

    monkeypatch.setattr(ServingEngine, "serve", mixed_up)
    result = trial(request_for("mlperf-offline", max_batch=4))
    assert "wrong_output" in result.reasons
    assert "has the answer of request" in result.detail


def test_a_screen_says_that_it_is_no_submission() -> None:
    asked = Serving(arrivals="", scenario="mlperf-offline")
    (row,) = trials(num=1, achieved_per_s=31.5, loadgen_valid=True, **serving_columns(asked))
    grid = offered_grid(gather([row]))
    assert "measured with LoadGen; not a submission" in grid.notes
    cells = dict(zip(grid.heads, map(text_of, grid.rows[0]), strict=True))
    assert cells["LoadGen"] == "VALID" and cells["answered"].startswith("31.5 ")
    assert cells["arrivals"] == row["scenario"] == "mlperf_offline"


def test_logs_lie_beside_the_rows_in_a_folder_a_trial(tmp_path: Path) -> None:
    keys = {"config_hash": "0123", "trial": 2, "attempt": 1, "device": "cuda:0"}
    keep_logs(tmp_path / "run.csv", keys=keys, logs={"performance/mlperf_log_summary.txt": "VALID"})
    kept = tmp_path / "run.loadgen" / "0123-2-1" / "performance" / "mlperf_log_summary.txt"
    assert kept.read_text() == "VALID"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--scenario mlperf-offlin", "did you mean 'mlperf-offline'?"),
        ("--scenario mlperf-server", "needs what has to hold: --slo 2s@p99"),
        ("--scenario mlperf-offline --slo 1s@p99", "--slo is for --scenario mlperf-server"),
        ("--scenario mlperf-server --slo 1s@p99 --arrivals uniform:3/s", "has Poisson arrivals"),
        ("--scenario mlperf-offline --device fake", "takes real time"),
    ],
)
def test_what_loadgen_cannot_do_is_refused_in_one_line(
    flags: str,
    said: str,
    ask: Ask,  # noqa: F811
) -> None:
    printed = ask("run", "--workload", "sleep-infer", "--device", "cpu", *flags.split(), code=2)
    assert said in printed.err.splitlines()[-1]
    assert len(printed.err.splitlines()) == 1


@pytest.mark.slow
def test_a_run_as_typed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    line = "run --workload sleep-infer --size tiny --device cpu --profile quick --seconds 5"
    flags = ("--scenario", "mlperf-single-stream", "--out", str(tmp_path))
    assert main([*line.split(), *flags]) in (0, 4), "4 beside other work"
    printed = capsys.readouterr().out
    assert "LoadGen 6." in printed and "not a submission" in printed
    (folder,) = tmp_path.glob("*.loadgen")
    attempts = list(folder.iterdir())
    assert attempts
    for one in attempts:  # a second where others used the processor
        assert len(list(one.glob("*/mlperf_log_detail.txt"))) == 2
