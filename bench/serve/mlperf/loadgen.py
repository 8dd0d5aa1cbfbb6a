"""MLPerf's LoadGen as the one who sends requests and judges: four scenarios, its own verdict.

LoadGen (`mlperf_loadgen`, extra `loadgen`) makes the schedule, takes every time and decides whether
a run is valid; here its settings are made and its words are read from its logs. Nothing of it is
computed again. Every sample is issued once, in random order, before any comes again. A run as long
as the profile says is no submission: MLPerf asks for 600 s and for its own nets.

Left out: finding a rate (LoadGen's own search judges short windows, and is far too high near the
knee), token latencies, and the network.
"""

from __future__ import annotations

import importlib.util
import json
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.core.errors import UsageError

SCENARIOS = {
    "mlperf-single-stream": "SingleStream",
    "mlperf-multi-stream": "MultiStream",
    "mlperf-offline": "Offline",
    "mlperf-server": "Server",
}
"""LoadGen's name of each value of --scenario."""
STREAMS = 8
"""Samples of a query of mlperf-multi-stream."""
PREFIX = "mlperf_log_"
_SINGLE_STREAM_SPARE = 1.6
"""With every sample as often as the others LoadGen runs all queries that it prepared, twice those
of the least time: so the run takes 2 / 1.6 of it, and is long enough where steps get shorter."""
_OFFLINE_SPARE = 1.15
"""Offline it prepares 1.1 times the samples of the least time, and runs them all."""

Query = tuple[int, int]
"""LoadGen's identifier of a sample that it wants, and the sample's index."""


@dataclass(frozen=True, kw_only=True)
class LoadGenTest:
    """What LoadGen is asked to do."""

    scenario: str
    num_samples: int
    least_s: float
    """Least duration of the run."""
    sample_s: float
    """What a sample takes where many wait: so LoadGen knows how many queries to prepare."""
    rate_per_s: float = 1.0
    """Queries of mlperf-server."""
    limit_s: float = 0.0
    at: float = 0.99
    """Part of the queries of mlperf-server that must be done within the limit."""
    seed: int = 0
    mode: str = "PerformanceOnly"
    """LoadGen's name; AccuracyOnly issues each sample once and keeps the answers."""


@dataclass(frozen=True, kw_only=True)
class LoadGenVerdict:
    """What LoadGen says of a run."""

    is_valid: bool | None
    """None where it judges nothing: of accuracy."""
    words: str
    """Its own, on one line, without what is satisfied."""
    version: str
    figures: dict[str, Any]
    """By its own names, such as result_completed_samples_per_sec."""


def check_installed() -> None:
    """Raise `UsageError` with the install line where there is no LoadGen."""
    if importlib.util.find_spec("mlperf_loadgen") is None:
        raise UsageError(
            "the mlperf scenarios need LoadGen, which is not installed here: "
            "pip install 'gapbench[loadgen]' (Python 3.11 to 3.13, x86-64)"
        )


def settings_of(test: LoadGenTest) -> Any:
    """Return LoadGen's settings; what is not set here has its defaults: p90, p99 of streams."""
    import mlperf_loadgen as loadgen

    settings = loadgen.TestSettings()
    settings.scenario = getattr(loadgen.TestScenario, SCENARIOS[test.scenario])
    settings.mode = getattr(loadgen.TestMode, test.mode)
    settings.min_duration_ms = max(1, round(1e3 * test.least_s))
    settings.min_query_count = 1  # its early stopping says how many more it needs
    settings.sample_concatenate_permutation = True
    settings.multi_stream_samples_per_query = STREAMS
    sample_ns = 1e9 * test.sample_s
    settings.single_stream_expected_latency_ns = max(1, int(_SINGLE_STREAM_SPARE * sample_ns))
    settings.multi_stream_expected_latency_ns = max(1, int(STREAMS * sample_ns / 2))
    settings.offline_expected_qps = _OFFLINE_SPARE / test.sample_s
    settings.server_target_qps = test.rate_per_s
    settings.server_target_latency_ns = int(1e9 * test.limit_s)
    settings.server_target_latency_percentile = test.at
    for name in ("qsl_rng_seed", "sample_index_rng_seed", "schedule_rng_seed"):
        setattr(settings, name, test.seed)
    return settings


def run_test(
    test: LoadGenTest,
    *,
    issue: Callable[[list[Query]], None],
    folder: Path,
) -> LoadGenVerdict:
    """Run LoadGen to its end in this thread, its logs in the folder.

    `issue` is called in this thread with the samples of a query, and must return at once and never
    raise; whoever computes them calls `complete` from any thread.
    """
    import mlperf_loadgen as loadgen

    folder.mkdir(parents=True, exist_ok=True)
    logs = loadgen.LogSettings()
    logs.log_output.outdir, logs.log_output.prefix = str(folder), PREFIX
    logs.log_output.copy_summary_to_stdout = False
    logs.enable_trace = False
    system = loadgen.ConstructSUT(
        lambda queries: issue([(one.id, one.index) for one in queries]), lambda: None
    )
    num, here = test.num_samples, lambda _indexes: None
    library = loadgen.ConstructQSL(num, num, here, here)
    try:
        no_audit = ""  # else a file audit.config of the working directory changes the settings
        loadgen.StartTestWithLogSettings(system, library, settings_of(test), logs, no_audit)
    finally:
        loadgen.DestroyQSL(library)
        loadgen.DestroySUT(system)
    return read_verdict(folder)


def complete(identifiers: Sequence[int], answers: Sequence[bytes] = ()) -> None:
    """Tell LoadGen that these samples are done; it keeps the answers when accuracy is run."""
    import mlperf_loadgen as loadgen

    if not answers:
        none = [loadgen.QuerySampleResponse(one, 0, 0) for one in identifiers]
        loadgen.QuerySamplesComplete(none)
        return
    kept = [array("B", one) for one in answers]
    places = [one.buffer_info() for one in kept]
    loadgen.QuerySamplesComplete(
        [
            loadgen.QuerySampleResponse(one, place, size)
            for one, (place, size) in zip(identifiers, places, strict=True)
        ]
    )


def read_verdict(folder: Path) -> LoadGenVerdict:
    """Read LoadGen's verdict, figures and words from its logs."""
    figures = dict(_entries(folder))
    validity = figures.get("result_validity")
    return LoadGenVerdict(
        is_valid=None if validity is None else validity == "VALID",
        words=_words((folder / f"{PREFIX}summary.txt").read_text()),
        version=str(figures.get("loadgen_version", "")).partition(" ")[0],
        figures=figures,
    )


def read_answers(folder: Path) -> list[tuple[int, bytes]]:
    """Read the index of each sample, and what was answered, from the log of an accuracy run."""
    entries = json.loads((folder / f"{PREFIX}accuracy.json").read_text())
    return [(one["qsl_idx"], bytes.fromhex(one["data"])) for one in entries]


def _entries(folder: Path) -> Iterator[tuple[str, Any]]:
    mark = ":::MLLOG "
    for line in (folder / f"{PREFIX}detail.txt").read_text().splitlines():
        if line.startswith(mark):
            entry = json.loads(line.removeprefix(mark))
            yield entry["key"], entry["value"]


def _words(summary: str) -> str:
    """Return what the summary says from the result on, without figures and what is satisfied."""
    _, begins, rest = summary.partition("Result is : ")
    if not begins:
        return ""
    lines = re.sub(r"\n (?=[^ *])", " ", rest.partition("\n====")[0])  # sentences in one line each
    is_title = ("", "Recommendations:", "Early Stopping Result:")
    said = [
        line.removeprefix("* ").removesuffix(".")
        for line in map(str.strip, lines.splitlines())
        if line not in is_title and not line.endswith(": Yes")
    ]
    return "; ".join(said)
