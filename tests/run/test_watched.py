"""What a trial is watched with: a device at rest before it, and all of its ranks as its own."""

import os
import subprocess
import sys
from contextlib import redirect_stderr
from dataclasses import replace
from io import StringIO
from types import SimpleNamespace

import msgspec
import psutil
import pytest
import torch
from bench_process import job_left_over

from bench.core.nouns import Device, Layout
from bench.devices.host.cpu_noise import CpuSnapshot, ProcessTimes, take_snapshot
from bench.devices.telemetry.common import Baseline, Sample
from bench.measure.inspection import Inspection, torch_facts
from bench.measure.messages import Failure, Samples, Stage, TrialResult
from bench.run import runner, session
from bench.run.launching import observation as watched
from bench.run.launching.child import Outcome
from bench.run.launching.launch import child_environment
from bench.run.launching.observation import Observation, observed_columns
from bench.run.planning.request import RunRequest
from bench.run.progress import PlainProgress, Progress
from bench.run.record import IDLE_S

GPU = Device(type="cuda", index=0, name="GPU", vendor="nvidia", stack="CUDA", memory_bytes=2**34)
RESULT = TrialResult(
    row={},
    reasons=[],
    detail="",
    window_start_s=0.0,
    window_end_s=1.0,
    samples=Samples(warmup_step_s=[], step_s=[], step_clock="host", data_wait_s=None),
)


def columns_of(observation):
    return observed_columns(observation, row={}, result=RESULT, usable_cores=1, has_energy=False)


def begun(folder, *, facts, **flags):
    """Plan a run of the fake device and begin it on one with these facts."""
    request = RunRequest(**{"workloads": ("sleep-infer",), "device": "fake", **flags})
    plan, inspection = session.prepare(request, note=lambda _: None)
    inspection = replace(inspection, device=replace(inspection.device, **facts))
    return session.begin(plan, inspection, folder=folder, note=print)


def watch(monkeypatch, **replaced):
    """Watch a trial with parts of the watching replaced; returns what was observed."""
    for name, value in replaced.items():
        monkeypatch.setattr(watched, name, value)
    observation = Observation()
    watched.run_watched(
        None, device=GPU, timeout_s=1.0, observation=observation, on_message=lambda message: None
    )
    return observation


@pytest.mark.parametrize(
    ("settles_s", "reasons"), [(1.2, []), (60.0, ["foreign_gpu"])], ids=["ours", "foreign"]
)
def test_the_load_of_the_last_trial_is_not_foreign(monkeypatch, settles_s, reasons):
    """NVML shows the load of the last second, and the trial before has just ended."""
    now_s = 0.0

    def sleep(pause_s):
        nonlocal now_s
        now_s += pause_s

    def baseline():
        return Baseline(utilization_frac=0.9 if now_s < settles_s else 0.0, used_bytes=2**20)

    closed = []
    telemetry = SimpleNamespace(baseline=baseline, scope="gpu", close=lambda: closed.append(now_s))
    observation = watch(
        monkeypatch,
        open_telemetry=lambda device: telemetry,
        run_trial=lambda request, **_: Outcome(),
        time=SimpleNamespace(monotonic=lambda: now_s, sleep=sleep),
    )
    observation.sampler = SimpleNamespace(samples=[], snapshots=[])
    assert columns_of(observation)[1] == reasons
    assert now_s < 3 and closed == [now_s]


def test_memory_errors_and_limits_are_what_changed_during_the_trial():
    """Others may give memory back, and a reset sets the counter of errors back."""
    for used_bytes, errors, limit_w, *expected in (
        (2, 5, 700.0, 3, 1, ["ecc"]),
        (9, 3, 300.0, None, None, ["device_changed"]),
    ):
        before = Baseline(used_bytes=used_bytes, ecc_uncorrected=4, power_limit_w=700.0)
        after = replace(before, ecc_uncorrected=errors, power_limit_w=limit_w)
        samples = [Sample(time_s=10.0, used_bytes=5), Sample(time_s=11.0, used_bytes=4)]
        sampler = SimpleNamespace(samples=samples, snapshots=[])
        columns, found = columns_of(Observation(before=before, after=after, sampler=sampler))
        names = ("mem_device_peak_bytes", "ecc_uncorrected")
        assert [*map(columns.get, names), found] == expected


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_other_ranks_of_a_torchrun_job_on_this_machine_are_not_foreign(monkeypatch):
    """Under torchrun the ranks are siblings: no one of them is below another."""
    for name, value in job_left_over(50000 + os.getpid() % 10000).items():
        monkeypatch.setenv(name, value)
    wait, own = [sys.executable, "-c", "import time; time.sleep(60)"], []
    with (
        subprocess.Popen(wait) as sibling,
        subprocess.Popen(wait, env={**os.environ, "MASTER_PORT": "1"}) as other,
    ):
        watch(
            monkeypatch,
            open_telemetry=lambda device: None,
            run_trial=lambda request, *, on_start, **_: on_start(os.getpid()),
            take_snapshot=lambda pid, *, siblings: own.extend(siblings),
        )
        sibling.kill()
        other.kill()
    assert sibling.pid in own
    assert other.pid not in own
    for siblings in ((), (os.getppid(),)):
        seen = [pid for pid, _ in take_snapshot(os.getpid(), siblings=siblings).processes]
        assert (os.getppid() in seen) == bool(siblings)


@pytest.mark.parametrize("chosen", [None, "FAST"])
def test_the_search_of_miopen_is_bounded_and_on_the_row(monkeypatch, chosen):
    monkeypatch.delenv("MIOPEN_FIND_MODE", raising=False)
    if chosen:
        monkeypatch.setenv("MIOPEN_FIND_MODE", chosen)
    monkeypatch.setattr(torch.version, "hip", "7.1")
    monkeypatch.setattr(torch.backends.cudnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 3005001)
    mode = chosen or "DYNAMIC_HYBRID"
    assert child_environment(threads=1)["MIOPEN_FIND_MODE"] == mode
    assert torch_facts(GPU)["cudnn"] == f"MIOpen 3005001, find mode {mode}"


def test_a_user_of_rocm_is_told_of_the_search_before_it(monkeypatch):
    device = replace(GPU, vendor="amd", stack="ROCm 7.1")
    inspection = Inspection(device=device, capabilities={})
    monkeypatch.setattr(session, "inspect_device", lambda *_, **__: inspection)
    monkeypatch.setattr(session, "make_plan", lambda *_, **__: None)
    monkeypatch.setattr(session, "check_request", lambda request: [])
    request = SimpleNamespace(
        profile="smoke", device="cuda", dtypes=(), threads=None, endpoint=None
    )
    reported = []
    session.prepare(request, note=reported.append)
    assert any("MIOPEN_FIND_MODE=FAST" in line for line in reported)


def test_a_run_rests_once_for_the_idle_power_of_all_its_rows(monkeypatch, tmp_path):
    def run_watched(request, *, observation, **_):
        """40 W at rest for as long as was asked, 100 W afterwards, window included."""
        times_s = [number / 10 for number in range(301)]
        powers_w = [(at_s, 40.0 if at_s < request.idle_s else 100.0) for at_s in times_s]
        samples = [Sample(time_s=at_s, power_w=power_w) for at_s, power_w in powers_w]
        observation.sampler = SimpleNamespace(samples=samples, snapshots=[])
        observation.stage_times_s |= {"idle": 0.0, "check": request.idle_s} if asked[-1] else {}
        observation.stage_times_s |= {"warmup": 6.0}
        result = msgspec.structs.replace(RESULT, window_start_s=10.0, window_end_s=20.0)
        return Outcome(result=msgspec.structs.replace(result, row={"step_median_ms": 20.0}))

    def asked_for(*arguments, **more):
        request = make_request(*arguments, **more)
        asked.append(request.idle_s)
        return request

    asked, make_request = [], runner.make_request
    monkeypatch.setattr(runner, "make_request", asked_for)
    monkeypatch.setattr(runner, "run_watched", run_watched)
    run = begun(tmp_path, facts={"telemetry": ("power",)}, sizes=("tiny", "base"), trials=2)
    rows = run.run(Progress()).rows
    assert asked == [IDLE_S, 0.0, 0.0, 0.0]
    assert [row["idle_power_w"] for row in rows] == pytest.approx([40.0] * 4, rel=0.02)
    assert [row["energy_net_j"] for row in rows] == pytest.approx([600.0] * 4, rel=0.02)
    # What is not the power of the row's window is not rested for.
    layout = Layout(strategy="ddp", data=2, link="10gbe", mode="simulated")
    planned = run.plan.planned[0]
    spread = replace(planned, config=replace(planned.config, layout=layout))
    more = {"trial": 0, "limits": run.plan.limits, "facts": run.facts}
    assert [make_request(one, **more).idle_s for one in (planned, spread)] == [IDLE_S, 0.0]


@pytest.mark.parametrize(
    ("quiet", "expected"),
    [
        # Busy before it and quiet for the second attempt, which looks once more by itself.
        ([False, True, True], ["wait", "trial 1", "wait", "wait", "trial 2"]),
        # In the same noise there is no second attempt.
        ([True, False], ["wait", "trial 1", "wait"]),
    ],
)
def test_a_trial_waits_for_quiet_and_is_not_repeated_in_the_same_noise(
    monkeypatch, tmp_path, quiet, expected
):
    def wait_for_quiet(*, limit_s, siblings, report):
        done.append("wait")
        assert (limit_s, siblings) == (30.0, [7])
        report("waiting for quiet: make")
        report("waiting for quiet: make")
        return left.pop(0)

    def run_watched(request, **_):
        trials = sum(one.startswith("trial") for one in done)
        done.append(f"trial {trials + 1}")
        reasons = ["foreign_cpu_heavy"] if trials == 0 else []
        return Outcome(result=msgspec.structs.replace(RESULT, reasons=reasons))

    done, left = [], list(quiet)
    monkeypatch.setattr(runner, "wait_for_quiet", wait_for_quiet)
    monkeypatch.setattr(runner, "sibling_pids", lambda environment: [7])
    monkeypatch.setattr(runner, "run_watched", run_watched)
    run = begun(tmp_path, facts={"type": "cpu"}, trials=1)
    with redirect_stderr(StringIO()) as stderr:
        rows = run.run(PlainProgress()).rows
    assert done == expected and not left
    assert [row["status"] for row in rows] == ["INVALID", "OK"][: len(rows)]
    assert stderr.getvalue().count("waiting for quiet: make") == len(rows), "once for each attempt"


def test_what_spoils_a_trial_spoils_its_rows_over_all_links_and_they_are_repeated(
    monkeypatch, tmp_path
):
    def run_watched(request, **_):
        asked.append(request.also_links)
        over = {link: {"step_median_ms": 2.0} for link in request.also_links}
        reasons = ["foreign_cpu_heavy"] if len(asked) == 1 else []
        found = {"row": {"step_median_ms": 1.0}, "over_links": over, "reasons": reasons}
        if len(asked) == 4:
            return Outcome(failure=Failure("crashed", "in words"))
        return Outcome(result=msgspec.structs.replace(RESULT, **found))

    asked = []
    monkeypatch.setattr(runner, "wait_for_quiet", lambda **_: True)
    monkeypatch.setattr(runner, "run_watched", run_watched)
    links = {"links": ("10gbe", "pcie4"), "workloads": ("sleep-train",)}
    run = begun(tmp_path, facts={}, devices=(2,), trials=3, **links)
    rows = run.run(Progress()).rows
    assert all(len(one) == 1 for one in asked[:3])
    found = [(row["trial"], row["attempt"], row["status"]) for row in rows]
    spoilt, good, third = (0, 1, "INVALID"), (0, 2, "OK"), (1, 1, "OK")
    assert found[:6] == [spoilt, spoilt, good, good, third, third]
    assert [row["step_median_ms"] for row in rows[:6]] == [1.0, 2.0] * 3
    assert found[6] == (2, 1, "FAILED"), "without a result each link has its own"


@pytest.mark.parametrize(
    ("hog_frac", "reasons", "detail"),
    [
        (0.45, ["foreign_cpu_heavy"], "busiest other program: make, 45% of the processors"),
        (0.0, [], None),
    ],
)
def test_a_row_that_others_disturbed_names_the_busiest_program(hog_frac, reasons, detail):
    def counted(time_s, hog_s):
        times = {"parent_pid": 1, "reaped_s": 0.0}
        processes = {
            (7, 0.0): ProcessTimes(own_s=hog_s, name="make", **times),
            (8, 0.0): ProcessTimes(own_s=hog_s / 9, name="sshd", **times),
        }
        total_s = time_s * num_cpus
        return CpuSnapshot(
            time_s=time_s, busy_s=hog_s, steal_s=None, total_s=total_s, everything=processes
        )

    num_cpus = psutil.cpu_count() or 1
    looks = [counted(-1.0, 0.0), counted(1.0, hog_frac * 2 * num_cpus)]
    sampler = SimpleNamespace(samples=[], snapshots=looks)
    columns, found = columns_of(Observation(looks=looks, sampler=sampler))
    assert (found, columns["detail"]) == (reasons, detail)
    assert columns["foreign_cpu_frac"] == pytest.approx(hog_frac)


def test_processes_are_looked_at_before_the_warm_up_and_after_the_trial(monkeypatch):
    def run_trial(request, *, on_message, **_):
        for stage in ("import", "warmup", "window"):
            on_message(Stage(name=stage))
            done.append(stage)
        return Outcome()

    done = []
    watch(
        monkeypatch,
        open_telemetry=lambda device: None,
        run_trial=run_trial,
        look=lambda *, siblings: done.append("look"),
    )
    assert done == ["import", "look", "warmup", "window", "look"], "never in the window"
