"""What `bench run --scenario mlperf-*` asks for, and what LoadGen cannot do."""

from __future__ import annotations

from bench.core.errors import UsageError, one_of
from bench.run.planning.request import FLAGS, RunRequest
from bench.serve.mlperf.loadgen import SCENARIOS, check_installed

LOADGEN_SECONDS = {"smoke": 1.0, "quick": 10.0, "default": 60.0, "rigorous": 600.0}
"""How long a run takes at least, by --profile; the last is what MLPerf asks for."""
SERVER = "mlperf-server"


def check_scenario(request: RunRequest) -> None:
    """Refuse what LoadGen does not do in this scenario, or cannot do here."""
    scenario = request.scenario
    if scenario is None:
        return
    if scenario not in SCENARIOS:
        raise one_of("--scenario", scenario, list(SCENARIOS))
    check_installed()
    if request.device == "fake":
        raise UsageError(f"--scenario {scenario} takes real time; the fake device has none")
    if scenario == SERVER:
        if request.slo is None:
            raise UsageError(f"--scenario {scenario} needs what has to hold: --slo 2s@p99")
        if request.arrivals and request.arrivals.partition(":")[0] not in ("poisson", "auto"):
            raise UsageError(
                f"--scenario {scenario} has Poisson arrivals: give --arrivals poisson:40/s, or "
                "leave it out for the capacity by replay"
            )
        return
    for name in ("arrivals", "slo"):
        if getattr(request, name) is not None:
            flag = FLAGS[name].names[0]
            raise UsageError(f"{flag} is for --scenario {SERVER}: leave it out of {scenario}")


def arrivals_text(request: RunRequest) -> str | None:
    """Return how requests come, as typed; None where LoadGen alone knows it, or nobody comes."""
    return "auto" if request.scenario == SERVER and not request.arrivals else request.arrivals
