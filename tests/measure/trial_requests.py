"""Requests for trials of shipped workloads, as tests and benchmarks of the engines ask for them."""

from typing import Any

from bench import discovery
from bench.core.nouns import Config
from bench.measure.messages import TrialRequest
from bench.measure.timing.limits import Limits


def request_of(
    name: str,
    *,
    size: str = "tiny",
    overrides: dict[str, Any] | None = None,
    limits: Limits | None = None,
    **fields: Any,
) -> TrialRequest:
    """Return a trial of `llm-train` or alike on one thread of the CPU, in fp32."""
    workload, _, phase = name.partition("-")
    found = discovery.load(workload)
    made = discovery.instance(found, size=size, overrides=overrides or {})
    base: dict[str, Any] = {"dtype": "fp32", "compile": False, "data": "resident"}
    config = Config(
        workload=workload,
        source="",
        phase=phase,
        version=found.version,
        size=size,
        params=discovery.parameters(made),
        channels_last=False,
        device="cpu",
        threads=1,
        workers=0,
        seed=0,
        **(base | fields),
    )
    limits = limits or Limits(is_smoke=True)
    return TrialRequest(
        config=config, limits=limits, trial=0, cpu_ids=(), threads=1, workers=0, idle_s=0.0
    )
