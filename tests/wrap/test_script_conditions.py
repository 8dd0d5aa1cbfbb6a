"""Energy and roof of a program's row: those of its steps and of its threads, or none."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from bench.core.errors import UsageError
from bench.core.nouns import Device
from bench.devices.telemetry.common import Sample
from bench.measure.inspection import Inspection, KnownRoof
from bench.measure.messages import ScriptFacts, TrialRequest, TrialResult
from bench.results.schema import Row
from bench.run.launching.child import Outcome
from bench.run.launching.observation import Observation
from bench.run.planning.plan import Planned
from bench.run.planning.request import RunRequest
from bench.run.planning.wrap_plan import WrapRequest, make_wrap_plan
from bench.run.record import RunFacts, make_row
from bench.run.wrap_session import check_same_device
from tests.wrap.test_script_window import CONFIG, EVALUATION, LIMITS, Program, Step

GPU = Device(
    type="cuda",
    index=0,
    name="GPU",
    vendor="nvidia",
    stack="CUDA",
    memory_bytes=2**34,
    telemetry=("power", "energy"),
)


FIELDS = set(ScriptFacts.__struct_fields__)


def row_of(
    result: TrialResult, *, roofs: dict[int, KnownRoof] | None = None, device: Device = GPU
) -> Row:
    """The row of a trial whose device took 100 W."""
    config = replace(CONFIG, device=device.label)
    planned = Planned(
        config=config,
        size_choice="",
        mem_estimate_bytes=None,
        batch=4,
        num_sharing=1,
        items_unit="sample",
        elements_unit=None,
        data_digest="script",
    )
    inspection = Inspection(device=device, capabilities={}, roofs=roofs or {})
    asked: Any = {"trial": 0, "cpu_ids": (), "threads": 2, "workers": 0, "idle_s": 0.0}
    start_s = result.window_start_s - 1.0
    samples = [
        Sample(time_s=start_s + 0.1 * index, energy_j=10.0 * index, power_w=100.0)
        for index in range(400)
    ]
    sampler: Any = SimpleNamespace(samples=samples, snapshots=[])
    return make_row(
        planned,
        facts=RunFacts(inspection=inspection, chips=(), environment={}, usable_cores=2),
        request=TrialRequest(config=config, limits=LIMITS, **asked),
        attempt=1,
        started_utc="",
        outcome=Outcome(result=result),
        observation=Observation(sampler=sampler, scope="gpu"),
    )


def test_energy_is_that_of_the_steps_or_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    row = row_of(Program(monkeypatch, *[Step()] * 100).run())
    # 100 W for 5 s, in which 160 items were processed.
    assert row["energy_j"] == pytest.approx(500.0, rel=0.03)
    assert row["energy_per_item_j"] == pytest.approx(500 / 160, rel=0.03)
    mixed = row_of(Program(monkeypatch, *([*[Step()] * 10, EVALUATION] * 20)).run())
    assert not [name for name in mixed if name.startswith(("energy", "power_mean"))]
    assert "no energy: that of the window holds those steps too" in str(mixed["detail"])


def test_the_roof_is_that_of_the_threads_that_the_program_took(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result = Program(monkeypatch, *[Step()] * 100).run()
    known = KnownRoof(
        flops_per_s={"fp32": 1e11}, sustained_flops_per_s={}, bytes_per_s=None, source={}
    )
    threads = int(str(result.row["threads"]))
    cpu = replace(GPU, type="cpu", telemetry=())
    # 5 GFLOP in 125 ms.
    assert row_of(result, roofs={threads: known}, device=cpu)["roof_frac"] == pytest.approx(0.4)
    assert "roof_frac" not in row_of(result, roofs={threads + 1: known}, device=cpu)


def hash_of(*arguments: str, seed: int = 0, **facts: Any) -> str:
    """Configuration of a program that was looked at."""
    known: dict[str, Any] = {
        **dict.fromkeys(("strategy", "items_per_step", "num_parameters", "optimizer")),
        "device": "cuda:0",
        "version": "0a1b2c3d",
        "dtype": "fp32",
        "num_ranks": 1,
        "is_training": True,
        "grad_accum": 1,
        "is_compiled": False,
        "threads": 2,
        "flops_per_step": 5e9,
        "uncounted": [],
        "operators": [],
        "sent": [],
    }
    present = {one: value for one, value in {**known, **facts}.items() if one in FIELDS}
    others = {one: [] if one == "stand_ins" else "" for one in FIELDS - present.keys()}
    request = WrapRequest(
        command=("python", "train.py", *arguments), run=RunRequest(profile="quick", seed=seed)
    )
    (planned,) = make_wrap_plan(
        request,
        facts=ScriptFacts(**present, **others),
        inspection=Inspection(device=GPU, capabilities={}),
    ).planned
    return planned.config_hash


def test_a_configuration_is_the_program_and_its_arguments() -> None:
    same = hash_of("--lr", "0.1")
    # What was counted, or on how many threads, is no part of it, and neither is our seed.
    assert hash_of("--lr", "0.1", seed=3, flops_per_step=None, threads=8) == same
    assert len({same, hash_of("--lr", "0.2"), hash_of()}) == 3
    # Two revisions of it are compared.
    assert hash_of("--lr", "0.1", version="ffff0000") == same


def test_a_program_that_chooses_its_device_is_refused() -> None:
    facts: Any = SimpleNamespace(device="cuda:0", uuid="aaaa")
    check_same_device(facts, GPU)  # whose own is not known
    check_same_device(facts, replace(GPU, uuid="aaaa"))
    with pytest.raises(UsageError, match="another cuda:0 than bench sees"):
        check_same_device(facts, replace(GPU, uuid="bbbb"))
