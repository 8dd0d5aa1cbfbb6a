"""What `bench run --arrivals` asks for: read, refused where it cannot be meant, and planned.

A request is one step of the phase: `--batch` samples. Only one device serves, and one queue.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.core.errors import UsageError
from bench.core.nouns import Layout, Serving
from bench.run.planning.request import FLAGS, RunRequest, is_given
from bench.serve.arrivals import parse_arrivals
from bench.serve.slo import parse_slo
from bench.workload import Phase

SECONDS, SMOKE_SECONDS = 60.0, 3.0
MOST_SECONDS = 86400.0
MOST_SERVED = 4
"""Times as long as requests come that a trial may take more: two live runs, each with its end."""
MOST_BATCH = 4096
_ONLY_SERVED = ("slo", "max_batch", "max_wait_s", "seconds")


def served_s(request: RunRequest) -> float:
    """Return how long requests come."""
    unasked = SMOKE_SECONDS if request.profile == "smoke" else SECONDS
    return unasked if request.seconds is None else request.seconds


def check_serving(request: RunRequest) -> None:
    """Refuse what no request can be served by."""
    if request.arrivals is None:
        if given := [FLAGS[name].names[0] for name in _ONLY_SERVED if is_given(request, name)]:
            raise UsageError(f"{given[0]} is about requests that come: give --arrivals as well")
        return
    arrivals = parse_arrivals(request.arrivals)
    slo = None if request.slo is None else parse_slo(request.slo)
    if slo is not None and slo.latency_s is None:
        raise UsageError(
            f"--slo {request.slo}: this phase has no tokens one by one; limit its latency, "
            "such as 2s@p99"
        )
    if not 1 <= request.max_batch <= MOST_BATCH:
        raise UsageError(f"--max-batch {request.max_batch} must be from 1 to {MOST_BATCH}")
    if request.max_wait_s and request.max_batch == 1:
        raise UsageError("--max-wait is for batches: give --max-batch as well")
    if not 0 < served_s(request) <= MOST_SECONDS:
        raise UsageError("--seconds must be more than nothing and at most a day, such as 60")
    if arrivals.rate_per_s is None:
        _check_search(request)


def _check_search(request: RunRequest) -> None:
    """Refuse a rate to be found where nothing says what it has to hold, or what serves it."""
    if request.slo is None:
        raise UsageError(f"--arrivals {request.arrivals} needs what has to hold: --slo 2s@p99")
    if request.max_batch > 1:
        raise UsageError(
            f"--arrivals {request.arrivals} replays requests that are served one at a time; with "
            "--max-batch give a rate, such as poisson:40/s"
        )


def check_served(
    request: RunRequest, phases: Sequence[Phase], *, layouts: Sequence[Layout]
) -> None:
    """Refuse phases and layouts that serve nobody."""
    if request.arrivals is None:
        return
    if trains := [phase.name for phase in phases if phase.is_training]:
        raise UsageError(
            f"--arrivals is for inference: choose a phase other than {trains[0]}, such as "
            "imaging-infer"
        )
    if any(layout != Layout() for layout in layouts):
        raise UsageError("--arrivals is for one device: leave --devices, --parallel and --link out")
    if request.data == "resident":
        raise UsageError("--arrivals brings each request from the host: leave --data resident out")


def serving_of(request: RunRequest) -> Serving | None:
    """Return what a configuration says about it; None where steps follow one another."""
    if request.arrivals is None:
        return None
    return Serving(
        arrivals=parse_arrivals(request.arrivals).label,
        slo="" if request.slo is None else parse_slo(request.slo).label,
        max_batch=request.max_batch,
        max_wait_s=request.max_wait_s,
        seconds=served_s(request),
        given=request.arrivals,
    )
