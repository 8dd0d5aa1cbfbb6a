"""The window of a user's program on a clock of its own: every figure is worked out by hand.

A program here is a list of steps with their seconds; it drives the loops as the watch does. Steps
that hold more than the others, such as an evaluation, are in no figure.
"""

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench.core.errors import MeasurementError
from bench.core.nouns import Config, Layout, Script
from bench.emulate.replay import StepNotes
from bench.hardware.costs.cost import model_of
from bench.measure.communication.modelled_link import ModelledLink
from bench.measure.engine.engine import StepsEndedError
from bench.measure.messages import Messages, StepsSoFar, TrialRequest, TrialResult
from bench.measure.timing.clock import FakeClock
from bench.measure.timing.limits import PROFILES, Limits
from bench.run.planning.wrap_plan import config_of
from bench.wrap import script_trial
from bench.wrap.script_trial import measuring_script
from bench.wrap.steps.happened import Happened, Usual
from tests.measure.fake_device import QueueEngine, SynchronousEngine

LIMITS = Limits()
SMOKE = PROFILES["smoke"].limits
CONFIG = config_of("train", script=Script(flops_per_step=5e9), phase="train", device="cpu")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a program, and what it did besides."""

    seconds: float = 0.125
    wait_s: float = 0.0
    kinds: frozenset[str] = frozenset()


EVALUATION = Step(seconds=2.0, kinds=frozenset({"an evaluation"}))


class Program:
    """A watch whose program is a list of steps on a simulated device."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *steps: Step,
        limits: Limits = LIMITS,
        config: Config = CONFIG,
        host_s: float | None = None,
    ) -> None:
        def step_s(index: int) -> float:
            return steps[index].seconds

        queued = host_s is not None
        self.device = (
            QueueEngine(step_s, host_s=host_s or 0.0)
            if queued
            else SynchronousEngine(step_s, clock=FakeClock())
        )
        monkeypatch.setattr(script_trial.ScriptEngine, "clock", self.device.clock)
        monkeypatch.setattr(script_trial, "adapter_for", lambda _label: self.device)
        self.steps, self.num_done = steps, 0
        self.sent: list[Any] = []
        messages = Messages()
        messages.send = self.sent.append  # type: ignore[method-assign]
        asked: Any = {"trial": 0, "cpu_ids": (), "threads": 1, "workers": 0, "idle_s": 0.0}
        self.watch: Any = SimpleNamespace(
            request=TrialRequest(config=config, limits=limits, **asked),
            script=config.script,
            ranks=SimpleNamespace(link=None, num_real=1),
            marks=SimpleNamespace(
                settle=lambda: None,
                parameters={},
                num_parameters=None,
                num_trained=0,
                optimizers="AdamW",
            ),
            messages=messages,
            usual=Usual(),
        )

    def run(self) -> TrialResult:
        """Step until the loop has its result, or the program has ended."""
        loop = measuring_script(self.watch, torch.device("cpu"))
        next(loop)
        try:
            for step in self.steps:
                self.num_done += 1
                self.device.step()
                self.watch.last = Happened(
                    items=4,
                    num_batches=1,
                    data_wait_s=step.wait_s,
                    num_backward=1,
                    kinds=set(step.kinds),
                )
                loop.send(None)
            loop.throw(StepsEndedError())
        except StopIteration:
            pass
        (result,) = (one for one in self.sent if isinstance(one, TrialResult))
        return result


def steps_of(result: TrialResult) -> tuple[int, float, float, float]:
    row: Any = result.row
    return row["steps"], row["window_s"], row["throughput_per_s"], row["step_median_ms"]


@pytest.mark.parametrize(
    ("seen", "now", "expected"), [(7, 0, 5e9 / 4), (7, 7, 5e9 / 4), (9, 9, None), (7, 9, None)]
)
def test_flops_of_a_step_that_trained_other_tensors_are_blank(
    seen: int, now: int, expected: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(CONFIG, script=Script(flops_per_step=5e9, counted_tensors=7))
    program = Program(monkeypatch, *[Step()] * 100, config=config)
    # At the window's begin; and at its end, where a program that has ended has none left.
    looks = iter([seen, now])
    marks = type("Marks", (SimpleNamespace,), {"num_trained": property(lambda _: next(looks))})
    del program.watch.marks.num_trained
    program.watch.marks = marks(**vars(program.watch.marks))
    result = program.run()
    assert (result.row["flops_per_item"], result.row["flops_method"]) == (
        (pytest.approx(expected), "counted") if expected else (None, None)
    )
    assert ("trained 7 tensors, these 9" in result.detail) == (expected is None)


def test_a_smaller_batch_has_its_share_of_the_flops(monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(CONFIG, script=Script(flops_per_step=5e9, counted_items=16))
    row = Program(monkeypatch, *[Step()] * 100, config=config).run().row
    assert row["flops_per_item"] == pytest.approx(5e9 / 16)


def test_a_window_of_a_program_has_the_figures_of_its_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = Program(monkeypatch, *[Step(wait_s=0.03125)] * 100)
    result = program.run()
    # Looked at after 1, 2, 4, 8 steps and then twice a second, until 40 say how far they vary.
    assert steps_of(result) == pytest.approx((40, 5.0, 32.0, 125.0))
    row, samples = result.row, result.samples
    assert (row["items"], row["flops_per_item"]) == (160, pytest.approx(1.25e9))
    assert (row["flops_method"], row["optimizer"]) == ("counted", "AdamW")
    assert (row["data_wait_s"], row["data_wait_frac"]) == pytest.approx((1.25, 0.25))
    assert result.reasons == ["input_bound"] and result.detail == ""
    assert row["warmup_steps"] == len(samples.warmup_step_s) == program.num_done - 40
    assert samples.step_s == pytest.approx([0.125] * 40)
    assert samples.data_wait_s == pytest.approx([0.03125] * 40)
    # What comes before the first end of a step is not seen.
    for unknown in ("first_step_s", "import_s", "build_s", "compile_s", "lat_p50_ms"):
        assert row.get(unknown) is None, unknown
    # On the clock of the parent's telemetry.
    assert result.window_end_s - result.window_start_s == pytest.approx(5.0)
    assert result.window_end_s == program.device.clock.now_s()


def test_the_estimate_is_sent_as_rarely_as_by_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program(monkeypatch, *[Step(seconds=0.001)] * 20_000)
    program.run()
    so_far = [one for one in program.sent if isinstance(one, StepsSoFar)]
    # After steps 1, 2, 4, ... 256, and then twice a second.
    assert [one.steps for one in so_far[:10]] == pytest.approx(
        [1, 2, 4, 8, 16, 32, 64, 128, 256, 512], rel=0.02
    )
    assert len(so_far) <= 17


@pytest.mark.parametrize("host_s", [None, 2**-7])
def test_what_is_no_step_like_the_others_is_in_no_figure(
    monkeypatch: pytest.MonkeyPatch, host_s: float | None
) -> None:
    steps = ([Step()] * 10 + [EVALUATION]) * 10
    result = Program(monkeypatch, *steps, host_s=host_s).run()
    count, window_s, speed, median_ms = steps_of(result)
    row = result.row
    assert median_ms == pytest.approx(125.0)
    assert row["step_p95_ms"] == pytest.approx(125.0)
    assert window_s == pytest.approx(0.125 * count)
    assert speed == pytest.approx(32.0)
    assert result.samples.step_s == pytest.approx([0.125] * count)
    apart = round((result.window_end_s - result.window_start_s - window_s) / 2.0)
    assert apart >= 2
    assert result.reasons == ["steps_apart"]
    assert result.detail == (
        f"{apart} of {apart + count} steps held more than the others and are in no figure: "
        f"an evaluation ({apart}, {2 * apart} s)"
    )
    if host_s is not None:
        assert (row["step_clock"], row["host_bound_frac"]) == ("event", 0.0)
        assert row["host_gap_frac"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("host_s", [None, 2**-7])
def test_a_program_that_ends_in_its_window_has_what_there_was(
    monkeypatch: pytest.MonkeyPatch, host_s: float | None
) -> None:
    whole = Program(monkeypatch, *[Step()] * 100, host_s=host_s).run()
    warm = len(whole.samples.warmup_step_s)
    for count, is_short in ((12, True), (23, True), (24, False)):
        program = Program(monkeypatch, *[Step()] * (warm + count), host_s=host_s)
        result = program.run()
        assert steps_of(result) == pytest.approx((count, 0.125 * count, 32.0, 125.0))
        assert ("window_short" in result.reasons) is is_short
        assert result.window_end_s - result.window_start_s == pytest.approx(0.125 * count)
    program = Program(monkeypatch, *[Step()] * (warm + 2), host_s=host_s)
    assert {"window_short", "few_samples"} <= set(program.run().reasons)


def test_a_program_that_ends_before_it_is_warm_has_no_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for count in (0, 1, 15):
        with pytest.raises(StepsEndedError):
            Program(monkeypatch, *[Step()] * count).run()
    smoke = Program(monkeypatch, *[Step()] * 5, limits=SMOKE).run()
    assert smoke.reasons == ["smoke"]
    assert steps_of(smoke)[0] == 3


def test_inference_has_latencies(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [Step(seconds=0.125 + 0.001 * (index % 3)) for index in range(200)]
    row = Program(monkeypatch, *steps, config=replace(CONFIG, phase="infer")).run().row
    assert row["lat_n"] == row["steps"]
    assert row["lat_p50_ms"] == pytest.approx(126.0)
    assert row["lat_p99_ms"] is None, "too few steps for that percentile"


class RecordingDevice:
    """What a `ModelledLink` needs of an accelerator whose steps are only recorded."""

    device = SimpleNamespace(type="cuda")
    resolution_s = 1e-5

    def __init__(self) -> None:
        self.link = self
        self.traced_from: list[int] = []
        self.num_ended = 0
        self.program: Any = None

    def begin_step(self) -> None:
        self.traced_from.append(self.program.device.num_steps)

    def end_step(self) -> Any:
        self.num_ended += 1
        return SimpleNamespace(trace=SimpleNamespace(collectives=()))


def linked(program: Program) -> RecordingDevice:
    emulation = RecordingDevice()
    emulation.program = program
    layout = Layout(mode="emulated", strategy="ddp", data=8, link="10gbe", contention="none")
    does: Any = {"step": None, "synchronize": None}
    program.watch.ranks.link = ModelledLink(layout, emulation=emulation, model=None, **does)  # type: ignore[arg-type]
    return emulation


def test_on_an_accelerator_steps_behind_the_window_are_traced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        script_trial, "layout_columns", lambda _engine, window, link: (window, {}, [])
    )
    steps = [*[Step()] * 10, EVALUATION] * 20
    program = Program(monkeypatch, *steps, host_s=2**-7)
    emulation = linked(program)
    result = program.run()
    row: Any = result.row
    in_window = row["steps"] + int(result.detail.split()[0])
    assert program.watch.ranks.link.traces.num_seen == 30
    before = program.num_done - emulation.num_ended
    assert emulation.traced_from[0] == before, "nothing is traced before the window is over"
    assert before >= row["warmup_steps"] + in_window
    # What is no usual step is let go, and is none of the window's.
    assert emulation.num_ended in (32, 33)


def test_on_a_simulated_link_nothing_of_what_is_apart_is_in_the_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layout = Layout(mode="simulated", strategy="ddp", data=8, link="10gbe")
    steps = ([Step()] * 10 + [EVALUATION]) * 10
    program = Program(monkeypatch, *steps, config=replace(CONFIG, layout=layout))
    emulation: Any = SimpleNamespace(
        device=torch.device("cpu"),
        begin_step=lambda: None,
        end_step=lambda: StepNotes(begin=0.0, end=0.125),  # which sends nothing
    )
    does: Any = {"step": None, "synchronize": None}
    link = ModelledLink(layout, emulation=emulation, model=model_of("10gbe"), **does)
    program.watch.ranks.link = link
    result = program.run()
    count, window_s, speed, _ = steps_of(result)
    assert (window_s, speed) == pytest.approx((0.125 * count, 8 * 32.0))
    assert result.reasons == ["steps_apart"]


def test_a_program_that_ends_before_a_step_is_traced_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = Program(monkeypatch, *[Step()] * 170, host_s=2**-7)
    whole.run()
    for count in (whole.num_done - 5, whole.num_done):  # in the window, and with it
        program = Program(monkeypatch, *[Step()] * count, host_s=2**-7)
        linked(program)
        with pytest.raises(MeasurementError, match="before a step was traced"):
            program.run()
