"""What is around a command (streams, home, user, locks, folders) never ends in a traceback."""

import errno
import functools
import json
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.cli import ab, outermost
from bench.results import reader
from bench.results.reader import read_rows
from bench.run import runner
from tests.analysis.synthetic_rows import trials
from tests.cli.conftest import Ask, Write
from tests.cli.in_a_shell import BENCH, FAKE_RUN, shell

NAMELESS = "unshare -U --map-user=4242 --map-group=4242"
"""A user id without a name, and without root's way past permissions."""


@functools.cache
def can_be_nameless() -> bool:
    words = [*NAMELESS.split(), "true"]
    return (
        shutil.which("unshare") is not None and subprocess.run(words, check=False).returncode == 0
    )


@pytest.fixture
def nameless() -> str:
    if not can_be_nameless():
        pytest.skip("this system lets no one take another user id")
    return NAMELESS


# Faults of ours ----------------------------------------------------------------------------------


def broken(*_: object, **__: object) -> None:
    raise KeyError("first line\nsecond line")


def test_a_fault_of_ours_is_one_line_and_70_with_its_traceback_in_a_file_or_shown(
    csv: str, ask: Ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(reader, "read_rows", broken)
    line = ask("gap", csv, code=70).one_line
    assert "internal error: KeyError" in line and "second line" in line
    place = re.search(r"its traceback is in (\S+)$", line)
    assert place is not None and "in broken" in Path(place[1]).read_text()
    for words in (["--traceback", "gap", csv], ["gap", csv, "--traceback"]):
        shown = ask(*words, code=70)
        assert "in broken" in shown.err and "its traceback" not in shown.err
    monkeypatch.setenv("BENCH_DEBUG", "1")
    assert "in broken" in ask("gap", csv, code=70).err
    monkeypatch.delenv("BENCH_DEBUG")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    assert ask("gap", csv, code=70).one_line.endswith("BENCH_DEBUG=1 shows its traceback")


def test_a_fault_of_ours_keeps_the_rows_and_names_their_file(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made, calls = runner.make_row, []

    def make_row(*given: object, **facts: object) -> object:
        calls.append(given)
        return broken() if len(calls) == 2 else made(*given, **facts)  # type: ignore[arg-type]

    monkeypatch.setattr(runner, "make_row", make_row)
    words = ("run", "-w", "sleep-infer", "--device", "fake", "--trials", "3", "-q")
    line = ask(*words, "--out", tmp_path / "out", code=70).one_line
    (path,) = (tmp_path / "out").glob("*.csv")
    assert f"rows so far are in {path}" in line
    assert len(read_rows(path)) == 1
    monkeypatch.setattr(runner, "make_row", made)
    ask("run", "--resume", path, "-q")
    assert len(read_rows(path)) == 3


# Home, user, folders -----------------------------------------------------------------------------


def test_no_home_and_no_name_of_the_user_change_nothing(
    csv: str, nameless: str, tmp_path: Path
) -> None:
    unset = dict.fromkeys(("HOME", "USER", "LOGNAME", "USERNAME", "LNAME", "XDG_CACHE_HOME"))
    for home in (None, str(tmp_path / "none"), ""):
        settings = {**unset, "HOME": home}
        for verb in (f"compare {csv} {csv}", f"report {csv} -o a.html"):
            done = shell(f"{nameless} {BENCH} {verb}", folder=tmp_path, **settings)
            assert done.returncode == 0, done.stderr
    done = shell(f"{nameless} {FAKE_RUN}", folder=tmp_path, **unset)
    assert done.returncode == 0 and "1 OK" in done.stdout, done.stderr


def test_a_noise_floor_is_shown_where_the_home_cannot_be_written(
    nameless: str, tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir(mode=0o555)
    settings = {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": None}
    flags = "'--workload sleep-infer --device fake --size tiny'"
    line = f"{nameless} {BENCH} calibrate {flags} --blocks 2 --out OUT"
    done = shell(line, folder=tmp_path, **settings)
    assert done.returncode == 0 and "noise floor" in done.stdout, done.stderr
    said = done.stderr.splitlines()[-1]
    kept = re.search(r"cannot be written; .* goes to (\S+) instead", said)
    assert kept is not None and (Path(kept[1]) / "noise.json").is_file()


def test_a_noise_floor_that_cannot_be_kept_is_shown_all_the_same(
    ask: Ask, write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    paths = write(a=trials(seed=1), b=trials(seed=2))
    monkeypatch.setattr(ab, "_measure", lambda *_, **__: [Path(path) for path in paths])
    words = ("calibrate", "--workload sleep-infer --device fake")
    in_the_way = tmp_path / "cache" / "gapbench" / "noise.json"
    in_the_way.mkdir(parents=True)
    answer = ask(*words)
    assert "noise floor" in answer.out
    (note,) = answer.err.splitlines()
    assert "not kept" in note and str(in_the_way) in note
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", paths[0])
    (note,) = ask(*words).err.splitlines()
    assert note.startswith(f"{paths[0]}/gapbench cannot be written")
    assert len(list(tmp_path.glob("gapbench-*/.cache/gapbench/noise.json"))) == 1


def test_a_folder_that_is_gone_or_may_not_be_entered_is_told_in_one_line(
    csv: str, nameless: str, tmp_path: Path
) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed").chmod(0)
    for verb in (
        "gap closed/a.csv",
        f"report {csv} -o closed/a.html",
        f"export {csv} --to json -o closed/a.json",
        "run -w sleep-infer --device fake --out closed/a/b",
        "data phantom closed/a",
    ):
        done = shell(f"{nameless} {BENCH} {verb}", folder=tmp_path)
        (line,) = done.stderr.splitlines()
        assert done.returncode == 2 and line.startswith("bench: ") and "closed" in line
    for verb in (f"gap {csv}", "run -w sleep-infer --device cpu", "devices"):
        done = shell(f"mkdir gone; cd gone; rmdir ../gone; {BENCH} {verb}", folder=tmp_path)
        assert done.returncode == 2
        assert done.stderr == "bench: the current folder is gone; change to one that is there\n"


def test_what_is_no_ordinary_file_is_written_to_and_stays(csv: str, tmp_path: Path) -> None:
    """As root a rename would have put a file in the place of /dev/stdout."""
    (tmp_path / "printed").symlink_to("/proc/self/fd/1")
    os.mkfifo(tmp_path / "fifo")
    done = shell(f"{BENCH} export {csv} --to json -o printed | cat", folder=tmp_path)
    assert json.loads(done.stdout) and (tmp_path / "printed").is_symlink()
    done = shell(f"{BENCH} export {csv} --to json -o fifo & cat fifo; wait", folder=tmp_path)
    assert json.loads(done.stdout) and stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)


NO_LOCKS = """
#include <errno.h>
int flock(int descriptor, int operation) { errno = EOPNOTSUPP; return -1; }
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_a_file_system_without_locks_is_told_once_and_takes_every_row(tmp_path: Path) -> None:
    (tmp_path / "locks.c").write_text(NO_LOCKS)
    shell("cc -shared -fPIC -o locks.so locks.c", folder=tmp_path)
    done = shell(FAKE_RUN, folder=tmp_path, LD_PRELOAD=str(tmp_path / "locks.so"))
    assert done.returncode == 0 and "1 OK" in done.stdout, done.stderr
    assert done.stderr.count("cannot be locked") == 1
    (path,) = (tmp_path / "OUT").glob("*.csv")
    done = shell(f"{BENCH} run --resume {path} -q", folder=tmp_path)
    assert done.returncode == 0 and len(read_rows(path)) == 1


def test_a_name_that_is_no_text_or_would_move_the_cursor_is_told_in_one_line(
    csv: str, ask: Ask, tmp_path: Path
) -> None:
    odd = tmp_path / "\udcff\x1b[31m\n.csv"
    shutil.copy(csv, odd)
    ask("compare", csv, odd)
    run = ("run", "-w", "sleep-infer", "--device", "fake", "--trials", "1")
    ask(*run, "--out", tmp_path / "\udcff")
    line = ask(*run, "--data", odd, code=2).one_line
    assert "--data" in line and "not UTF-8" in line
    odd.unlink()
    assert ask("gap", odd, code=2).one_line.isprintable()


@pytest.mark.parametrize(
    "found", [{}, {"RANK": "0", "WORLD_SIZE": "2"}, {"RANK": "x", "LOCAL_WORLD_SIZE": "1"}]
)
def test_half_of_torchruns_variables_are_named(
    found: dict[str, str], ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TORCHELASTIC_USE_AGENT_STORE": "True", **found}.items():
        monkeypatch.setenv(name, value)
    for verb in ("run -w sleep-infer --device fake", "measure-link --device cpu"):
        line = ask(*verb.split(), code=2).one_line
        assert all(f"{name}={value}" in line for name, value in found.items())
        assert "torchrun" in line


def test_every_refusal_of_the_system_is_2_and_every_other_exception_70(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for error, code in (
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), 2),
        (OSError(errno.EMFILE, "Too many open files"), 2),
        (OSError(errno.ECONNRESET, "Connection reset by peer"), 70),
        (RecursionError("too deep"), 70),
        (MemoryError(), 70),
    ):

        def verb(error: Exception = error) -> int:
            raise error

        assert outermost.exit_code_of(verb, shows_traceback=True) == code
        assert capsys.readouterr().err.splitlines()[-1].startswith("bench: ")


# Cases that people reported ----------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize("flag", ["", "-DSYS"])
def test_the_reported_file_system_without_locks_keeps_its_rows(
    flag: str, shared_case: Callable[[str], Path]
) -> None:
    folder = shared_case("41-nfs-locks")
    folder.chmod(0o755)
    shell(f"cc {flag} -shared -fPIC -o nolock.so nolock.c -ldl", folder=folder)
    done = shell(
        FAKE_RUN.replace("--trials 1", "--trials 3"),
        folder=folder,
        LD_PRELOAD=str(folder / "nolock.so"),
    )
    assert done.returncode == 0 and "3 OK" in done.stdout
    assert done.stderr.count("cannot be locked") == 1


def test_the_reported_notebook_and_the_reported_rc_change_no_page(
    shared_case: Callable[[str], Path], csv: str
) -> None:
    folder = shared_case("49-matplotlib")
    folder.chmod(0o755)
    backend = "module://matplotlib_inline.backend_inline"
    pages = []
    for settings in ({}, {"MPLBACKEND": backend}, {"MATPLOTLIBRC": str(folder / "mine.rc")}):
        done = shell(f"{BENCH} report {csv} -o a.html", folder=folder, **settings)  # type: ignore[arg-type]
        assert (done.returncode, done.stderr) == (0, "")
        pages.append(re.findall(r"<svg.*?</svg>", (folder / "a.html").read_text(), re.DOTALL))
    assert pages[0] == pages[1] == pages[2] != []


def test_the_reported_trial_without_a_user_and_with_a_notebooks_backend_runs(
    shared_case: Callable[[str], Path], nameless: str
) -> None:
    folder = shared_case("49-matplotlib")
    folder.chmod(0o755)
    unset = dict.fromkeys(("HOME", "USER", "LOGNAME", "XDG_CACHE_HOME"))
    run = "run -w imaging-train --size tiny --profile smoke --out OUT"
    done = shell(
        f"{nameless} {BENCH} {run}",
        folder=folder,
        MPLBACKEND="module://matplotlib_inline.backend_inline",
        MATPLOTLIBRC=str(folder / "mine.rc"),
        **unset,
    )
    assert done.returncode == 0 and "1 WARN" in done.stdout, done.stdout + done.stderr
    (path,) = (folder / "OUT").glob("*.csv")
    settings = {**unset, "HOME": str(folder / "none")}
    for verb in (f"compare {path} {path}", f"report {path}"):
        done = shell(f"{nameless} {BENCH} {verb}", folder=folder, **settings)
        assert done.returncode == 0, done.stderr
