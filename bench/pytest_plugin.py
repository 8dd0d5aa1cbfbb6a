"""A pytest plugin: the fixture `bench_workload` times a workload in a team's own benchmark suite.

    def test_train_step(bench_workload, benchmark):
        step = bench_workload("imaging-train", size="tiny", device="cpu")
        benchmark(step)

pytest-benchmark reads the host's clock around a call, which on an accelerator times only the
queueing of work. Each call of `step` therefore runs one step and waits for the device before it
returns; the step before it waited too, so both ends are synchronised. Building, the correctness
check and some warm-up steps are over when `bench_workload` returns. What one process cannot give is
the spread between processes: gates belong to `bench run` and `bench compare`.

This module loads in every pytest run of its environment, so nothing heavy is imported until the
fixture is used. It works without pytest-benchmark; only a test that asks for `benchmark` needs it.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from bench.core.nouns import Scalar
    from bench.measure.engine.engine import StepCount
    from bench.measure.engine.torch_engine import TorchEngine
    from bench.run.planning.plan import Planned
    from bench.run.planning.request import RunRequest


class WorkloadStep:
    """One step of a workload's phase; each call returns when the device has finished it."""

    def __init__(self, engine: TorchEngine, *, facts: Mapping[str, Scalar]) -> None:
        self._engine = engine
        self._has_run = False
        self.facts = facts
        """What is run, as in a result file; lands in pytest-benchmark's `extra_info`."""

    def __call__(self) -> StepCount:
        """Run one step, wait for the device, and return what the step processed."""
        count = self._engine.step()
        self._engine.adapter.synchronize()
        self._has_run = True
        return count

    def close(self) -> str | None:
        """Free everything; return what is wrong with the last output, or None."""
        problem = self._engine.output_problem() if self._has_run else None
        adapter = self._engine.adapter
        del self._engine
        gc.collect()
        adapter.empty_cache()
        return None if problem is None else problem[1]


class Workloads:
    """What the fixture `bench_workload` is: opens workloads and keeps them until the test ends."""

    def __init__(self, benchmark: object) -> None:
        info = getattr(benchmark, "extra_info", None)
        self._info: dict[str, Scalar] = info if isinstance(info, dict) else {}
        self.steps: list[WorkloadStep] = []

    def __call__(
        self,
        name: str,
        *,
        size: str = "tiny",
        device: str | None = None,
        dtype: str = "fp32",
        batch: int | None = None,
        settings: Mapping[str, Scalar] | None = None,
        compiled: bool = False,
        channels_last: bool = False,
        data: str = "resident",
        seed: int = 0,
        warmup_steps: int = 3,
    ) -> WorkloadStep:
        """Build one phase, such as 'imaging-train' or './mine.py:infer', and warm it up.

        `device` None takes the best one present. `settings` are what --set takes. `data` is
        'resident' (batches already on the device), 'generated' (through the loader, in this
        process) or a path.
        """
        from bench.core.errors import BenchError
        from bench.run.planning.request import RunRequest

        asked = RunRequest(
            workloads=(name,),
            sizes=(size,),
            batches=() if batch is None else (batch,),
            dtypes=(dtype,),
            settings={key: (str(value),) for key, value in (settings or {}).items()},
            compile=compiled,
            channels_last=channels_last,
            data=None if data == "generated" else data,
            seed=seed,
        )
        try:
            step = _built(_planned(asked, device=device), opened=self.steps)
        except BenchError as error:
            raise pytest.fail.Exception(f"bench_workload: {error}", pytrace=False) from None
        self.steps.append(step)
        self._info.update(step.facts)
        for _ in range(warmup_steps):
            step()
        return step


@pytest.fixture
def bench_workload(request: pytest.FixtureRequest) -> Iterator[Workloads]:
    """Build workloads of `bench` whose steps wait for the device; all are freed after the test."""
    benchmark = None
    if "benchmark" in request.fixturenames:
        try:
            benchmark = request.getfixturevalue("benchmark")
        except pytest.FixtureLookupError:
            pytest.fail(
                "this test asks for the fixture 'benchmark', which nothing provides: "
                "pip install pytest-benchmark",
                pytrace=False,
            )
    workloads = Workloads(benchmark)
    with _restored_settings():
        yield workloads
        closed = [(step.facts["workload"], step.close()) for step in workloads.steps]
    if wrong := [f"{name}: {problem}" for name, problem in closed if problem is not None]:
        pytest.fail(f"bench_workload: wrong output of {'; '.join(wrong)}", pytrace=False)


def _planned(asked: RunRequest, *, device: str | None) -> Planned:
    """Plan as `bench run` does with the same flags; `BenchError` says what cannot be meant."""
    from bench.core.errors import UsageError
    from bench.devices.torch.detect import find
    from bench.measure.inspection import Inspection
    from bench.run.planning.checks import check_request
    from bench.run.planning.plan import make_plan

    found = Inspection(device=find(device), capabilities={})
    plan = make_plan(asked, joined=check_request(asked), inspection=found)
    if len(plan.planned) != 1:
        names = ", ".join(one.config.name for one in plan.planned)
        raise UsageError(f"workload {asked.workloads[0]!r} has several phases: name one of {names}")
    return plan.planned[0]


def _built(planned: Planned, *, opened: list[WorkloadStep]) -> WorkloadStep:
    import torch

    from bench.core.errors import MeasurementError, UsageError
    from bench.measure.engine.torch_engine import TorchEngine
    from bench.measure.messages import TrialRequest
    from bench.measure.timing.limits import Limits

    config = planned.config
    if any((step.facts["dtype"] == "tf32") != (config.dtype == "tf32") for step in opened):
        raise UsageError("tf32 is a setting of the whole process: use it in a test of its own")
    request = TrialRequest(
        config=config,
        limits=Limits(),
        trial=0,
        cpu_ids=(),
        threads=torch.get_num_threads(),
        workers=0,
        idle_s=0.0,
    )
    engine = TorchEngine(request)
    engine.build()
    problem = None if engine.check is None else engine.check.problem
    if problem is not None:
        raise MeasurementError(
            f"{config.name} computes wrong results on {config.device} in {config.dtype}: "
            f"{problem[1]}"
        )
    facts: dict[str, Scalar] = {
        "workload": config.name,
        "workload_version": config.version,
        "config_hash": planned.config_hash,
        "size": config.size,
        "dtype": config.dtype,
        "batch": planned.batch,
        "mode": "real",
        "device": config.device,
        "items_unit": planned.items_unit,
    }
    return WorkloadStep(engine, facts=facts)


_FROZEN_BY_PYTHON = gc.get_freeze_count()
"""From Python 3.12 on some hundred objects are from its start: whoever freezes more comes later."""


@contextmanager
def _restored_settings() -> Iterator[None]:
    """Leave the process as it was: what building an engine sets is set for all of it."""
    import torch

    backends: Any = torch.backends  # of which torch's stubs know half
    cudnn = backends.cudnn
    precisions = (backends.cuda.matmul, cudnn.conv, cudnn.rnn, backends.mkldnn.matmul)
    before = [one.fp32_precision for one in precisions]
    # The older switches are set first when a dtype is chosen, so they go back first.
    matmul, convolutions = torch.get_float32_matmul_precision(), backends.cudnn.allow_tf32
    autotunes, random_state = backends.cudnn.benchmark, torch.get_rng_state()
    num_threads, num_frozen = torch.get_num_threads(), gc.get_freeze_count()
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        backends.cudnn.allow_tf32 = convolutions
        for one, value in zip(precisions, before, strict=True):
            one.fp32_precision = value
        backends.cudnn.benchmark = autotunes
        torch.set_rng_state(random_state)
        torch.set_num_threads(num_threads)
        if num_frozen <= _FROZEN_BY_PYTHON:
            gc.unfreeze()
