"""A trial whose requests are LoadGen's: how it is set, and what a row says of it.

Latencies, rates and the verdict are LoadGen's; what a service takes, and how many were served
together, is seen here. A run is as long as was asked, where MLPerf asks for 600 s: the row says so.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.core.units import format_duration
from bench.measure.timing.validity import Problems
from bench.results.schema import Row
from bench.serve.columns import FEWEST_FOR_P90, FEWEST_FOR_P99, server_columns
from bench.serve.live.server import serve_client
from bench.serve.mlperf.loadgen import STREAMS, LoadGenTest, LoadGenVerdict
from bench.serve.mlperf.loadgen_client import Answers, LoadGenClient
from bench.serve.run_report import Report
from bench.serve.tally import Served

if TYPE_CHECKING:
    from bench.serve.live.served_phase import QueuePhase
    from bench.serve.live.serving_engine import ServingEngine

SUBMISSION_S = 600.0
"""https://github.com/mlcommons/inference_policies/blob/master/inference_rules.adoc"""
KNOWN_S = 0.5
"""For so long requests are served beforehand, to know how many LoadGen has to prepare."""


@dataclass(frozen=True, kw_only=True)
class LoadGenRun:
    """What a run of LoadGen came to."""

    row: Row
    problems: Problems
    logs: dict[str, str]
    """LoadGen's, by the file's folder and name."""


def run_scenario(phase: QueuePhase, *, rate_per_s: float | None, report: Report) -> LoadGenRun:
    """Let LoadGen send requests to the phase's server; a rate is for mlperf-server alone.

    Accuracy first, then performance, each in a folder as MLPerf has them.
    """
    from bench.serve.live.own_answers import OwnAnswers
    from bench.serve.mlperf.accuracy import logged_answers

    engine, test = phase.engine, _test_of(phase, rate_per_s=rate_per_s)
    with tempfile.TemporaryDirectory() as name:
        accuracy, performance = (Path(name) / part for part in ("accuracy", "performance"))
        phase.answers = OwnAnswers(engine, requests=range(engine.num_distinct))
        accurate = replace(test, mode="AccuracyOnly")
        client = LoadGenClient(accurate, folder=accuracy, clock=engine.clock)
        _serve(client, phase=phase, answers=partial(logged_answers, phase.answers))
        client = LoadGenClient(test, folder=performance, clock=engine.clock)
        start_s = engine.clock.now_s()
        served = _serve(client, phase=phase, answers=partial(_timed, engine), report=report)
        phase.window_s = (start_s, engine.clock.now_s())
        report.send(client.now_s())
        files = [one for folder in (accuracy, performance) for one in sorted(folder.iterdir())]
        logs = {f"{one.parent.name}/{one.name}": one.read_text() for one in files}
    verdict, seconds = client.verdict(), phase.window_s[1] - phase.window_s[0]
    return LoadGenRun(
        row=_columns(verdict, served, scenario=test.scenario, seconds=seconds),
        problems=_problems(verdict, phase),
        logs={name: text for name, text in logs.items() if text},
    )


def _timed(engine: ServingEngine, samples: Sequence[int]) -> Sequence[bytes]:
    engine.serve(samples)
    return ()


def _serve(
    client: LoadGenClient, *, phase: QueuePhase, answers: Answers, report: Report | None = None
) -> list[Served]:
    """Serve what LoadGen sends, in batches as those of any other client."""
    served = serve_client(
        client,
        serve=lambda places: client.serve(places, answers=answers),
        shape_of=lambda place: phase.engine.shape_of(client.sample_at(place)),
        rule=phase.rule,
        report=report,
    )
    client.verdict()  # raises what LoadGen raised
    return [served[place] for place in sorted(served)]


def _test_of(phase: QueuePhase, *, rate_per_s: float | None) -> LoadGenTest:
    serving, config = phase.serving, phase.request.config
    streams = {"mlperf-single-stream": 1, "mlperf-multi-stream": STREAMS}
    together = min(streams.get(serving.scenario, phase.rule.max_batch), phase.rule.max_batch)
    return LoadGenTest(
        scenario=serving.scenario,
        num_samples=phase.engine.num_distinct,
        least_s=serving.seconds,
        sample_s=_sample_s(phase, together=together),
        rate_per_s=rate_per_s or 1.0,
        limit_s=(phase.slo.latency_s if phase.slo else None) or 0.0,
        at=phase.slo.at if phase.slo else 0.99,
        seed=config.seed + phase.request.trial,
    )


def _sample_s(phase: QueuePhase, *, together: int) -> float:
    """Return what a sample takes where so many are served together, as at the best.

    Where that is too short LoadGen prepares too many queries, and the run is longer, never shorter.
    """
    engine, now_s = phase.engine, phase.engine.clock.now_s
    rounds_s: list[float] = []
    while not rounds_s or sum(rounds_s) < KNOWN_S:
        start_s = now_s()
        for sample in range(engine.num_distinct):
            engine.serve([sample] * together)
        rounds_s.append(now_s() - start_s)
    waits_s = phase.rule.max_wait_s if phase.serving.scenario == "mlperf-single-stream" else 0.0
    return min(rounds_s) / (engine.num_distinct * together) + waits_s


def _columns(
    verdict: LoadGenVerdict, served: Sequence[Served], *, scenario: str, seconds: float
) -> Row:
    figures = verdict.figures
    rates = {
        "mlperf-single-stream": "result_qps_with_loadgen_overhead",
        "mlperf-offline": "result_samples_per_second",
        "mlperf-server": "result_completed_samples_per_sec",
    }
    per_s = figures[rates[scenario]] if scenario in rates else len(served) / seconds
    row: Row = {
        "loadgen_valid": verdict.is_valid,
        "requests": len(served),
        "errors": sum(one.is_error for one in served),
        "window_s": seconds,
        "offered_per_s": figures.get("result_scheduled_samples_per_sec"),
        "achieved_per_s": float(per_s),
        **server_columns(served, seconds=seconds),
    }
    return row if scenario == "mlperf-offline" else row | _latencies(figures, scenario=scenario)


def _latencies(figures: Mapping[str, Any], *, scenario: str) -> Row:
    """Percentiles of LoadGen's latencies; of several streams a query's, which holds eight samples.

    Offline there are none: all samples come at once.
    """
    kind = "_per_query" if scenario == "mlperf-multi-stream" else ""
    num = int(figures["result_query_count"])
    row: Row = {"lat_n": num}
    fewest = {50: 1, 90: FEWEST_FOR_P90, 99: FEWEST_FOR_P99}
    for percent, least in fewest.items():
        if num >= least:
            latency_ns = figures[f"result_{percent}.00_percentile{kind}_latency_ns"]
            row[f"lat_p{percent}_ms"] = latency_ns / 1e6
    return row


def _problems(verdict: LoadGenVerdict, phase: QueuePhase) -> Problems:
    """Return the verdict in LoadGen's words, and how long it was asked to run."""
    asked = format_duration(phase.serving.seconds)
    words = f"LoadGen {verdict.version}, not a submission: {verdict.words}; at least {asked} asked"
    if phase.serving.seconds < SUBMISSION_S:
        words += f", MLPerf asks for {format_duration(SUBMISSION_S)}"
    is_invalid = verdict.is_valid is False and not phase.request.limits.is_smoke
    is_smoke = [("smoke", "")] if phase.request.limits.is_smoke else []
    return [("loadgen_invalid" if is_invalid else "", words), *is_smoke]
