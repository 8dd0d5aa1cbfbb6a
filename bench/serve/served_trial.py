"""One served trial in a process of its own: `python -m bench.serve.served_trial FD`.

Warm-up, then requests that come by themselves for as long as was asked. Where their rate is to be
found, the row is that of the live run at the lower end of the capacity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bench.measure.asking import leave
from bench.measure.messages import Messages, Samples, TrialRequest, TrialResult
from bench.measure.timing import summary
from bench.measure.timing.validity import Problems
from bench.measure.timing.warmup import Warmup, warm_up
from bench.measure.trial import main
from bench.results.schema import Row
from bench.serve.arrivals import Arrivals, parse_arrivals
from bench.serve.columns import Tally, columns_of
from bench.serve.live.capacity_search import by_replay, closed_loop, search
from bench.serve.live.language_phase import LanguagePhase
from bench.serve.live.language_search import search_rates
from bench.serve.live.served_phase import FakePhase, QueuePhase, ServedPhase, phase_of
from bench.serve.live.services import OneByOne, Services, timed_batches
from bench.serve.mlperf.loadgen_trial import LoadGenRun, run_scenario
from bench.serve.run_report import Report

NO_RATE = "requests that never wait do not hold the limit, so LoadGen was not asked"


def run_request(request: TrialRequest, messages: Messages) -> None:
    """Run the trial in this process."""
    kind = LanguagePhase if phase_of(request.config).is_served else QueuePhase
    phase = (FakePhase if request.config.device == "fake" else kind)(request, messages)
    given = phase.serving.given
    arrivals = parse_arrivals(given) if given else None
    messages.stage("warmup")
    warmup = warm_up(phase.engine, limits=request.limits)
    phase.engine.begin_window()
    if arrivals is None or phase.serving.scenario:
        _by_loadgen(phase, arrivals, warmup=warmup, messages=messages)
    elif arrivals.rate_per_s is None and phase.phase.is_served:
        _search_rates(phase, arrivals, warmup=warmup, messages=messages)
    elif arrivals.rate_per_s is None:
        _search(phase, arrivals, warmup=warmup, messages=messages)
    else:
        tally = _live(phase, arrivals, messages=messages)
        _send(phase, tally.row, tally.problems, warmup=warmup, messages=messages)


def _search(phase: ServedPhase, arrivals: Arrivals, *, warmup: Warmup, messages: Messages) -> None:
    assert phase.slo is not None, "checked when it was planned"
    services, row = _services(phase, warmup=warmup, messages=messages)
    timed_s = phase.window_s
    found = search(
        services,
        slo=phase.slo,
        arrivals=arrivals,
        seconds=phase.serving.seconds,
        live=lambda at_rate: _live(phase, at_rate, messages=messages),
    )
    phase.window_s = found.window_s or timed_s
    _send(
        phase,
        row | found.row,
        found.problems,
        warmup=warmup,
        messages=messages,
        services_s=services.alone_s,
    )


def _search_rates(
    phase: ServedPhase, arrivals: Arrivals, *, warmup: Warmup, messages: Messages
) -> None:
    """Find the rate where requests share their passes, so that none has a service of its own."""
    assert phase.slo is not None, "checked when it was planned"
    row, problems = search_rates(
        phase,
        arrivals=arrivals,
        slo=phase.slo,
        live=lambda at_rate: _live(phase, at_rate, messages=messages),
    )
    _send(phase, row, problems, warmup=warmup, messages=messages)


def _services(phase: ServedPhase, *, warmup: Warmup, messages: Messages) -> tuple[Services, Row]:
    """Time requests one after the other, of which none waits, or batches where they are served."""
    messages.stage("services")
    limits, seconds, clock = phase.request.limits, phase.serving.seconds, phase.engine.clock
    if phase.rule.max_batch > 1:
        assert isinstance(phase, QueuePhase | FakePhase), "checked when it was planned"
        start_s = clock.now_s()
        batched = timed_batches(phase, rule=phase.rule, most_s=seconds, is_smoke=limits.is_smoke)
        phase.window_s = start_s, clock.now_s()
        row: Row = {"window_s": clock.now_s() - start_s, "step_clock": "host"}
        return batched, row
    window = closed_loop(phase.engine, limits=limits, most_s=seconds, step_s=warmup.step_s[-1])
    phase.window_s = window.start_s, window.end_s
    row = {"window_s": window.wall_s, "step_clock": window.step_clock}
    return OneByOne(alone_s=window.step_s), row


def _by_loadgen(
    phase: ServedPhase, arrivals: Arrivals | None, *, warmup: Warmup, messages: Messages
) -> None:
    """Let MLPerf's LoadGen send the requests and judge; its server at the capacity by replay."""
    assert isinstance(phase, QueuePhase), "checked when it was planned"
    row: Row = {}
    services_s: Sequence[float] = ()
    rate_per_s = None if arrivals is None else arrivals.rate_per_s
    if arrivals is not None and rate_per_s is None:
        assert phase.slo is not None, "checked when it was planned"
        services, timed = _services(phase, warmup=warmup, messages=messages)
        services_s = services.alone_s
        row, (rate_per_s, _) = by_replay(services, slo=phase.slo, seconds=phase.serving.seconds)
        row |= {"capacity_is": "predicted", "step_clock": timed["step_clock"]}
    if rate_per_s == 0.0:
        found = LoadGenRun(row={}, problems=[("capacity_not_confirmed", NO_RATE)], logs={})
    else:
        messages.stage("window")
        report = Report(messages, arrivals=phase.serving.scenario, slo=None)
        found = run_scenario(phase, rate_per_s=rate_per_s, report=report)
    _send(
        phase,
        row | found.row,
        found.problems,
        warmup=warmup,
        messages=messages,
        services_s=services_s,
        logs=found.logs,
    )


def _live(phase: ServedPhase, arrivals: Arrivals, *, messages: Messages) -> Tally:
    """Let requests come for the time that was asked for, and count what became of them."""
    schedule = phase.schedule(arrivals)
    report = Report(messages, arrivals=arrivals.label, slo=phase.slo)
    messages.stage("window")
    served = phase.serve(schedule, report=report)
    tally = columns_of(
        served,
        slo=phase.slo,
        seconds=phase.serving.seconds,
        arrivals=arrivals,
        is_one_server=phase.is_one_server,
        is_smoke=phase.request.limits.is_smoke,
        present_s=report.present_s,
    )
    report.send(phase.serving.seconds, came_to=tally.row)
    return replace(tally, row=tally.row | phase.link_columns, window_s=phase.window_s)


def _send(
    phase: ServedPhase,
    row: Row,
    problems: Problems,
    *,
    warmup: Warmup,
    messages: Messages,
    services_s: Sequence[float] = (),
    logs: dict[str, str] | None = None,
) -> None:
    own, own_problems = phase.columns()
    config, limits = phase.request.config, phase.request.limits
    row = own | row
    row |= summary.cold_columns(warmup, config=config, cold_s=phase.cold_s, step_s=services_s)
    problems = [*problems, *own_problems]
    if not (warmup.has_converged or limits.is_smoke):
        problems.append(("not_steady", ""))
    assert phase.window_s is not None, "something ran"
    start_s, end_s = phase.window_s
    messages.send(
        TrialResult(
            row=row,
            reasons=list(dict.fromkeys(code for code, _ in problems if code)),
            detail="; ".join(words for _, words in problems if words),
            window_start_s=start_s,
            window_end_s=end_s,
            logs=logs or {},
            samples=Samples(
                warmup_step_s=warmup.step_s,
                step_s=list(services_s),
                step_clock=str(row.get("step_clock") or "host"),
                data_wait_s=None,
            ),
        )
    )


if __name__ == "__main__":
    leave(main(run_request))
