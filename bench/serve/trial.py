"""One served trial in a process of its own: `python -m bench.serve.trial FD`, as `measure.trial`.

Warm-up, then requests that come by themselves for as long as was asked.
"""

from __future__ import annotations

from bench.core.errors import IncompatibleError
from bench.measure.asking import leave
from bench.measure.messages import Messages, Samples, TrialRequest, TrialResult
from bench.measure.timing import summary
from bench.measure.timing.warmup import Warmup, warm_up
from bench.measure.trial import main
from bench.serve.arrivals import Arrivals, parse_arrivals
from bench.serve.columns import Tally, columns_of
from bench.serve.live.language_phase import LanguagePhase
from bench.serve.live.served_phase import FakePhase, QueuePhase, ServedPhase, phase_of
from bench.serve.report import Report


def run_request(request: TrialRequest, messages: Messages) -> None:
    """Run the trial in this process."""
    kind = LanguagePhase if phase_of(request.config).is_served else QueuePhase
    phase = (FakePhase if request.config.device == "fake" else kind)(request, messages)
    arrivals = parse_arrivals(phase.serving.given)
    if arrivals.label != phase.serving.arrivals:
        raise IncompatibleError(
            f"--arrivals is {arrivals.label} now, the run began with {phase.serving.arrivals}; "
            "start a new run"
        )
    messages.stage("warmup")
    warmup = warm_up(phase.engine, limits=request.limits)
    phase.engine.begin_window()
    tally = live(phase, arrivals, messages=messages)
    _send(phase, tally, warmup=warmup, messages=messages)


def live(phase: ServedPhase, arrivals: Arrivals, *, messages: Messages) -> Tally:
    """Let requests come for the time that was asked for, and count what became of them."""
    schedule = phase.schedule(arrivals)
    report = Report(messages, arrivals=arrivals.label, slo=phase.slo)
    messages.stage("window")
    served = phase.serve(schedule, report=report)
    return columns_of(
        served,
        slo=phase.slo,
        seconds=phase.serving.seconds,
        is_one_server=phase.is_one_server,
        is_smoke=phase.request.limits.is_smoke,
    )


def _send(phase: ServedPhase, tally: Tally, *, warmup: Warmup, messages: Messages) -> None:
    own, own_problems = phase.columns()
    row = own | tally.row
    config, limits = phase.request.config, phase.request.limits
    row |= summary.cold_columns(warmup, config=config, cold_s=phase.cold_s, step_s=())
    problems = [*tally.problems, *own_problems]
    if not (warmup.has_converged or limits.is_smoke):
        problems.append(("not_steady", ""))
    start_s, end_s = phase.window_s
    messages.send(
        TrialResult(
            row=row,
            reasons=list(dict.fromkeys(code for code, _ in problems)),
            detail="; ".join(words for _, words in problems if words),
            window_start_s=start_s,
            window_end_s=end_s,
            samples=Samples(
                warmup_step_s=warmup.step_s, step_s=[], step_clock="host", data_wait_s=None
            ),
        )
    )


if __name__ == "__main__":
    leave(main(run_request))
