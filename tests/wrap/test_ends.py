"""How programs end under `bench wrap`: each failure is a line, a row with its reason, and 4."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bench.measure.messages import News, ScriptFacts, Written
from bench.results.beside_rows import failures_path
from bench.results.reader import read_rows
from bench.results.schema import Row
from bench.run.launching.child import Outcome
from bench.run.planning.request import RunRequest
from bench.run.planning.wrap_request import WrapRequest
from bench.run.wrap_session import look_at

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = str(Path(__file__).parent / "programs" / "ends.py")
SLOW = pytest.mark.slow
ENDS = [sys.executable, PROGRAM]
WAITED = "it waited for an optimizer step (--step optimizer) and saw none"
NO_HOOK = "no process of it imported a torch that calls bench's start hook"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Children find this checkout and no flags of anybody's."""
    for name in [one for one in os.environ if one.startswith("BENCH_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("GAPBENCH_TEST_FOLDER", str(tmp_path))


def start(*words: str, out: Path, **settings: Any) -> subprocess.Popen[str]:
    bench = [sys.executable, "-m", "bench", "wrap", "--profile", "smoke", "--out", str(out)]
    piped: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*bench, *words], **piped, errors="replace", **settings)


def wrapped(*words: str, out: Path) -> tuple[int, str, str, list[Row]]:
    """Exit code, standard output, standard error and rows of `bench wrap`."""
    process = start(*words, out=out)
    stdout, stderr = process.communicate(timeout=240)
    rows = [row for path in out.glob("*.csv") for row in read_rows(path)]
    return process.returncode, stdout, stderr, rows


def looked_at(*command: str, timeout_s: float = 60.0, **asked: Any) -> tuple[Outcome, bytes]:
    """What became of a look, and what the program wrote."""
    written: list[bytes] = []

    def listen(message: News) -> None:
        if isinstance(message, Written):
            written.append(message.chunk)

    request = WrapRequest(command=command, run=RunRequest(timeout_s=timeout_s), **asked)
    return look_at(request, on_message=listen), b"".join(written)


def ours(text: str) -> list[int]:
    """Processes that have this text in their environment; Linux only."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                content = (folder / "environ").read_bytes()
            except OSError:  # it has just ended
                continue
            if text.encode() in content:
                found.append(int(folder.name))
    return found


def wait_until_none_is_left(text: str, *, limit_s: float = 10.0) -> None:
    deadline_s = time.monotonic() + limit_s
    while left := ours(text):
        assert time.monotonic() < deadline_s, left
        time.sleep(0.05)


# Failures ----------------------------------------------------------------------------------------


def test_program_that_raises_is_a_row_with_its_words_and_exit_code_4(tmp_path: Path) -> None:
    over = ("--devices", "4,8", "--link", "10gbe", "--quiet", "--json")
    code, stdout, stderr, rows = wrapped(*over, "--", *ENDS, "raises", out=tmp_path)
    detail = "the program failed with exit code 1: ValueError: the loss has no such name"
    assert code == 4
    assert {(row["status"], row["reasons"], row["detail"]) for row in rows} == {
        ("FAILED", "error", detail)
    }
    assert {row["dtype"] for row in rows} == {None} and "fp32" not in stderr, "it is not known"
    assert {(row["device_count"], row["link"]) for row in rows} == {(4, "10gbe"), (8, "10gbe")}
    assert json.loads(stdout)["exit_code"] == 4
    assert stderr.count(f"ends: FAILED: {detail}") == 2
    (csv,) = tmp_path.glob("*.csv")
    log = failures_path(csv).read_text()
    assert log.count("ValueError: the loss has no such name") == 2, "a title, and its traceback"
    assert log.partition("\n")[2].strip() in stderr, "--quiet shows it: it has failed"
    assert log.count("Traceback") == 1 and "bench/" not in log, "no traceback of ours"


FAILURES = [
    # how, code, words
    pytest.param("memory", "out_of_memory", "exit code 1: OutOfMemoryError: tried", marks=SLOW),
    pytest.param("asks", "error", "a line; its standard input is empty under bench", marks=SLOW),
    pytest.param("early", "error", "ended after 3 steps, before it was warm", marks=SLOW),
    pytest.param("exit-3", "error", "failed in its first steps: exit code 3", marks=SLOW),
    pytest.param("binary", "error", " [2J [31mred", marks=SLOW),
    pytest.param("os-exit", "error", "in its first steps without Python's own end", marks=SLOW),
    pytest.param("dies", "crashed", "died in its first steps: signal SIGSEGV", marks=SLOW),
    pytest.param("loud", "error", "exit code 1: ValueError: after 200 MB", marks=SLOW),
]


@pytest.mark.parametrize(("how", "code", "words"), FAILURES)
def test_each_end_before_enough_steps_has_its_words(how: str, code: str, words: str) -> None:
    outcome, written = looked_at(*ENDS, how)
    assert outcome.failure is not None
    assert (outcome.failure.code, words in outcome.failure.detail) == (code, True), outcome.failure
    assert outcome.failure.detail.isprintable()
    assert len(outcome.log) <= 2**16
    assert how != "loud" or len(written) > 2e8, "all of it is shown"
    assert how != "binary" or bytes(range(256)) * 8 in written, "as it is"


@SLOW
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("waits", f"not finished after 8 s: {WAITED}, no backward pass and no batch"),
        ("own-update", "backward passes: try --step loader"),
    ],
)
def test_without_a_step_in_time_it_says_what_it_waited_for_and_saw(how: str, words: str) -> None:
    outcome, _ = looked_at(*ENDS, how, timeout_s=8.0)
    assert outcome.failure is not None and outcome.failure.code == "timeout"
    assert WAITED in outcome.failure.detail and words in outcome.failure.detail


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("bash", "-c", "sleep 0.1"), f"the program ended, and {NO_HOOK}"),
        (("bash", "-c", "echo no such module >&2; exit 7"), "exit code 7; last line: no such"),
        ((sys.executable, "nosuch.py"), "can't open file"),
        ((sys.executable, "-c", "raise SystemExit(2)", "--devices=8"), "--devices of bench stands"),
        (("bash", "-c", "kill -9 $$"), "died before its first step: signal SIGKILL"),
        (("env", "TORCH_DEVICE_BACKEND_AUTOLOAD=0", "true"), NO_HOOK),
    ],
)
def test_program_without_torch_is_a_failure_in_words(command: tuple[str, ...], words: str) -> None:
    outcome, _ = looked_at(*command)
    assert outcome.failure is not None and words in outcome.failure.detail


def test_what_is_counted_is_no_smaller_batch_at_the_end_of_an_epoch() -> None:
    outcome, _ = looked_at(*ENDS, "small-last")
    facts = outcome.result
    assert isinstance(facts, ScriptFacts), outcome.failure
    assert (facts.items_per_step, facts.flops_per_step) == (32, 2 * 2 * 32 * 8)


def test_script_without_an_interpreter_cannot_be_started(tmp_path: Path) -> None:
    script = tmp_path / "train"
    script.write_text("#!/no/such/python\n")
    script.chmod(0o755)
    outcome, _ = looked_at(str(script))
    assert outcome.failure is not None
    assert outcome.failure.detail == f"{script} could not be started: No such file or directory"


def test_time_out_ends_everything_that_was_started(tmp_path: Path) -> None:
    outcome, _ = looked_at("bash", "-c", "sleep 60 & sleep 61", timeout_s=0.5)
    assert outcome.failure is not None
    assert outcome.failure.detail.startswith(f"not finished after 0.5 s: {NO_HOOK}")
    if sys.platform == "linux":
        wait_until_none_is_left(str(tmp_path))


# Where the training is --------------------------------------------------------------------------


@SLOW
@pytest.mark.parametrize("how", ["forks", "fork", "spawn", "forkserver"])
def test_training_in_a_child_is_measured(how: str) -> None:
    outcome, _ = looked_at(*ENDS, how)
    assert isinstance(outcome.result, ScriptFacts), outcome.failure
    assert outcome.result.optimizer == "SGD"


@SLOW
@pytest.mark.parametrize(
    "command",
    [
        (sys.executable, "-I", "-E", PROGRAM, "polite"),
        (sys.executable, "-m", "tests.wrap.programs.ends", "polite"),
        ("bash", "-c", f"{sys.executable} {PROGRAM} polite; exit $?"),
        ("env", f"{sys.executable}", "-S", "-c", "import sys; sys.path += PATHS; FOLLOWS"),
        (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=1", PROGRAM, "polite"),
        (sys.executable, "-m", "accelerate.commands.launch", "--cpu", PROGRAM, "polite"),
    ],
    ids=["isolated", "module", "bash", "no site", "torchrun", "accelerate"],
)
def test_the_hook_is_found_however_the_program_is_started(command: tuple[str, ...]) -> None:
    paths = [one for one in sys.path if one.endswith("site-packages")] + [str(ROOT)]
    follows = (
        f"import runpy; sys.argv[1:] = ['polite']; runpy.run_path({PROGRAM!r}, {{}}, '__main__')"
    )
    words = [one.replace("PATHS", repr(paths)).replace("FOLLOWS", follows) for one in command]
    if "accelerate.commands.launch" in command:
        pytest.importorskip("accelerate")
    outcome, written = looked_at(*words)
    assert isinstance(outcome.result, ScriptFacts), outcome.failure
    assert b"finally has run" in written and b"atexit has run" in written


# Ends after the window ---------------------------------------------------------------------------


def test_after_its_window_the_program_ends_politely_and_nothing_is_left(tmp_path: Path) -> None:
    code, stdout, stderr, (row,) = wrapped(*ENDS, "polite", out=tmp_path)
    assert (code, row["status"], row["reasons"]) == (0, "WARN", "smoke")
    assert stderr.count("finally has run\natexit has run\n") == 2, "in the look, and in the trial"
    assert "has run" not in stdout and "Traceback" not in stderr
    if sys.platform == "linux":
        wait_until_none_is_left(str(tmp_path))
    assert [one.name for one in tmp_path.iterdir() if "wrap" in one.name] == []


@SLOW
@pytest.mark.parametrize("how", ["swallows", "hangs"])
def test_program_that_does_not_end_after_its_window_is_ended_and_its_row_kept(
    how: str, tmp_path: Path
) -> None:
    code, _, _, (row,) = wrapped(*ENDS, how, out=tmp_path)
    assert (code, row["status"]) == (0, "WARN")
    if sys.platform == "linux":
        wait_until_none_is_left(str(tmp_path))


@SLOW
def test_to_end_shows_whole_output_and_the_exit_code(tmp_path: Path) -> None:
    goes_on = ("--to-end", *ENDS, "goes-on", "20000")
    code, stdout, stderr, (row,) = wrapped(*goes_on, out=tmp_path)
    assert (code, row["status"]) == (0, "WARN")
    words = "after what is measured the program ended: exit code 5"
    assert words in str(row["detail"]) and words in stdout
    assert f"whole output {'x' * 200_000}\n" in stderr
    # Too few steps for a window, and its own exit code: a failure.
    code, _, _, (row,) = wrapped("--trials", "1", *ENDS, "goes-on", "6", out=tmp_path / "few")
    assert (code, row["status"], row["reasons"]) == (4, "FAILED", "error")
    assert "exit code 5" in str(row["detail"])


# Signals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, id="SIGINT"), pytest.param(signal.SIGTERM, marks=SLOW)]
)
def test_interrupt_reaches_the_program_first(number: int, tmp_path: Path) -> None:
    process = start(*ENDS, "interrupted", out=tmp_path, process_group=0)
    assert process.stderr is not None
    while "training" not in process.stderr.readline():
        pass
    os.killpg(process.pid, number)  # as a terminal does
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "the program has kept its checkpoint" in stderr and "bench" not in stderr
    if sys.platform == "linux":
        wait_until_none_is_left(str(tmp_path))


@SLOW
def test_second_interrupt_ends_at_once(tmp_path: Path) -> None:
    process = start(*ENDS, "stubborn", out=tmp_path)
    assert process.stderr is not None
    while "training" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None, "the program has time to end"
    second_s = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130 and time.monotonic() - second_s < 5
    wait_until_none_is_left(str(tmp_path))


@SLOW
def test_interrupt_in_a_trial_keeps_the_rows_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINS", "1")
    process = start("--trials", "400", *ENDS, "interrupted", out=tmp_path)
    deadline_s = time.monotonic() + 120
    while not any(len(read_rows(path)) for path in tmp_path.glob("*.csv")):
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
    time.sleep(2.0)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    (path,) = tmp_path.glob("*.csv")
    rows = read_rows(path)
    assert rows[0]["status"] == "WARN" and rows[-1]["reasons"] == "interrupted"
    assert "bench/cli" not in stderr, "no traceback but the program's own"


@SLOW
@pytest.mark.skipif(sys.platform != "linux", reason="the system's signal for a lost pipe")
@pytest.mark.parametrize(
    "launcher", [(), ("-m", "torch.distributed.run", "--nproc-per-node=1")], ids=["", "torchrun"]
)
def test_killed_bench_leaves_no_program_behind(launcher: tuple[str, ...], tmp_path: Path) -> None:
    process = start(sys.executable, *launcher, PROGRAM, "interrupted", out=tmp_path)
    assert process.stderr is not None
    while "training" not in process.stderr.readline():
        pass
    process.kill()
    process.wait()
    wait_until_none_is_left(str(tmp_path), limit_s=5)
    process.communicate()
