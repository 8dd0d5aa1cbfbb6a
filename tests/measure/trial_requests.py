"""Requests for trials of shipped workloads, as tests and benchmarks of the engines ask for them."""

from pathlib import Path
from typing import Any

from bench import discovery
from bench.core.nouns import Config
from bench.measure.messages import Messages, TrialRequest, TrialResult
from bench.measure.timing.limits import PROFILES, Limits
from bench.measure.trial import run_request


def request_of(
    name: str,
    *,
    size: str = "tiny",
    overrides: dict[str, Any] | None = None,
    source: Path | None = None,
    limits: Limits | None = None,
    **fields: Any,
) -> TrialRequest:
    """Return a trial of `llm-train` or alike, or of a file, on one thread of the CPU, in fp32."""
    workload, _, phase = name.partition("-")
    found = discovery.load(str(source or workload))
    made = discovery.instance(found, size=None if source else size, overrides=overrides or {})
    base: dict[str, Any] = {"dtype": "fp32", "compile": False, "data": "resident"}
    config = Config(
        workload=workload,
        source=str(source or ""),
        phase=phase,
        version=found.version,
        size="" if source else size,
        params=discovery.parameters(made),
        channels_last=False,
        device="cpu",
        threads=1,
        workers=0,
        seed=0,
        **(base | fields),
    )
    limits = limits or PROFILES["smoke"].limits
    return TrialRequest(
        config=config, limits=limits, trial=0, cpu_ids=(), threads=1, workers=0, idle_s=0.0
    )


def result_of(request: TrialRequest) -> TrialResult:
    """Run the trial in this process."""
    sent: list[Any] = []
    messages = Messages()
    messages.send = sent.append  # type: ignore[method-assign]
    run_request(request, messages)
    (result,) = (one for one in sent if isinstance(one, TrialResult))
    return result
