"""The acceptance of an accelerator: each verdict fails on a planted fault, and the table runs."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from scripts import gpu_acceptance, gpu_checks
from scripts.gpu_acceptance import STEPS, Step, environment_for, judge, read_document, run_step

ROOT = Path(__file__).parents[2]
pytest_plugins = ["tests.simdev.fixture"]

ROW: Mapping[str, Any] = {
    "workload": "llm-train",
    "config_hash": "one",
    "status": "OK",
    "reasons": None,
    "step_clock": "event",
    "check_error_frac": 0.001,
    "check_tolerance_frac": 0.01,
    "compile_s": 20.0,
    "mem_estimate_bytes": 12e9,
    "mem_alloc_peak_bytes": 10e9,
    "energy_j": 7000.0,
    "energy_integrated_j": 6900.0,
    "energy_source": "counter",
    "roof_frac": 0.55,
    "mfu_frac": 0.4,
    "mode": "emulated",
    "simulated_error_frac": 0.01,
}
LINKED = [
    {**ROW, "parallel": parallel, "link": link, "step_mean_ms": step_ms, "config_hash": link}
    for parallel in ("ddp", "fsdp")
    for link, step_ms in (("infinite", 50.0), ("h100-nvlink", 52.0), ("10gbe", 700.0))
]
DEVICE = {"label": "cuda:0", "type": "cuda", "name": "H100", "memory_bytes": 8e10,
          "dtypes": {"fp32": "ok"}, "telemetry": ["power"], "chips": ["h100-sxm-80g"]}  # fmt: skip
DELAYS = [{"asked_s": 1e-4, "held_s": 1.02e-4, "beside": "nothing"},
          {"asked_s": 1e-4, "held_s": 1.2e-3, "beside": "product"}]  # fmt: skip
GOOD: dict[str, dict[str, Any]] = {
    "devices": {"devices": [DEVICE]},
    "doctor": {"findings": []},
    "roof": {
        "side": 8192,
        "roof_flops_per_s": 729e12,
        "roof_tried_flops_per_s": {"8192 NN": 685e12, "8192 NT": 693e12, "16384 NT": 729e12},
        "product_flops_per_s": 702e12,
    },
    "delays": {"delays": DELAYS},
    "attention": {"attention": ["aten::_scaled_dot_product_efficient_attention"]},
    "phases": {"rows": [{**ROW, "workload": phase} for phase in gpu_acceptance.PHASES]},
    "compiled": {"rows": [ROW]},
    "train": {"rows": [ROW], "profiles": [{"covered_frac": 0.93}]},
    "links": {"rows": LINKED},
    "tests-devices": {"passed": 9, "failed": 0, "skipped": 1},
    "tests-links": {"passed": 9, "failed": 0, "skipped": 0},
    "tests-ranks": {"passed": 2, "failed": 0, "skipped": 0},
    "no-toolkit": {"passed": 12, "failed": 0, "skipped": 0},
}


def step(name: str) -> Step:
    return next(one for one in STEPS if one.name == name)


def test_a_good_document_passes_and_an_empty_one_nowhere() -> None:
    for one in STEPS:
        good = GOOD[one.name]
        assert judge(one, good, is_cuda=True) == (), one.name
        assert judge(one, {}, is_cuda=True), one.name
        blank = {key: [] for key in good if key != "findings"}
        assert not blank or judge(one, blank, is_cuda=True), one.name
    # What only a GPU can hold is not asked of a CPU.
    rows = [{**row, "step_clock": "host"} for row in GOOD["phases"]["rows"]]
    assert judge(step("phases"), {"rows": rows}, is_cuda=False) == ()


ROW_FAULTS: list[tuple[str, dict[str, Any], str]] = [
    ("phases", {"status": "INVALID", "reasons": "check_failed"}, "INVALID check_failed"),
    ("phases", {"status": "WARN", "reasons": "smoke;thermal"}, "smoke;thermal"),
    ("phases", {"workload": "other"}, "phases are"),
    ("phases", {"step_clock": "host"}, "step_clock is host"),
    ("phases", {"check_error_frac": 0.02}, "0.02 off"),
    ("phases", {"check_error_frac": float("nan")}, "nan off"),
    ("phases", {"check_error_frac": None}, "None off"),
    ("compiled", {"compile_s": None}, "compile_s is None"),
    ("train", {"mem_estimate_bytes": 7e9}, "is 0.7, not 0.8 to 1.5"),
    ("train", {"mem_alloc_peak_bytes": 7e9}, "not 0.8 to 1.5"),
    ("train", {"energy_integrated_j": 5000.0}, "is 1.4, not 0.85 to 1.15"),
    ("train", {"energy_source": "integrated"}, "energy_source is integrated"),
    ("train", {"energy_j": None}, "energy_j over energy_integrated_j is None"),
    ("train", {"roof_frac": 1.2}, "roof_frac is 1.2"),
    ("train", {"mfu_frac": None}, "mfu_frac is None"),
    ("links", {"mode": "simulated"}, "mode is simulated"),
    ("links", {"simulated_error_frac": -0.05}, "simulated_error_frac is -0.05"),
    ("links", {"step_mean_ms": 20.0, "link": "10gbe"}, "ms over infinite"),
    ("links", {"step_mean_ms": 53.0, "link": "10gbe"}, "10gbe costs nothing"),
    ("links", {"link": "pcie4"}, "only"),
]
FAULTY_DOCUMENTS: list[tuple[str, dict[str, Any], str]] = [
    ("devices", {"devices": [{**DEVICE, "dtypes": {"fp32": "wrong"}}]}, "wrong"),
    ("devices", {"devices": [{**DEVICE, "chips": []}]}, "catalogue"),
    ("devices", {"devices": [{**DEVICE, "telemetry": []}]}, "telemetry is []"),
    ("doctor", {"findings": None}, "no list"),
    ("roof", {**GOOD["roof"], "product_flops_per_s": 840e12}, "0.825"),
    ("roof", {**GOOD["roof"], "roof_flops_per_s": 700e12}, "best tried"),
    ("roof", {**GOOD["roof"], "roof_tried_flops_per_s": {"4096 NN": 729e12}}, "no side of 8192"),
    ("roof", {**GOOD["roof"], "roof_flops_per_s": None}, "rates"),
    ("delays", {"delays": [{**DELAYS[0], "held_s": 9e-5}]}, "9e-05 s held"),
    ("delays", {"delays": [{**DELAYS[0], "held_s": 2e-4}]}, "0.0002 s held"),
    ("attention", {"attention": [gpu_checks.MATH_ATTENTION]}, "math kernel"),
    ("train", {"rows": [ROW], "profiles": [{"covered_frac": 0.4}]}, "cover [0.4]"),
    ("train", {"rows": [ROW]}, "0 operator profiles"),
    ("tests-links", {"passed": 9, "failed": 1, "skipped": 0}, "1 tests failed"),
    ("tests-links", {"passed": 0, "failed": 0, "skipped": 9}, "no test passed"),
]


def test_a_fault_in_one_row_or_document_fails_with_its_reason() -> None:
    faulty = list(FAULTY_DOCUMENTS)
    for name, fault, said in ROW_FAULTS:
        rows = [*GOOD[name]["rows"][:-1], {**GOOD[name]["rows"][-1], **fault}]
        faulty.append((name, {**GOOD[name], "rows": rows}, said))
    for name, document, said in faulty:
        reasons = judge(step(name), document, is_cuda=True)
        assert any(said in reason for reason in reasons), (name, said, reasons)


def test_limits_fit_eight_minutes_the_plan_says_so_and_an_unknown_step_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    most_s = sum(one.seconds for one in STEPS)
    assert most_s <= gpu_acceptance.MOST_S
    monkeypatch.setattr(sys, "argv", ["gpu_acceptance", "--plan"])
    assert gpu_acceptance.main() == 0
    out = capsys.readouterr().out
    assert all(one.name in out for one in STEPS)
    assert out.splitlines()[-1].split()[0] == f"{most_s:.0f}"
    monkeypatch.setattr(sys, "argv", ["gpu_acceptance", "--only", "rof"])
    with pytest.raises(SystemExit, match="no step 'rof'; there are devices, doctor"):
        gpu_acceptance.main()


def test_a_step_past_its_limit_or_without_a_document_fails(tmp_path: Path) -> None:
    for name, program, seconds, reason in [
        ("slow", "import time; time.sleep(60)", 0.3, "not finished after 0.3 s"),
        ("broken", "raise SystemExit('no')", 30, "exit code 1"),
    ]:
        bad = Step(name=name, command=("-c", program), seconds=seconds)
        outcome = run_step(bad, device="cuda", out=tmp_path)
        assert (outcome.verdict, outcome.reasons) == ("FAIL", (reason,))
    assert "no" in (tmp_path / "broken.err").read_text()


def test_the_toolkit_is_hidden_and_profiles_are_read_from_beside_the_rows(tmp_path: Path) -> None:
    (tmp_path / "nvcc").touch()
    base = {"PATH": f"{tmp_path}{os.pathsep}/usr/bin", "CUDA_HOME": str(tmp_path)}
    hidden = environment_for(step("no-toolkit"), base)
    assert hidden["PATH"] == "/usr/bin"
    assert not Path(hidden["CUDA_HOME"]).exists()
    assert environment_for(step("phases"), base)["PATH"] == base["PATH"]
    path = tmp_path / "run.csv"
    (tmp_path / "run.operators.json").write_text('{"profiles": [{"covered_frac": 0.9}]}')
    document = read_document(json.dumps({"path": str(path), "rows": []}))
    assert document["profiles"] == [{"covered_frac": 0.9}]
    assert read_document("....\n3 passed, 1 error in 2.1s")["failed"] == 1
    with pytest.raises(ValueError, match="neither"):
        read_document("Segmentation fault")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("device", ["cpu", "simdev"])
def test_the_table_holds_without_a_gpu(
    device: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    simulated = request.getfixturevalue("simdev_env") if device == "simdev" else {}
    command = [sys.executable, "-m", "scripts.gpu_acceptance", "--device", device]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, **simulated},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "PASS  phases" in done.stdout and "SKIP  delays" in done.stdout
