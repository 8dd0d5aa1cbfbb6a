"""Traced steps: which are kept, what is refused, and when measurement and simulation disagree."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.core.errors import UnresolvedLinkError
from bench.core.nouns import Layout
from bench.emulate.replay import Collective, Mark, StepTrace
from bench.measure.asking import failure_of
from bench.measure.communication import communication
from bench.measure.communication.communication import Traces, communication_columns
from bench.measure.communication.modelled_link import ModelledLink
from bench.measure.engine.torch_engine import TorchEngine
from bench.measure.messages import Messages, TrialResult
from bench.measure.timing import validity
from bench.measure.timing.limits import PROFILES
from bench.measure.trial import run_request
from bench.results.schema import REASONS
from tests.emulate.fixed_model import FixedModel
from tests.measure.trial_requests import request_of

MODELLED_S = 0.2


def waited(late_s: float) -> StepTrace:
    """A step of a second that waits from 0.6 s on for a collective under way from 0.5 s.

    It takes 0.2 s by the model, and came `late_s` later than that.
    """
    end_s = 0.7 + late_s
    sent = Collective(
        op="all_reduce",
        num_bytes=1000,
        group=FixedModel().group_of(range(2)),
        modelled_s=MODELLED_S,
        issued_s=0.5,
        start_s=0.5,
        end_s=end_s,
    )
    marks = (
        Mark(kind="issue", collective=0, start_s=0.5, end_s=0.5),
        Mark(kind="wait", collective=0, start_s=0.6, end_s=end_s),
    )
    return StepTrace(duration_s=1.0 + late_s, collectives=(sent,), marks=marks)


@pytest.mark.parametrize(
    ("mode", "late_s", "reasons"),
    [
        ("emulated", 0.0, []),
        ("emulated", 0.030, []),  # 1 / 1.030 - 1 = -2.9 %
        ("emulated", 0.032, ["simulation_disagrees"]),  # -3.1 %
        ("emulated", -0.029, []),
        ("emulated", -0.030, ["simulation_disagrees"]),  # 1 / 0.970 - 1 = 3.09 %
        ("throttled", 0.5, []),  # others' ranks are waited for as well: no error of the timer
    ],
)
def test_emulation_and_simulation_of_the_same_steps_agree_or_the_row_says_not(
    mode: Any, late_s: float, reasons: list[str]
) -> None:
    layout = Layout(data=2, mode=mode, link="infinite")
    row, found, step_s = communication_columns(
        [waited(late_s)] * 3, layout=layout, model=FixedModel(MODELLED_S)
    )
    assert found == reasons and set(found) <= set(REASONS)
    assert row["simulated_step_ms"] == pytest.approx(1000.0)
    assert row["simulated_error_frac"] == pytest.approx(1 / (1 + late_s) - 1)
    assert step_s == pytest.approx([1.0] * 3)
    assert row["comm_exposed_ms"] == pytest.approx(100.0)
    assert validity.status_of(found) == ("WARN" if reasons else "OK")


@given(num_steps=st.integers(1, 300), period=st.integers(1, 12))
def test_traces_are_thinned_evenly_by_whole_periods(num_steps: int, period: int) -> None:
    most = 16
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(communication, "MOST_TRACES", most)
        traces = Traces(period=period)
        for number in range(num_steps):
            traces.add(number)  # type: ignore[arg-type]
    assert traces.num_seen == num_steps
    assert [number for number, _ in traces.kept] == [notes for _, notes in traces.kept]
    numbers = [number for number, _ in traces.kept]
    limit = max(most, 4 * period)
    assert len(numbers) <= limit
    # Every stride-th period, each as far as the window went, and no fewer than had to go.
    periods = sorted({number // period for number in numbers})
    stride = periods[1] - periods[0] if len(periods) > 1 else None
    assert periods[0] == 0
    if stride is not None:
        assert periods == list(range(0, -(-num_steps // period), stride))
        assert stride & (stride - 1) == 0, "a power of two"
        every = [n for n in range(num_steps) if n // period % stride == 0]
        assert numbers == every
        denser = [n for n in range(num_steps) if n // period % max(1, stride // 2) == 0]
        assert stride == 1 or len(denser) > limit
    traces.end()
    whole = num_steps // period * period
    left = [number for number, _ in traces.kept]
    assert left == ([n for n in numbers if n < whole] or numbers)


def link_with(modelled_s: float, *, mode: str = "emulated", link: str = "lan") -> ModelledLink:
    """A link on a device that keeps a millisecond, and has traced a warm-up step."""
    sent = [SimpleNamespace(modelled_s=seconds) for seconds in (modelled_s / 2, modelled_s)]
    notes = SimpleNamespace(trace=SimpleNamespace(collectives=sent))
    emulation = SimpleNamespace(
        device=SimpleNamespace(type="cpu"),
        link=SimpleNamespace(resolution_s=1e-3),
        begin_step=lambda: None,
        end_step=lambda: notes,
    )
    config = SimpleNamespace(layout=SimpleNamespace(mode=mode, link=link, contention="none"))
    made: Any = ModelledLink(config, emulation=emulation, model=None)  # type: ignore[arg-type]
    made.run(lambda: None)
    return made  # type: ignore[no-any-return]


@pytest.mark.parametrize("mode", ["emulated", "throttled"])
def test_a_link_whose_times_the_device_cannot_keep_is_refused_by_name(mode: str) -> None:
    with pytest.raises(UnresolvedLinkError) as caught:
        link_with(0.9e-3, mode=mode).begin_window()
    assert str(caught.value) == (
        "on lan the longest collective takes 900 us, and this device keeps 1 ms: nothing would "
        "be emulated; use --mode simulated, a slower --link or larger messages"
    )
    failure = failure_of(caught.value, device="cpu")
    assert (failure.code, failure.detail) == ("link_unresolved", str(caught.value))
    assert validity.status_of([failure.code]) == "SKIPPED" and failure.code in REASONS


def test_links_that_can_be_kept_or_need_not_be_are_let_through() -> None:
    kept: list[dict[str, Any]] = [
        {"modelled_s": 1e-3},
        {"modelled_s": 0.0},  # a mitigation that sends nothing in this step
        {"modelled_s": 0.9e-3, "mode": "simulated"},
        {"modelled_s": 0.9e-3, "link": "infinite"},
    ]
    for case in kept:
        link = link_with(**case)
        assert len(link.traces.kept) == 1
        link.begin_window()
        assert link.traces.kept == [], "the warm-up's are forgotten"


@pytest.mark.parametrize(
    ("device_type", "compile_mode", "skips", "lacks"),
    [
        ("cuda", "reduce-overhead", 0, False),
        ("cuda", "reduce-overhead", 1, True),
        ("cpu", "reduce-overhead", 0, True),
        ("cuda", None, 1, False),
    ],
)
def test_graphs_that_were_skipped_are_noticed(
    monkeypatch: pytest.MonkeyPatch,
    device_type: str,
    compile_mode: str | None,
    skips: int,
    lacks: bool,
) -> None:
    from torch._dynamo.utils import counters

    monkeypatch.setitem(counters["inductor"], "cudagraph_skips", skips)
    engine: Any = SimpleNamespace(
        config=SimpleNamespace(compile_mode=compile_mode),
        device=SimpleNamespace(type=device_type),
    )
    assert TorchEngine.lacks_graphs(engine) is lacks


@pytest.mark.parametrize("compile_mode", [None, "reduce-overhead"])
def test_a_trial_without_the_graphs_it_asked_for_says_so(
    monkeypatch: pytest.MonkeyPatch, compile_mode: str | None
) -> None:
    monkeypatch.setattr(torch, "compile", lambda net, mode: net)
    sent: list[Any] = []
    messages = Messages()
    monkeypatch.setattr(messages, "send", sent.append)
    limits = PROFILES["smoke"].limits
    request = request_of("sleep-infer", limits=limits, compile=True, compile_mode=compile_mode)
    run_request(request, messages)
    (result,) = [one for one in sent if isinstance(one, TrialResult)]
    assert ("no_cuda_graphs" in result.reasons) == (compile_mode is not None)
    assert "no_cuda_graphs" in REASONS
