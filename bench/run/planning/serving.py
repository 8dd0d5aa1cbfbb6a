"""What `bench run --arrivals` asks for: read, refused where it cannot be meant, and planned.

A request is one step of the phase: `--batch` samples. Only one device serves, and one queue. In a
phase that `is_served` a request is of tokens; its net may be cut over a modelled link that is
emulated, since a queue cannot be replayed afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.core.errors import IncompatibleError, UsageError
from bench.core.nouns import Config, Layout, Serving
from bench.run.planning.request import FLAGS, RunRequest, is_given
from bench.run.planning.scenario import LOADGEN_SECONDS, arrivals_text, check_scenario
from bench.serve.arrivals import Arrivals, parse_arrivals
from bench.serve.lengths import OUTPUT, PROMPT, lengths_of, parse_lengths
from bench.serve.slo import parse_slo
from bench.workload import Phase

SECONDS, SMOKE_SECONDS = 60.0, 3.0
MOST_SECONDS = 86400.0
MOST_SERVED, MOST_SEARCHED = 4, 16
"""Times as long as requests come that a trial may take more: two live runs, each with its end, and
eight where the rate is looked for."""
MOST_BATCH = 4096
MOST_THINK_S = 3600.0
_LENGTHS = {"prompt_tokens": PROMPT, "output_tokens": OUTPUT}
_ONLY_BATCHED = ("max_batch", "max_wait_s", "compile")


def served_s(request: RunRequest) -> float:
    """Return how long requests come."""
    unasked = SMOKE_SECONDS if request.profile == "smoke" else SECONDS
    if request.scenario is not None:
        unasked = LOADGEN_SECONDS[request.profile]
    return unasked if request.seconds is None else request.seconds


def _arrivals_of(request: RunRequest) -> Arrivals | None:
    """Return how requests come; None where LoadGen alone knows it."""
    text = arrivals_text(request)
    return None if text is None else parse_arrivals(text)


def check_serving(request: RunRequest) -> None:
    """Refuse what no request can be served by."""
    check_scenario(request)
    arrivals = _arrivals_of(request)
    if request.slo is not None:
        parse_slo(request.slo)
    for name in _LENGTHS:
        law_of(request, name, arrivals=arrivals)
    if not 1 <= request.max_batch <= MOST_BATCH:
        raise UsageError(f"--max-batch {request.max_batch} must be from 1 to {MOST_BATCH}")
    if request.max_wait_s and request.max_batch == 1:
        raise UsageError("--max-wait is for batches: give --max-batch as well")
    if not 0.0 < request.think_s <= MOST_THINK_S:
        raise UsageError("--think must be more than nothing and at most an hour, such as 30s")
    if not 0 < served_s(request) <= MOST_SECONDS:
        raise UsageError("--seconds must be more than nothing and at most a day, such as 60")
    if arrivals is not None and arrivals.rate_per_s is None:
        _check_search(request)
    elif arrivals is not None:
        arrivals.check_number(seconds=served_s(request))


def _check_search(request: RunRequest) -> None:
    """Refuse a rate to be found where nothing says what it has to hold."""
    typed = arrivals_text(request)
    if request.slo is None:
        raise UsageError(f"--arrivals {typed} needs what has to hold: --slo 2s@p99")


def check_served(
    request: RunRequest, phases: Sequence[Phase], *, layouts: Sequence[Layout]
) -> None:
    """Refuse phases and layouts that serve nobody."""
    tokens = [phase for phase in phases if phase.is_served]
    if tokens and request.scenario is not None:
        raise UsageError(f"--scenario {request.scenario} is for requests that are no tokens")
    if tokens:
        _check_tokens(request, phases, layouts=layouts)
        return
    of_tokens = (*_LENGTHS, "think_s")
    if given := [FLAGS[name].names[0] for name in of_tokens if is_given(request, name)]:
        raise UsageError(f"{given[0]} is about requests of tokens: --workload llm-serve has them")
    slo = None if request.slo is None else parse_slo(request.slo)
    if slo is not None and (slo.ttft_s, slo.tpot_s) != (None, None):
        raise UsageError(
            f"--slo {request.slo}: this phase has no tokens one by one; limit its latency, "
            "such as 2s@p99"
        )
    if trains := [phase.name for phase in phases if phase.is_training]:
        raise UsageError(
            f"--arrivals is for inference: choose a phase other than {trains[0]}, such as "
            "imaging-infer"
        )
    if any(layout != Layout() for layout in layouts):
        raise UsageError("--arrivals is for one device: leave --devices, --parallel and --link out")
    if request.data == "resident":
        raise UsageError("--arrivals brings each request from the host: leave --data resident out")


def check_same_arrivals(serving: Serving) -> None:
    """Refuse a day or a trace whose file is no longer what the run began with."""
    now = parse_arrivals(serving.given).label if serving.given else ""
    if now != serving.arrivals:
        raise IncompatibleError(
            f"--arrivals is {now} now, the run began with {serving.arrivals}; start a new run"
        )


def _check_tokens(
    request: RunRequest, phases: Sequence[Phase], *, layouts: Sequence[Layout]
) -> None:
    """Refuse what an engine that batches tokens as they come does not do."""
    if not all(phase.is_served for phase in phases):
        raise UsageError("requests of tokens have limits of their own: give their phase alone")
    if given := [FLAGS[name].names[0] for name in _ONLY_BATCHED if is_given(request, name)]:
        raise UsageError(
            f"{given[0]}: the engine batches tokens as they come, and runs the net as it is; "
            "--set max_requests=64 and max_batch_tokens=2048 say how many"
        )
    for layout in layouts:
        is_cut = layout.strategy == "tp" and layout.data == 1 and layout.link
        if not (layout == Layout() or is_cut):
            raise UsageError(
                "requests of tokens are served by one device, or by --parallel tp over a --link"
            )


def check_emulated(config: Config, *, why: str) -> None:
    """Refuse a queue over a link that no mode but `emulated` shows; `why` is how it was chosen."""
    layout = config.layout
    if layout.link and layout.mode != "emulated":
        raise UsageError(
            f"requests come in real time, so a link they are served over is emulated, and not "
            f"{layout.mode}{f' ({why})' if why else ''}"
        )


def law_of(request: RunRequest, name: str, *, arrivals: Arrivals | None) -> str:
    """Return the law of lengths that a flag gives; without it that of the trace, or the default."""
    recorded = () if arrivals is None else arrivals.recorded
    own = [getattr(one, name) for one in recorded] or [None]
    what, unasked = FLAGS[name].names[0], _LENGTHS[name].label if None in own else "trace:"
    found = parse_lengths(getattr(request, name) or unasked, what=what)
    lengths_of(found, own, what=what, otherwise=_LENGTHS[name], seed="")  # refuses a trace's
    return found.label


def longest_served_s(request: RunRequest) -> float:
    """Return how much longer than a trial of steps one of requests may take."""
    arrivals = _arrivals_of(request)
    is_found = arrivals is not None and arrivals.rate_per_s is None
    return (MOST_SEARCHED if is_found else MOST_SERVED) * served_s(request)


def serving_of(request: RunRequest, phase: Phase) -> Serving:
    """Return what a configuration says about it."""
    arrivals = _arrivals_of(request)
    lengths = _LENGTHS if phase.is_served else {}
    return Serving(
        **{name: law_of(request, name, arrivals=arrivals) for name in lengths},
        arrivals="" if arrivals is None else arrivals.label,
        slo="" if request.slo is None else parse_slo(request.slo).label,
        max_batch=request.max_batch,
        max_wait_s=request.max_wait_s,
        seconds=served_s(request) if arrivals is None else arrivals.lasts_s(served_s(request)),
        given=arrivals_text(request) or "",
        scenario=request.scenario or "",
        think_s=request.think_s,
    )
