"""Pipelines against the closed forms of the papers and against a ticking reference."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core.errors import UsageError
from bench.core.nouns import Layout
from bench.emulate.pipeline import (
    PipelineStage,
    Task,
    check_pipeline,
    device_tasks,
    num_stages,
    parse_schedule,
    pipeline_note,
    simulate_step,
)
from tests.emulate.fixed_model import round_prices

EVEN = PipelineStage(forward_s=1.0, backward_s=2.0)


def layout(stages: int, micro_batches: int, schedule: str = "1f1b", **others: int) -> Layout:
    return Layout(
        mode="simulated",
        strategy="pp",
        pipeline=stages,
        grad_accum=micro_batches,
        schedule=schedule,
        **others,  # type: ignore[arg-type]
    )


def ticked_s(stages: list[PipelineStage], laid_out: Layout) -> int:
    """When the last pass ends, looked up second by second; whole seconds only.

    Written apart from the simulation. Each second every free device begins its next pass if the
    input is there, and every free link its next message.
    """
    count = laid_out.pipeline
    queues = [device_tasks(laid_out, device=device) for device in range(count)]
    last = len(stages) - 1
    here = {Task(True, micro_batch, 0) for micro_batch in range(laid_out.grad_accum)}
    running: dict[int, tuple[Task, int]] = {}
    links: dict[tuple[int, int], list[tuple[Task, int | None]]] = {}
    for now in range(10_000):
        for device in [each for each, (_, end) in running.items() if end == now]:
            task, _ = running.pop(device)
            if task.is_forward and task.stage == last:
                here.add(Task(False, task.micro_batch, last))
                continue
            stage = task.stage + (1 if task.is_forward else -1)
            to = Task(task.is_forward, task.micro_batch, stage)
            if stage >= 0 and stage % count == device:
                here.add(to)
            elif stage >= 0:
                links.setdefault((device, stage % count), []).append((to, None))
        for waiting in links.values():
            while waiting:
                to, end = waiting[0]
                if end is None:
                    end = now + stages[to.stage - to.is_forward].output_bytes // 100
                    waiting[0] = (to, end)
                if end > now:
                    break
                here.add(to)
                waiting.pop(0)
        for device in range(count):
            if device not in running and queues[device] and queues[device][0] in here:
                task = queues[device].pop(0)
                passing = stages[task.stage]
                seconds = passing.forward_s if task.is_forward else passing.backward_s
                running[device] = (task, now + int(seconds))
        if not any(queues) and not running:
            return now
    raise AssertionError("the reference did not end")


@pytest.mark.parametrize(
    ("schedule", "chunks"),
    [("1f1b", 1), ("gpipe", 1), ("interleaved-2", 2), ("interleaved-3", 3), ("interleaved-4", 4)],
)
@pytest.mark.parametrize(("stages", "micro_batches"), [(1, 4), (2, 2), (2, 6), (4, 8), (8, 8)])
def test_equal_stages_have_the_bubble_of_the_formula(
    stages: int, micro_batches: int, schedule: str, chunks: int
) -> None:
    """(p - 1) / (m v + p - 1), arXiv 2104.04473 section 2.2 as a share of the whole step."""
    laid_out = layout(stages, micro_batches, schedule)
    step = simulate_step([EVEN] * (stages * chunks), layout=laid_out, model=None)
    slots = micro_batches * chunks + stages - 1
    assert step.bubble_frac == pytest.approx((stages - 1) / slots)
    assert step.step_s == pytest.approx(3.0 * slots)


@given(st.data())
@settings(max_examples=60)
def test_any_stages_run_as_the_ticking_reference_does(data: st.DataObject) -> None:
    devices = data.draw(st.integers(1, 4))
    schedule = data.draw(st.sampled_from(["gpipe", "1f1b", "interleaved-2", "interleaved-3"]))
    rounds = data.draw(st.integers(1, 3))
    micro_batches = devices * rounds if "inter" in schedule else data.draw(st.integers(1, 7))
    laid_out = layout(devices, micro_batches, schedule)
    passes = st.builds(
        PipelineStage,
        forward_s=st.integers(1, 5),
        backward_s=st.integers(1, 5),
        output_bytes=st.integers(0, 9).map(lambda message_s: 100 * message_s),
    )
    stages = [data.draw(passes) for _ in range(num_stages(laid_out))]
    step = simulate_step(stages, layout=laid_out, model=round_prices())
    assert step.step_s == pytest.approx(ticked_s(stages, laid_out))
    free = simulate_step(stages, layout=laid_out, model=None)
    assert step.compute_step_s == pytest.approx(free.step_s)
    assert step.comm_exposed_s == pytest.approx(step.step_s - free.step_s)
    assert step.comm_exposed_s <= step.comm_total_s, "what is waited for is on the links"


@given(
    st.integers(1, 6),
    st.integers(1, 5),
    st.sampled_from(["gpipe", "1f1b", "interleaved-2", "interleaved-4"]),
)
def test_every_schedule_runs_each_pass_once_forward_first_and_1f1b_holds_few(
    devices: int, rounds: int, schedule: str
) -> None:
    """With 1F1B device d of n holds the activations of n - d at most; GPipe of all."""
    _, chunks = parse_schedule(schedule)
    for device in range(devices):
        tasks = device_tasks(layout(devices, rounds * devices, schedule), device=device)
        stages = range(device, devices * chunks, devices)
        assert sorted(tasks) == sorted(
            Task(is_forward, micro_batch, stage)
            for is_forward in (True, False)
            for micro_batch in range(rounds * devices)
            for stage in stages
        )
        held, most = set(), 0
        for task in tasks:
            if task.is_forward:
                held.add((task.micro_batch, task.stage))
            else:
                held.remove((task.micro_batch, task.stage))
            most = max(most, len(held))
        if schedule == "1f1b":
            assert most == devices - device


def test_steps_by_hand() -> None:
    # Four micro-batches on one stage, and an optimizer step.
    one = replace(EVEN, optimizer_s=0.5, output_bytes=100)
    step = simulate_step([one], layout=layout(1, 4), model=round_prices())
    assert step.step_s == pytest.approx(12.5)
    assert (step.bubble_frac, step.comm_ops, step.comm_exposed_s) == (0.0, 0, 0.0)
    # Two micro-batches of 3 and 6 on one device, then the first times again: 3 + 6 + 3.
    slow = PipelineStage(forward_s=2.0, backward_s=4.0)
    step = simulate_step([EVEN], layout=layout(1, 3), model=None, passes=[[EVEN], [slow]])
    assert step.step_s == pytest.approx(12.0)
    # One micro-batch: forward 1, message 1, forward 1, backward 2, message 1, backward 2.
    stage = replace(EVEN, output_bytes=100)
    step = simulate_step([stage, stage], layout=layout(2, 1), model=round_prices())
    assert (step.step_s, step.comm_exposed_s) == pytest.approx((8.0, 2.0))
    # Each device sends one of the two messages that the step waits for.
    assert (step.comm_ops, step.comm_bytes, step.comm_total_s) == (2, 200, pytest.approx(2.0))
    # Embeddings that the first and the last stage share are added up at the end.
    step = simulate_step([EVEN] * 2, layout=layout(2, 1), model=round_prices(), shared_bytes=300)
    assert (step.step_s, step.compute_step_s) == pytest.approx((6 + 3, 6))
    # Four stages on nodes of two: only the middle message leaves its node.
    model = round_prices(node_size=2)
    stages = [replace(EVEN, output_bytes=100)] * 4
    simulate_step(stages, layout=layout(4, 2), model=model)
    asked = sorted((op, group.num_nodes) for op, _, group in model.asked)
    assert asked == [("send", 1)] * 4 + [("send", 2)] * 2, "each pair both ways, once"
    # Two stages, one micro-batch, two replicas; device 1 is through at 4, device 0 at 6.
    first = replace(EVEN, gradient_bytes=100, optimizer_s=0.25)
    second = replace(EVEN, gradient_bytes=250, optimizer_s=0.5)
    laid_out = layout(2, 1, data=2)
    step = simulate_step([first, second], layout=laid_out, model=round_prices())
    assert step.step_s == pytest.approx(max(6 + 1 + 0.25, 4 + 2.5 + 0.5))
    clipped = simulate_step([first, second], layout=laid_out, model=round_prices(), clips=True)
    assert clipped.step_s == pytest.approx(7.5), "both wait for the norm, then the slower steps"
    assert step.comm_exposed_s == pytest.approx(1.0)
    assert (step.comm_bytes, step.comm_total_s) == (250, pytest.approx(2.5))


def test_what_cannot_be_simulated_is_refused_in_one_line() -> None:
    for text in ("1F1B", "interleaved", "interleaved-1", "interleaved-0", "zb"):
        with pytest.raises(UsageError, match="interleaved-2") as caught:
            parse_schedule(text)
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="--grad-accum 8"):
        check_pipeline(layout(4, 7, "interleaved-2"))
    with pytest.raises(UsageError, match="--tp 2"):
        check_pipeline(layout(4, 8, tensor=2))
    check_pipeline(layout(4, 8, "interleaved-2"))
    assert pipeline_note(layout(4, 4)) is None
    assert "--grad-accum 16" in (pipeline_note(layout(4, 1)) or "")
