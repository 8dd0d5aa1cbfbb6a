"""Traced steps: which are kept, what is refused, and when measurement and simulation disagree."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from fake_device import ONE_ITEM
from hypothesis import given
from hypothesis import strategies as st

from bench.analysis.trials.configuration import gather
from bench.core.errors import UnresolvedLinkError
from bench.core.nouns import Layout
from bench.emulate.replay import Collective, Mark, StepTrace
from bench.measure.asking import failure_of
from bench.measure.communication import communication
from bench.measure.communication.communication import Traces, communication_columns
from bench.measure.communication.modelled_link import ModelledLink
from bench.measure.engine.torch_engine import TorchEngine
from bench.parallel.support import parse_mitigation
from bench.results.schema import REASONS
from tests.analysis.synthetic_rows import BASE
from tests.emulate.fixed_model import FixedModel
from tests.measure.trial_requests import request_of, result_of

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


def test_emulation_and_simulation_of_the_same_steps_agree_or_the_row_says_not() -> None:
    cases: tuple[tuple[Any, float, bool], ...] = (
        ("emulated", 0.0, True),
        ("emulated", 0.030, True),  # 1 / 1.030 - 1 = -2.9 %
        ("emulated", 0.032, False),  # -3.1 %
        ("emulated", -0.029, True),
        ("emulated", -0.030, False),  # 1 / 0.970 - 1 = 3.09 %
        ("throttled", 0.5, True),  # others' ranks are waited for as well: no error of the timer
    )
    for mode, late_s, agrees in cases:
        layout = Layout(data=2, mode=mode, link="infinite")
        ran_s = [1.0 + late_s] * 3
        row, found, step_s = communication_columns(
            [waited(late_s)] * 3, layout=layout, model=FixedModel(MODELLED_S), ran_s=ran_s
        )
        # In half the time it ends before the wait, in twice at 0.9 s: 0.1 s less, 0.2 s more than
        # the replay, and so around the step as it ran.
        ends = row["step_low_ms"], row["step_high_ms"]
        assert ends == pytest.approx((900.0 + 1e3 * late_s, 1200.0 + 1e3 * late_s))
        assert found == ([] if agrees else ["simulation_disagrees"]), (mode, late_s)
        assert row["simulated_step_ms"] == pytest.approx(1000.0)
        assert row["simulated_error_frac"] == pytest.approx(1 / (1 + late_s) - 1)
        assert step_s == pytest.approx([1.0] * 3)
        assert row["comm_exposed_ms"] == pytest.approx(100.0)


@given(num_steps=st.integers(1, 300), period=st.integers(1, 12))
def test_traces_are_thinned_evenly_by_whole_periods(num_steps: int, period: int) -> None:
    most = 16
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(communication, "MOST_TRACES", most)
        traces = Traces(period=period)
        for number in range(num_steps):
            traces.add(number)  # type: ignore[arg-type]
    assert traces.num_seen == num_steps
    numbers = [number for number, notes in traces.kept if number == notes]

    def every(stride: int) -> list[int]:
        return [number for number in range(num_steps) if number // period % stride == 0]

    # Every stride-th period, each as far as the window went, and no fewer than had to go.
    limit = max(most, 4 * period)
    stride = next(2**power for power in range(9) if len(every(2**power)) <= limit)
    assert numbers == every(stride)
    traces.end()
    whole = num_steps // period * period
    left = [number for number, _ in traces.kept]
    assert left == ([number for number in numbers if number < whole] or numbers)


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
    layout: Any = SimpleNamespace(mode=mode, link=link, contention="none")
    does: Any = {"emulation": emulation, "model": None, "synchronize": None}
    made = ModelledLink(layout, step=lambda: ONE_ITEM, **does)
    made.run()
    return made


def test_a_link_whose_times_the_device_cannot_keep_is_refused_by_name() -> None:
    for mode in ("emulated", "throttled"):
        with pytest.raises(UnresolvedLinkError) as caught:
            link_with(0.9e-3, mode=mode).begin_window()
        failure = failure_of(caught.value, device="cpu")
        assert (failure.code, failure.detail) == (
            "link_unresolved",
            "on lan the longest collective takes 900 us, and this device keeps 1 ms: nothing would "
            "be emulated; use --mode simulated, a slower --link or larger messages",
        )
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


def test_graphs_that_were_skipped_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.utils import counters

    for device_type, compile_mode, skips, lacks in (
        ("cuda", "reduce-overhead", 0, False),
        ("cuda", "reduce-overhead", 1, True),
        ("cpu", "reduce-overhead", 0, True),
        ("cuda", None, 1, False),
    ):
        monkeypatch.setitem(counters["inductor"], "cudagraph_skips", skips)
        engine: Any = SimpleNamespace(
            config=SimpleNamespace(compile_mode=compile_mode),
            device=SimpleNamespace(type=device_type),
        )
        assert TorchEngine.lacks_graphs(engine) is lacks
    monkeypatch.setattr(torch, "compile", lambda net, mode: net)
    for mode in (None, "reduce-overhead"):
        result = result_of(request_of("sleep-infer", compile=True, compile_mode=mode))
        assert ("no_cuda_graphs" in result.reasons) == (mode is not None)
    assert {"no_cuda_graphs", "simulation_disagrees"} <= REASONS.keys()


LAYOUTS: tuple[dict[str, Any], ...] = (
    *({"strategy": "ddp", "data": 2, "mitigate": one} for one in ("", "bf16", "powersgd-1")),
    {"strategy": "ddp", "data": 2, "mitigate": "diloco-4"},
    {"strategy": "ddp", "data": 2, "mitigate": "diloco-3+fp16", "grad_accum": 2},
    {"strategy": "fsdp", "data": 2},
    {"strategy": "tp", "tensor": 2},
    {"strategy": "pp", "pipeline": 2, "grad_accum": 4},
)


@pytest.mark.parametrize("mode", ["simulated", "emulated"])
def test_the_step_of_every_layout_lies_in_its_bracket_and_waits_for_what_is_sent(mode: Any) -> None:
    """A window of a few steps goes on to the end of a mitigation's period."""
    for sizes in LAYOUTS if mode == "simulated" else LAYOUTS[:-1]:
        # Long enough for a host to keep.
        layout = Layout(mode=mode, link="bw=30MB/s,latency=1.1ms", **sizes)
        row = result_of(request_of("llm-train", overrides={"layers": 4}, layout=layout)).row
        if dist.is_initialized():
            dist.destroy_process_group()
        (trials,) = gather([{**BASE, **row, "mitigation": layout.mitigate or None, "trial": 0}])
        assert trials.step_s is not None and trials.step_ends_s is not None
        low_s, high_s = trials.step_ends_s
        # A window ends a reading of the clock after its last step.
        assert low_s <= trials.step_s.value * 1.01 and trials.step_s.value <= high_s * 1.01, layout
        names = ("comm_low_ms", "comm_total_ms", "comm_high_ms", "comm_exposed_ms")
        low_ms, total_ms, high_ms, exposed_ms = (trials.mean(name) or 0.0 for name in names)
        assert 0.0 < low_ms < total_ms < high_ms, layout
        assert exposed_ms <= total_ms * 1.001 or mode == "emulated", layout
        assert int(str(row["steps"])) % parse_mitigation(layout.mitigate).period_steps == 0, layout
