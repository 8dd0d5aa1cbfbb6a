"""The plan of `bench run --endpoint`: one configuration, served by somebody else.

Nothing here looks at the server; its first request is the trial's. What its device is, and its
dtype, it does not say: rows have its address in their place, and no peak and no roof.
"""

from __future__ import annotations

from dataclasses import replace

from bench.core.errors import UsageError
from bench.core.nouns import Config, Device, Endpoint, Serving
from bench.core.units import format_duration
from bench.measure.inspection import Inspection
from bench.run.planning.checks import ONLY_ENDPOINT, check_values
from bench.run.planning.plan import Plan, Planned, plan_of
from bench.run.planning.request import FLAGS, RunRequest, is_given
from bench.run.planning.serving import SECONDS, SMOKE_SECONDS, law_of
from bench.serve.arrivals import Arrivals, parse_arrivals
from bench.serve.endpoint.wire.connections import parse_address
from bench.serve.slo import parse_slo

DEVICE = "endpoint"
PHASE = "serve"
_TAKEN = frozenset(
    {"endpoint", *ONLY_ENDPOINT, "arrivals", "slo", "prompt_tokens", "output_tokens", "seconds"}
    | {"profile", "trials", "budget_s", "timeout_s", "seed"}
)
LEAST_STALL_S = 0.05
LONGEST_S = 3600.0
"""Of a trial besides the time in which requests come: a search, warm-ups, the last answers."""


def endpoint_plan(request: RunRequest) -> tuple[Plan, Inspection]:
    """Plan what is asked of an endpoint; `UsageError` for what it cannot be asked."""
    server, arrivals = _checked(request)
    seconds = request.seconds
    if seconds is None:  # a search goes on until a rate is decided
        unasked = SMOKE_SECONDS if request.profile == "smoke" else SECONDS
        seconds = 0.0 if arrivals.rate_per_s is None else unasked
    model = str(request.model)
    config = Config(
        workload=model,
        source="",
        phase=PHASE,
        version="",
        size="",
        params={"model": model, "chat": request.chat},
        dtype="fp32",
        compile=False,
        channels_last=False,
        data="generated",
        device=DEVICE,
        threads=1,
        workers=0,
        seed=request.seed,
        server=server,
        serving=Serving(
            arrivals=arrivals.label,
            slo=parse_slo(request.slo).label if request.slo else "",
            prompt_tokens=law_of(request, "prompt_tokens", arrivals=arrivals),
            output_tokens=law_of(request, "output_tokens", arrivals=arrivals),
            seconds=arrivals.lasts_s(seconds),
            given=str(request.arrivals),
        ),
    )
    planned = Planned(
        config=config,
        size_choice="",
        mem_estimate_bytes=None,
        batch=None,
        num_sharing=1,
        items_unit="token",
        elements_unit=None,
        data_digest="generated",
    )
    inspection = inspection_of(server)
    plan = plan_of([planned], request=request, inspection=inspection, notes=_notes(arrivals))
    return replace(plan, timeout_s=plan.timeout_s + LONGEST_S), inspection


def inspection_of(server: Endpoint) -> Inspection:
    """Return what is known of a server's device: where it is asked."""
    name = parse_address(server.address).origin
    device = Device(type=DEVICE, index=0, name=name, vendor=None, stack="HTTP", memory_bytes=None)
    return Inspection(device=device, capabilities={})


def _checked(request: RunRequest) -> tuple[Endpoint, Arrivals]:
    others = [one for name, one in FLAGS.items() if name not in _TAKEN and is_given(request, name)]
    if others:
        raise UsageError(f"--endpoint is a server as it is, and takes no {others[0].names[0]}")
    if not request.model:
        raise UsageError("--endpoint needs --model, the name that the server gives its model")
    if request.arrivals is None:
        raise UsageError(
            "--endpoint needs --arrivals: how requests come, such as poisson:2/s; or auto with "
            "--slo ttft=2s@p99,tpot=200ms@p99, to find the rate that it holds"
        )
    check_values(request)
    if not LEAST_STALL_S <= request.stall_s <= LONGEST_S:
        raise UsageError(
            f"--stall {format_duration(request.stall_s)} must be from "
            f"{format_duration(LEAST_STALL_S)} to {format_duration(LONGEST_S)}"
        )
    address = str(request.endpoint)
    parse_address(address)
    server = Endpoint(address=address, stall_s=request.stall_s, think_s=request.think_s)
    return server, parse_arrivals(request.arrivals)


def _notes(arrivals: Arrivals) -> list[str]:
    if arrivals.rate_per_s is not None:
        return []
    return ["up to eight rates are tried, each until it is decided, for up to 10 minutes"]
