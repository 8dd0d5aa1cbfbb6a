"""The cause of a failure in one line, out of chains, wrappers and logs; full shared memory."""

import csv
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._dynamo.exc import BackendCompilerFailed
from torch._inductor.exc import CppCompileError
from torch._utils import ExceptionWrapper

from bench.core.errors import DataError
from bench.measure import causes
from bench.measure.asking import failure_of
from bench.measure.causes import cause_of, how_it_ended, last_words

LOADING = Path(__file__).parents[1] / "workload_files" / "loading.py"


def raised(*links: Exception, explicit: bool = True) -> Exception:
    """The first, with each of the others as the cause of the one before it."""
    try:
        if len(links) > 1:
            try:
                raise raised(*links[1:], explicit=explicit)
            except Exception as inner:
                if explicit:
                    raise links[0] from inner
                raise links[0]  # noqa: B904
        raise links[0]
    except Exception as error:
        return error


def wrapped(error: Exception, where: str) -> Exception:
    """As torch raises in this process what another process or thread raised."""
    try:
        ExceptionWrapper((type(error), error, error.__traceback__), where=where).reraise()
    except Exception as again:
        return again
    raise AssertionError


NO_FILE = FileNotFoundError(2, "No such file or directory", "/data/case_7.nii.gz")
NO_FILE_TEXT = "FileNotFoundError: [Errno 2] No such file or directory: '/data/case_7.nii.gz'"
UNREADABLE = "ValueError: case 7 cannot be read"
WORKER = "in DataLoader worker process 3"
MISSING = "a.cpp:3:10: fatal error: omp.h: No such file or directory"
PTXAS = "ptxas /tmp/k.ptx, line 5; error   : Feature '.bf16' requires .target sm_80"
SHAPES = "RuntimeError: mat1 and mat2 shapes cannot be multiplied"
SCRIPT = f"""The following operation failed in the TorchScript interpreter.
Traceback of TorchScript (most recent call last):
  File "net.py", line 3, in forward
    return x @ y
           ~~~~~ <--- HERE
{SHAPES}
"""


def unreadable() -> Exception:
    return ValueError("case 7 cannot be read\nlook at dataset.json")


class CompilationError(Exception):
    """Named as Triton's."""


TRITON = CompilationError("at 12:4:\n    x = tl.load(p)\n    ^\nunsupported pointer type")
COMPILER = CppCompileError(["g++", "a.cpp"], f"a.cpp: In function 'kernel':\n{MISSING}")
KILLED = "DataLoader worker (pid 7) is killed by signal: Killed."
EXITED = RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly")
THREE = raised(OSError("outer"), KeyError("middle"), ValueError("inner"))
CHAINED = raised(unreadable(), NO_FILE)
IN_WORKER = wrapped(raised(unreadable()), WORKER)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("boom\nmore"), "RuntimeError: boom"),
        (RuntimeError(), "RuntimeError"),
        (CHAINED, f"{UNREADABLE}; caused by {NO_FILE_TEXT}"),
        (
            raised(unreadable(), NO_FILE, explicit=False),
            f"{UNREADABLE}; while handling {NO_FILE_TEXT}",
        ),
        # A chain of three: both ends. One without words says nothing.
        (THREE, "OSError: outer; caused by ValueError: inner"),
        (raised(RuntimeError("no sample"), KeyError(), explicit=False), "RuntimeError: no sample"),
        (IN_WORKER, f"{UNREADABLE} ({WORKER})"),
        (wrapped(CHAINED, WORKER), f"{UNREADABLE}; caused by {NO_FILE_TEXT} ({WORKER})"),
        # A worker's error on its way through the thread that pins memory.
        (wrapped(IN_WORKER, "in pin memory thread for device 0"), f"{UNREADABLE} ({WORKER})"),
        (wrapped(raised(KeyError("image")), WORKER), f"KeyError: 'image' ({WORKER})"),
        (
            raised(EXITED, RuntimeError(f"{KILLED} ")),
            f"RuntimeError: {KILLED}; often the system was out of memory",
        ),
        (BackendCompilerFailed(None, RuntimeError("no C++"), None), "RuntimeError: no C++"),
        (
            BackendCompilerFailed(None, COMPILER, None),
            f"CppCompileError: C++ compile error: {MISSING}",
        ),
        (TRITON, "CompilationError: unsupported pointer type"),
        (RuntimeError(f"PTX error\n`ptxas` stderr:\n{PTXAS}"), f"RuntimeError: PTX error: {PTXAS}"),
        (RuntimeError(SCRIPT), SHAPES),
        # A user's mistake that a worker met; in this process its words are enough.
        (
            wrapped(raised(DataError("case 7: no label; see dataset.json")), WORKER),
            f"DataError: case 7: no label; see dataset.json ({WORKER})",
        ),
        # A long message does not hide the cause.
        (
            raised(ValueError("x" * 500), OSError("y" * 500)),
            f"ValueError: {'x' * 228}; caused by OSError: {'y' * 231}",
        ),
    ],
)
def test_what_was_raised_and_what_began_it_are_told_in_one_line(
    error: Exception, told: str
) -> None:
    assert cause_of(error) == told
    assert failure_of(error, device="cpu").detail == told


def test_the_reason_of_a_row_is_that_of_the_cause_and_a_circle_of_causes_ends() -> None:
    room = MemoryError("no room")
    for error, code in (
        (raised(KeyError(), torch.OutOfMemoryError("CUDA out of memory")), "out_of_memory"),
        (raised(KeyError(), ValueError("collate"), room), "out_of_memory"),
        (BackendCompilerFailed(None, room, None), "out_of_memory"),
        (raised(KeyError(), NotImplementedError("aten::foo")), "unsupported_op"),
        # One that was caught, and had nothing to do with it.
        (raised(KeyError(), MemoryError("no room"), explicit=False), "error"),
    ):
        assert failure_of(error, device="cpu").code == code, error
    words = "case 7: no label; see dataset.json"
    assert failure_of(DataError(words), device="cpu").detail == words
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    assert cause_of(one) == "ValueError: one; caused by ValueError: other"


FRAMES = '  File "a.py", line 1, in f\n    f()\n    ~^^\n'
HEADER = f"Traceback (most recent call last):\n{FRAMES}"
TABLE = """{HEADER}torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
train.py FAILED
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  rank      : 0 (local_rank: 0)
  error_file: {file}
  traceback : {traceback}
============================================================
"""
RANKS = f"{HEADER}ValueError: rank 1 has no data\n"
PREFIXED = "".join(f"[rank1]: {line}\n" for line in RANKS.splitlines())
NOT_RECORDED = "To enable traceback see: https://pytorch.org/docs/stable/elastic/errors.html"
RECORDED = "\n".join(f"  {line}" for line in RANKS.splitlines()).strip()


RANK_1 = "ValueError: rank 1 has no data"
SHORT = "CUDA error: an illegal memory access was encountered"
ABORTED = f"""{RANKS}terminate called after throwing an instance of 'c10::Error'
  what():  {SHORT}
Exception raised from query at a.cpp:1
frame #0: c10::Error + 0x5 (0x7f)
"""


def test_a_log_gives_what_ended_its_process() -> None:
    for code, told, log in (
        (3, "", ""),
        (3, "the last words", "starting\nthe last words\n\n"),
        (1, RANK_1, RANKS),
        (1, RANK_1, f"{PREFIXED}W1127 api.py:900] failed (exitcode: 1)\n"),
        (1, RANK_1, PREFIXED + TABLE.format(HEADER=HEADER, file="<N/A>", traceback=NOT_RECORDED)),
        (1, RANK_1, TABLE.format(HEADER=HEADER, file="/tmp/error.json", traceback=RECORDED)),
        # Two that have nothing to do with each other: the later one.
        (1, "OSError: full", f"{HEADER}KeyError: 'a'\nwent on\n{HEADER}OSError: full\n"),
        (1, "KeyError: 'cut off", f"{HEADER}KeyError: 'cut off"),
        (1, "f()", HEADER),
        # A signal: not a traceback that was printed before.
        (-signal.SIGKILL, "going on", f"{RANKS}going on\n"),
        (-signal.SIGABRT, SHORT, ABORTED),
        (
            -signal.SIGSEGV,
            "Segmentation fault",
            f"Fatal Python error: Segmentation fault\n\n{FRAMES}",
        ),
        (-signal.SIGTERM, "one", "one\n=====\nframe #1: f + 0x1\n"),
    ):
        how = f"exit code {code}" if code > 0 else f"signal {signal.Signals(-code).name}"
        if code == -signal.SIGKILL:
            how += " (killed from outside; often the system was out of memory)"
        expected = f"{how}; last line: {told}" if told else how
        assert how_it_ended(code, log=log.encode()) == expected
        assert code < 0 or last_words(log.encode()) == told


def test_dev_shm_is_named_where_it_is_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = SimpleNamespace(total=64 * 2**20)
    monkeypatch.setattr(causes.shutil, "disk_usage", {"/dev/shm": usage}.__getitem__)
    hint = "/dev/shm is full (it holds 64.0 MiB): docker run --shm-size=4g ..., or --workers 0"
    no_space = "[Errno 28] No space left on device"
    for is_full, text in (
        (True, "unable to write to file </torch_1234_56_0>: No space left on device (28)"),
        (True, "unable to allocate shared memory(shm) for file </torch_1_2_0>: ENOSPC"),
        (True, "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that"),
        (True, f"Caught OSError in DataLoader worker process 0.\n{no_space}"),
        (True, f"{no_space}: '/dev/shm/pymp-x'"),
        (False, f"{no_space}: '/home/out.csv'"),
        (False, "out of resource: shared memory, Required: 131072, Hardware limit: 101376"),
        (False, "unable to open shared memory object </torch_1_2_0>: Too many open files (24)"),
        (False, "CUDA out of memory"),
    ):
        assert (hint in cause_of(RuntimeError(text))) == is_full, text
        assert (hint in how_it_ended(1, log=text.encode())) == is_full, text
    assert hint in how_it_ended(-signal.SIGBUS, log=b""), "of the trial itself"
    assert "/dev/shm" not in how_it_ended(-signal.SIGSEGV, log=b"")


PIECES = st.sampled_from([HEADER, FRAMES, RANKS, PREFIXED, "\n", "=====\n", f"Original {HEADER}"])
TEXTS = st.lists(st.one_of(PIECES, st.text(max_size=40))).map("".join)


@settings(max_examples=40)
@given(TEXTS, TEXTS, st.booleans())
def test_whatever_a_text_holds_one_line_comes_out(one: str, other: str, explicit: bool) -> None:
    lines = [
        cause_of(raised(RuntimeError(one), ValueError(other), explicit=explicit)),
        how_it_ended(1, log=(one + other).encode(errors="replace")),
    ]
    for line in lines:
        assert len(line.splitlines()) == 1 and len(line) < 1000


def test_rows_have_the_cause_that_a_worker_met_and_name_a_small_shared_memory(
    tmp_path: Path,
) -> None:
    words = ["-m", "bench", "run", "--workload", str(LOADING), "--set", "fault=unreadable,large"]
    more = ["--size", "tiny", "--device", "cpu", "--workers", "1", "--profile", "smoke"]
    command = [sys.executable, *words, *more, "--trials", "1", "--out", str(tmp_path)]
    mount = "mount -t tmpfs -o size=1m tmpfs /dev/shm"
    inside = [shutil.which("unshare") or "false", "-Urm", "sh", "-c"]
    may_mount = subprocess.run([*inside, mount], capture_output=True).returncode == 0
    if may_mount:  # as in a container with little shared memory
        command = [*inside, f'{mount} && exec "$@"', "sh", *command]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 4, done.stderr
    (path,) = tmp_path.glob("*.csv")
    detail_by_fault = {
        json.loads(row["params_json"])["fault"]: row["detail"]
        for row in csv.DictReader(path.read_text().splitlines())
        if row["status"] == "FAILED"
    }
    assert detail_by_fault.pop("unreadable") == (
        "ValueError: case_003 cannot be read; caused by FileNotFoundError: [Errno 2] "
        "No such file or directory: '/nowhere/case_003.nii.gz' (in DataLoader worker process 0)"
    )
    if not may_mount:
        pytest.skip("this user may not mount a file system of his own")
    (detail,) = detail_by_fault.values()
    assert "</torch_" in detail or "Bus error" in detail
    assert "/dev/shm is full (it holds 1.00 MiB)" in detail
