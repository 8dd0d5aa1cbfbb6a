"""The cause of a failure in one line, out of chains, wrappers and logs; full shared memory."""

import csv
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._dynamo.exc import BackendCompilerFailed
from torch._inductor.exc import CppCompileError
from torch._utils import ExceptionWrapper

from bench.cli import main
from bench.core.errors import DataError
from bench.measure import causes
from bench.measure.asking import failure_of
from bench.measure.causes import cause_of, how_it_ended, last_words

OOM = "out_of_memory"
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


def unreadable() -> Exception:
    return ValueError("case 7 cannot be read\nlook at dataset.json")


OUTPUT = "a.cpp: In function 'kernel':\na.cpp:3:10: fatal error: omp.h: No such file or directory"


class CompilationError(Exception):
    """Named as Triton's."""


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("boom\nmore"), "RuntimeError: boom"),
        (RuntimeError(), "RuntimeError"),
        (
            raised(unreadable(), NO_FILE),
            f"ValueError: case 7 cannot be read; caused by {NO_FILE_TEXT}",
        ),
        (
            raised(unreadable(), NO_FILE, explicit=False),
            f"ValueError: case 7 cannot be read; while handling {NO_FILE_TEXT}",
        ),
        # A chain of three: both ends. One without words says nothing.
        (
            raised(OSError("outer"), KeyError("middle"), ValueError("inner")),
            "OSError: outer; caused by ValueError: inner",
        ),
        (raised(RuntimeError("no sample"), KeyError(), explicit=False), "RuntimeError: no sample"),
        (
            wrapped(raised(unreadable()), "in DataLoader worker process 3"),
            "ValueError: case 7 cannot be read (in DataLoader worker process 3)",
        ),
        (
            wrapped(raised(unreadable(), NO_FILE), "in DataLoader worker process 0"),
            f"ValueError: case 7 cannot be read; caused by {NO_FILE_TEXT} "
            "(in DataLoader worker process 0)",
        ),
        # A worker's error on its way through the thread that pins memory.
        (
            wrapped(
                wrapped(raised(unreadable()), "in DataLoader worker process 1"),
                "in pin memory thread for device 0",
            ),
            "ValueError: case 7 cannot be read (in DataLoader worker process 1)",
        ),
        (
            wrapped(raised(KeyError("image")), "in DataLoader worker process 0"),
            "KeyError: 'image' (in DataLoader worker process 0)",
        ),
        (
            raised(
                RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"),
                RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
            ),
            "RuntimeError: DataLoader worker (pid 7) is killed by signal: Killed.; "
            "often the system was out of memory",
        ),
        (
            BackendCompilerFailed(None, RuntimeError("no C++ compiler"), None),
            "RuntimeError: no C++ compiler",
        ),
        (
            BackendCompilerFailed(None, CppCompileError(["g++", "a.cpp"], OUTPUT), None),
            "CppCompileError: C++ compile error: a.cpp:3:10: fatal error: omp.h: "
            "No such file or directory",
        ),
        (
            CompilationError("at 12:4:\n    x = tl.load(p)\n    ^\nunsupported pointer type"),
            "CompilationError: unsupported pointer type",
        ),
        (
            RuntimeError(
                "Internal Triton PTX codegen error\n`ptxas` stderr:\n"
                "ptxas /tmp/k.ptx, line 5; error   : Feature '.bf16' requires .target sm_80"
            ),
            "RuntimeError: Internal Triton PTX codegen error: "
            "ptxas /tmp/k.ptx, line 5; error   : Feature '.bf16' requires .target sm_80",
        ),
        (
            RuntimeError(
                "The following operation failed in the TorchScript interpreter.\n"
                "Traceback of TorchScript (most recent call last):\n"
                '  File "net.py", line 3, in forward\n    return x @ y\n'
                "           ~~~~~ <--- HERE\n"
                "RuntimeError: mat1 and mat2 shapes cannot be multiplied\n"
            ),
            "RuntimeError: mat1 and mat2 shapes cannot be multiplied",
        ),
    ],
)
def test_what_was_raised_and_what_began_it_are_told_in_one_line(
    error: Exception, told: str
) -> None:
    assert cause_of(error) == told
    assert failure_of(error, device="cpu").detail == told


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (raised(RuntimeError("step 7 failed"), torch.OutOfMemoryError("CUDA out of memory")), OOM),
        (raised(RuntimeError("batch"), ValueError("collate"), MemoryError("no room")), OOM),
        (BackendCompilerFailed(None, MemoryError("no room"), None), OOM),
        (raised(RuntimeError("step"), NotImplementedError("aten::foo")), "unsupported_op"),
        # One that was caught, and had nothing to do with it.
        (raised(RuntimeError("step"), MemoryError("no room"), explicit=False), "error"),
    ],
)
def test_the_reason_of_a_row_is_that_of_the_cause(error: Exception, code: str) -> None:
    assert failure_of(error, device="cpu").code == code


def test_a_user_s_mistake_that_a_worker_met_is_one_line_too() -> None:
    error = DataError("case 7: no label; see dataset.json")
    assert failure_of(error, device="cpu").detail == "case 7: no label; see dataset.json"
    again = wrapped(raised(error), "in DataLoader worker process 2")
    assert failure_of(again, device="cpu").detail == (
        "DataError: case 7: no label; see dataset.json (in DataLoader worker process 2)"
    )


def test_a_long_message_does_not_hide_the_cause() -> None:
    told = cause_of(raised(ValueError("x" * 5000), OSError("y" * 5000)))
    assert told.startswith("ValueError: xxx") and "; caused by OSError: yyy" in told
    assert len(told) < 520


def test_a_circle_of_causes_ends() -> None:
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


@pytest.mark.parametrize(
    ("log", "code", "told"),
    [
        ("", 3, ""),
        ("starting\nthe last words\n\n", 3, "the last words"),
        (RANKS, 1, "ValueError: rank 1 has no data"),
        (
            f"{PREFIXED}W1127 api.py:900] failed (exitcode: 1)\n",
            1,
            "ValueError: rank 1 has no data",
        ),
        (
            PREFIXED + TABLE.format(HEADER=HEADER, file="<N/A>", traceback=NOT_RECORDED),
            1,
            "ValueError: rank 1 has no data",
        ),
        (
            TABLE.format(HEADER=HEADER, file="/tmp/error.json", traceback=RECORDED),
            1,
            "ValueError: rank 1 has no data",
        ),
        # Two that have nothing to do with each other: the later one.
        (f"{HEADER}KeyError: 'a'\nwent on\n{HEADER}OSError: full\n", 1, "OSError: full"),
        (f"{HEADER}KeyError: 'cut off", 1, "KeyError: 'cut off"),
        (f"{HEADER}", 1, "f()"),
        # A signal: not a traceback that was printed before.
        (f"{RANKS}going on\n", -signal.SIGKILL, "going on"),
        (
            f"{RANKS}terminate called after throwing an instance of 'c10::Error'\n"
            "  what():  CUDA error: an illegal memory access was encountered\n"
            "Exception raised from query at a.cpp:1\nframe #0: c10::Error + 0x5 (0x7f)\n",
            -signal.SIGABRT,
            "CUDA error: an illegal memory access was encountered",
        ),
        (
            f"Fatal Python error: Segmentation fault\n\nThread 1 (first call last):\n{FRAMES}",
            -signal.SIGSEGV,
            "Segmentation fault",
        ),
        ("one\n=====\nframe #1: f + 0x1\n", -signal.SIGTERM, "one"),
    ],
)
def test_a_log_gives_what_ended_its_process(log: str, code: int, told: str) -> None:
    how = f"exit code {code}" if code > 0 else f"signal {signal.Signals(-code).name}"
    if code == -signal.SIGKILL:
        how += " (killed from outside; often the system was out of memory)"
    expected = f"{how}; last line: {told}" if told else how
    assert how_it_ended(code, log=log.encode()) == expected
    assert code < 0 or last_words(log.encode()) == told


@pytest.mark.parametrize(
    ("text", "is_full"),
    [
        ("unable to write to file </torch_1234_56_0>: No space left on device (28)", True),
        ("unable to allocate shared memory(shm) for file </torch_1_2_0>: ENOSPC", True),
        ("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that", True),
        (
            "Caught OSError in DataLoader worker process 0.\n[Errno 28] No space left on device",
            True,
        ),
        ("[Errno 28] No space left on device: '/dev/shm/pymp-x'", True),
        ("[Errno 28] No space left on device: '/home/out.csv'", False),
        ("out of resource: shared memory, Required: 131072, Hardware limit: 101376", False),
        ("unable to open shared memory object </torch_1_2_0>: Too many open files (24)", False),
        ("CUDA out of memory", False),
    ],
)
def test_dev_shm_is_named_where_it_is_the_cause(
    text: str, is_full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(total=64 * 2**20)
    monkeypatch.setattr(causes.shutil, "disk_usage", {"/dev/shm": usage}.__getitem__)
    hint = "/dev/shm is full (it holds 64.0 MiB): docker run --shm-size=4g ..., or --workers 0"
    assert (hint in cause_of(RuntimeError(text))) == is_full
    assert (hint in how_it_ended(1, log=text.encode())) == is_full


def test_a_bus_error_of_the_trial_itself_names_dev_shm_too() -> None:
    assert "/dev/shm is full" in how_it_ended(-signal.SIGBUS, log=b"")
    assert "/dev/shm" not in how_it_ended(-signal.SIGSEGV, log=b"")


PIECES = st.sampled_from([HEADER, FRAMES, RANKS, PREFIXED, "\n", "=====\n", f"Original {HEADER}"])
TEXTS = st.lists(st.one_of(PIECES, st.text(max_size=40))).map("".join)


@given(TEXTS, TEXTS, st.booleans())
def test_whatever_a_text_holds_one_line_comes_out(one: str, other: str, explicit: bool) -> None:
    lines = [
        cause_of(raised(RuntimeError(one), ValueError(other), explicit=explicit)),
        how_it_ended(1, log=(one + other).encode(errors="replace")),
    ]
    for line in lines:
        assert len(line.splitlines()) == 1 and len(line) < 1000


# As a user meets it ------------------------------------------------------------------------------


def flags(fault: str, out: Path) -> list[str]:
    words = ["run", "--workload", str(LOADING), "--size", "tiny", "--set", f"fault={fault}"]
    more = ["--device", "cpu", "--workers", "1", "--profile", "smoke", "--trials", "1"]
    return [*words, *more, "--out", str(out)]


def detail_in(out: Path) -> str:
    (path,) = out.glob("*.csv")
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert {row["status"] for row in rows} == {"FAILED"}
    return rows[-1]["detail"]


def test_a_row_has_the_cause_that_a_worker_of_the_loader_met(tmp_path: Path) -> None:
    assert main(flags("unreadable", tmp_path)) == 4
    assert detail_in(tmp_path) == (
        "ValueError: case_003 cannot be read; caused by FileNotFoundError: [Errno 2] "
        "No such file or directory: '/nowhere/case_003.nii.gz' (in DataLoader worker process 0)"
    )


def test_a_run_in_a_container_with_little_shared_memory_says_so(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    mount = "mount -t tmpfs -o size=1m tmpfs /dev/shm"
    inside = [str(unshare), "-Urm", "sh", "-c"]
    if unshare is None or subprocess.run([*inside, mount], capture_output=True).returncode:
        pytest.skip("this user may not mount a file system of his own")
    script = f'{mount} && exec "$@"'
    command = [sys.executable, "-m", "bench", *flags("large", tmp_path)]
    done = subprocess.run([*inside, script, "sh", *command], capture_output=True, text=True)
    assert done.returncode == 4, done.stderr
    detail = detail_in(tmp_path)
    assert "</torch_" in detail or "Bus error" in detail
    assert "/dev/shm is full (it holds 1.00 MiB)" in detail
