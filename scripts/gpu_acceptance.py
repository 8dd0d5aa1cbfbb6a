"""Does `bench` measure right on this accelerator? A table of steps, each with its verdict.

    python -m scripts.gpu_acceptance                       the accelerator that torch sees
    python -m scripts.gpu_acceptance --plan                what would run, and for how long at most
    python -m scripts.gpu_acceptance --only roof,links     some steps
    python -m scripts.gpu_acceptance --device cpu          the same at tiny, without CUDA's part

Each step is a command with a time limit; its JSON goes through the checks of `scripts.gpu_checks`.
A step that fails stops no other. Logs and documents stay in `--out`. The exit code is 1 when a step
fails. All limits together are at most 480 s; run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts import gpu_checks as checks
from scripts.gpu_checks import Check

ROOT = Path(__file__).parent.parent
MOST_S = 480
SLOWER = 10.0
"""Without an accelerator a step may take so many times its limit."""
PHASES = ("imaging-train", "imaging-infer", "llm-train", "llm-prefill", "llm-decode")
LINKS = ("infinite", "h100-nvlink", "10gbe")
NO_TOOLKIT = "/no/cuda/toolkit/here"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command of the acceptance and what must hold of the JSON that it prints."""

    name: str
    command: tuple[str, ...]
    """Arguments of this Python; `fill` says what stands for the words in braces."""
    seconds: float
    """Time limit on a GPU."""
    checks: tuple[Check, ...] = ()
    cuda_checks: tuple[Check, ...] = ()
    """Checks that hold on a CUDA device only."""
    needs_cuda: bool = False
    hides_toolkit: bool = False
    """Run without nvcc on PATH and with a CUDA_HOME that does not exist."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one step."""

    name: str
    verdict: str
    """PASS, FAIL or SKIP."""
    seconds: float
    reasons: tuple[str, ...] = ()


def _bench(*arguments: str) -> tuple[str, ...]:
    return ("-m", "bench", *arguments, "--json")


def _run(*arguments: str) -> tuple[str, ...]:
    return _bench("run", "--device", "{device}", "--out", "{out}/rows", *arguments)


def _tests(name: str, *files: str, seconds: float, hides_toolkit: bool = False) -> Step:
    paths = tuple(file if file.startswith("-") or " " in file else f"tests/gpu/{file}"
                  for file in files)  # fmt: skip
    return Step(
        name=name,
        command=("-m", "pytest", "-q", "-p", "no:cacheprovider", "--durations=8", *paths),
        seconds=seconds,
        checks=(checks.tests_passed,),
        needs_cuda=True,
        hides_toolkit=hides_toolkit,
    )


STEPS = (
    Step(
        name="devices",
        command=_bench("devices"),
        seconds=9,
        checks=(checks.device_is_described,),
        cuda_checks=(checks.chip_is_known,),
    ),
    Step(
        name="doctor",
        command=_bench("doctor"),
        seconds=4,
        checks=(checks.findings_are_listed,),
    ),
    Step(
        name="roof",
        command=("-m", "scripts.gpu_probes", "roof", "--device", "{device}"),
        seconds=14,
        checks=(checks.roof_is_there,),
        cuda_checks=(checks.roof_is_reached,),
    ),
    Step(
        name="delays",
        command=("-m", "scripts.gpu_probes", "delays", "--device", "{device}"),
        seconds=15,
        checks=(checks.delays_are_kept,),
        needs_cuda=True,
    ),
    Step(
        name="attention",
        command=("-m", "scripts.gpu_probes", "attention", "--device", "{device}"),
        seconds=21,
        checks=(checks.attention_is_seen,),
        cuda_checks=(checks.attention_is_fused,),
    ),
    Step(
        name="phases",
        command=_run(
            "-w", ",".join(PHASES), "--size", "tiny", "--dtype", "{dtype}", "--profile", "smoke"
        ),
        seconds=60,
        checks=(checks.rows_are_usable, checks.phases_are(PHASES), checks.output_agrees),
        cuda_checks=(checks.column_is("step_clock", "event"),),
    ),
    Step(
        name="compiled",
        command=_run(
            "-w",
            "imaging-train,llm-decode",
            "--size",
            "tiny",
            "--dtype",
            "{dtype}",
            "--profile",
            "smoke",
            "--compile",
        ),
        seconds=92,
        checks=(
            checks.rows_are_usable,
            checks.output_agrees,
            checks.column_within("compile_s", 1e-3, 1e3),
        ),
        needs_cuda=True,
    ),
    Step(
        name="train",
        command=_run(
            "-w",
            "llm-train",
            "{auto_size}",
            "--dtype",
            "{dtype}",
            "--profile",
            "{profile}",
            "--trials",
            "1",
        ),
        seconds=68,
        checks=(checks.rows_are_usable, checks.output_agrees),
        cuda_checks=(
            checks.ratio_within("mem_estimate_bytes", "mem_alloc_peak_bytes", 0.8, 1.5),
            checks.ratio_within("energy_j", "energy_integrated_j", 0.85, 1.15),
            checks.column_is("energy_source", "counter"),
            checks.column_within("roof_frac", 0.02, 1.0),
            checks.column_within("mfu_frac", 0.02, 1.0),
            checks.profiles_cover(0.8),
        ),
    ),
    Step(
        name="links",
        command=_run(
            "-w",
            "llm-train",
            "--size",
            "{size}",
            "--dtype",
            "{dtype}",
            "--profile",
            "smoke",
            "--devices",
            "8",
            "--parallel",
            "ddp,fsdp",
            "--link",
            ",".join(LINKS),
            "--mode",
            "{mode}",
        ),
        seconds=95,
        checks=(checks.rows_are_usable,),
        cuda_checks=(
            checks.links_are_in_order(LINKS),
            checks.column_is("mode", "emulated"),
            checks.column_within("simulated_error_frac", -0.03, 0.03),
        ),
    ),
    _tests("tests-devices", "test_devices_gpu.py", seconds=28),
    _tests("tests-links", "test_emulation_gpu.py", "test_spread_gpu.py", seconds=50),
    _tests("tests-ranks", "test_run_gpu.py", "-k", "one_device or two_devices", seconds=16),
    _tests(
        "no-toolkit",
        "test_emulation_gpu.py",
        "-k",
        "ddp_trains or (stream_is_held and 0.01)",
        seconds=8,
        hides_toolkit=True,
    ),
)


def fill(step: Step, *, device: str, out: Path, python: str = sys.executable) -> list[str]:
    """Return the command line of a step on a device; an accelerator gets real sizes."""
    is_cuda = device.startswith("cuda")
    values = {
        "device": device,
        "out": str(out),
        "size": "base" if is_cuda else "tiny",
        "dtype": "bf16" if is_cuda else "fp32",
        # The default profile is the one that ends with operator profiles.
        "profile": "default" if is_cuda else "smoke",
        "mode": "emulated" if is_cuda else "simulated",
    }
    sized = [] if is_cuda else ["--size", "tiny"]
    words: list[str] = []
    for word in step.command:
        words += sized if word == "{auto_size}" else [word.format(**values)]
    return [python, *words]


def environment_for(step: Step, base: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a step; one that hides the toolkit has no nvcc to find."""
    environment = {**base, "PYTHONUNBUFFERED": "1"}
    if step.hides_toolkit:
        folders = base.get("PATH", "").split(os.pathsep)
        environment["PATH"] = os.pathsep.join(
            folder for folder in folders if not (Path(folder) / "nvcc").exists()
        )
        environment.update(CUDA_HOME=NO_TOOLKIT, CUDA_PATH=NO_TOOLKIT)
    return environment


def read_document(output: str) -> dict[str, Any]:
    """Return the JSON that a command printed, or pytest's counts; ValueError without either."""
    start = output.find("{")
    if start >= 0 and output.rstrip().endswith("}"):
        document: dict[str, Any] = json.loads(output[start:])
        if isinstance(document.get("path"), str):
            profiles = Path(document["path"]).with_suffix("").with_suffix(".operators.json")
            if profiles.exists():
                document["profiles"] = json.loads(profiles.read_text())["profiles"]
        return document
    counts = {word: 0 for word in ("passed", "failed", "skipped", "error")}
    last = (output.strip().splitlines() or [""])[-1]
    for number, word in re.findall(r"(\d+) (passed|failed|skipped|error)", last):
        counts[word] = int(number)
    if not any(counts.values()):
        raise ValueError("it printed neither JSON nor counts of tests")
    counts["failed"] += counts.pop("error")
    return dict(counts)


def judge(step: Step, document: Mapping[str, Any], *, is_cuda: bool) -> tuple[str, ...]:
    """Return what is wrong with a step's document, one sentence for each check that fails."""
    wrong: list[str] = []
    for check in step.checks + (step.cuda_checks if is_cuda else ()):
        try:
            problem = check(document)
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            problem = f"the document lacks something: {type(error).__name__}: {error}"
        if problem is not None:
            wrong.append(problem)
    return tuple(wrong)


def run_step(step: Step, *, device: str, out: Path) -> Outcome:
    """Run one step, keep its output in `out`, and judge it."""
    is_cuda = device.startswith("cuda")
    if step.needs_cuda and not is_cuda:
        return Outcome(name=step.name, verdict="SKIP", seconds=0.0, reasons=("needs CUDA",))
    start_s = time.monotonic()
    output, problem = _output_of(step, device=device, out=out)
    seconds = time.monotonic() - start_s
    reasons: tuple[str, ...]
    try:
        reasons = judge(step, read_document(output), is_cuda=is_cuda)
    except ValueError as error:
        reasons = (problem or str(error),)
    else:
        # A run may end with a code of its own where rows are not usable: the checks name those.
        reasons = reasons or ((problem,) if problem else ())
    verdict = "FAIL" if reasons else "PASS"
    return Outcome(name=step.name, verdict=verdict, seconds=seconds, reasons=reasons)


def _output_of(step: Step, *, device: str, out: Path) -> tuple[str, str | None]:
    limit_s = step.seconds * (1.0 if device.startswith("cuda") else SLOWER)
    with (
        (out / f"{step.name}.out").open("w+") as stdout,
        (out / f"{step.name}.err").open("w") as err,
    ):
        process = subprocess.Popen(
            fill(step, device=device, out=out),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=err,
            env=environment_for(step, os.environ),
            start_new_session=True,
        )
        problem = None
        try:
            code = process.wait(timeout=limit_s)
            problem = f"exit code {code}" if code else None
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
            problem = f"not finished after {limit_s:g} s"
        stdout.seek(0)
        return stdout.read(), problem


def verdict_lines(outcomes: Sequence[Outcome]) -> list[str]:
    """Return the table of verdicts: a line a step, a line a reason, and the sum."""
    counts = {
        word: sum(one.verdict == word for one in outcomes) for word in ("PASS", "FAIL", "SKIP")
    }
    total_s = sum(one.seconds for one in outcomes)
    words = ", ".join(f"{number} {word}" for word, number in counts.items())
    return [*(line for one in outcomes for line in step_lines(one)), f"{words} in {total_s:.0f} s"]


def step_lines(one: Outcome) -> list[str]:
    """Return one step's verdict, and a line for each reason."""
    verdict = f"{one.verdict}  {one.name:<14} {one.seconds:6.1f} s"
    return [verdict, *(f"      {reason}" for reason in one.reasons)]


def plan_lines(steps: Sequence[Step], *, device: str, out: Path) -> list[str]:
    """Return what would run: limit, name and command of each step, and the sum of the limits."""
    is_cuda = device.startswith("cuda")
    lines = []
    for step in steps:
        skipped = "  (SKIP: needs CUDA)" if step.needs_cuda and not is_cuda else ""
        words = fill(step, device=device, out=out, python="python")
        lines.append(f"{step.seconds:4.0f} s  {step.name:<14} {' '.join(words)}{skipped}")
    return [*lines, f"{sum(step.seconds for step in steps):4.0f} s  at most"]


def chosen(names: str | None) -> list[Step]:
    """Return the steps of these names in the order of the table; SystemExit names a wrong one."""
    if names is None:
        return list(STEPS)
    wanted = [name.strip() for name in names.split(",")]
    known = [step.name for step in STEPS]
    for name in wanted:
        if name not in known:
            raise SystemExit(f"--only: no step '{name}'; there are {', '.join(known)}")
    return [step for step in STEPS if step.name in wanted]


def find_device() -> str:
    """Return the accelerator that torch sees; SystemExit where there is none."""
    code = "import torch; a = torch.accelerator.current_accelerator(); print(a.type if a else '')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    device = done.stdout.strip()
    if not device:
        raise SystemExit("torch sees no accelerator here; --device cpu runs the table at tiny")
    return device


def main(run: Callable[..., Outcome] = run_step) -> int:
    """Run the steps in order and print the verdicts; 1 when one fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", help="cuda, cpu, ...; default: the accelerator torch sees")
    parser.add_argument("--only", help="names of steps, with commas")
    parser.add_argument("--plan", action="store_true", help="print the steps and run nothing")
    parser.add_argument("--out", type=Path, default=Path("acceptance"), help="folder for the logs")
    asked = parser.parse_args()
    steps = chosen(asked.only)
    if asked.plan:
        print("\n".join(plan_lines(steps, device=asked.device or "cuda", out=asked.out)))
        return 0
    device = asked.device or find_device()
    out = asked.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    outcomes = []
    for step in steps:
        outcomes.append(run(step, device=device, out=out))
        # As they come: whoever cuts this short still has the verdicts so far.
        print("\n".join(step_lines(outcomes[-1])), file=sys.stderr, flush=True)
    print("\n".join(verdict_lines(outcomes)))
    return int(any(one.verdict == "FAIL" for one in outcomes))


if __name__ == "__main__":
    sys.exit(main())
