"""What is around a command (home, user, locks, folders) never ends in a traceback."""

import errno
import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
import typer

import bench.cli
from bench.cli import outermost
from bench.cli.measuring import ab
from bench.cli.options import Verb
from bench.results import reader, whole_files
from bench.results.reader import read_rows
from bench.run import runner
from tests.analysis.synthetic_rows import trials
from tests.cli.conftest import Ask, Write
from tests.cli.in_a_shell import BENCH, EACH, shell

FAKE_RUN = ("run", "-w", "sleep-infer", "--device", "fake", "--trials")


@pytest.fixture
def nameless() -> str:
    """Words before a command: a user id without a name, and without root's way past permissions."""
    words = "unshare -U --map-user=4242 --map-group=4242"
    if shutil.which("unshare") is None or subprocess.run([*words.split(), "true"]).returncode:
        pytest.skip("this system lets no one take another user id")
    return words


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
    line = ask(*FAKE_RUN, "3", "-q", "--out", tmp_path / "out", code=70).one_line
    (path,) = (tmp_path / "out").glob("*.csv")
    assert f"rows so far are in {path}" in line
    assert len(read_rows(path)) == 1
    monkeypatch.setattr(runner, "make_row", made)
    ask("run", "--resume", path, "-q")
    assert len(read_rows(path)) == 3


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


def test_no_home_no_name_of_the_user_and_a_notebooks_settings_change_nothing(
    csv: str, nameless: str, tmp_path: Path
) -> None:
    for name in ("mine.rc", "matplotlibrc"):  # named by a variable, found in the folder
        (tmp_path / name).write_text("text.usetex: True\n")
    settings = {
        **dict.fromkeys(("HOME", "USER", "LOGNAME", "USERNAME", "LNAME", "XDG_CACHE_HOME")),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "MATPLOTLIBRC": str(tmp_path / "mine.rc"),
    }
    for home, verb in (
        (None, "run -w imaging-infer --size tiny --profile smoke --out OUT"),
        (str(tmp_path / "none"), f"compare {csv} {csv}"),
        ("", f"report {csv} -o a.html"),
    ):
        done = shell(f"{nameless} {BENCH} {verb}", folder=tmp_path, **{**settings, "HOME": home})
        assert done.returncode == 0, done.stderr


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
    (tmp_path / "closed").mkdir(mode=0)
    verbs = (
        "gap closed/a.csv",
        f"report {csv} -o closed/a.html",
        f"export {csv} --to json -o closed/a.json",
        "run -w sleep-infer --device fake --out closed/a/b",
        "data phantom closed/a",
    )
    done = shell(f"{nameless} {EACH} {shlex.join(verbs)}", folder=tmp_path)
    assert done.stdout.split() == ["2"] * len(verbs)
    for line in (lines := done.stderr.splitlines()):
        assert line.startswith("bench: ") and "closed" in line
    assert len(lines) == len(verbs)
    run = "run -w sleep-infer --device cpu"
    done = shell(f"mkdir gone; cd gone; rmdir ../gone; {BENCH} {run}", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "bench: the current folder is gone; change to one that is there\n"


def test_what_is_no_ordinary_file_is_written_to_and_stays(
    csv: str, ask: Ask, tmp_path: Path
) -> None:
    """As root a rename would have put a file in the place of /dev/stdout."""
    fifo, printed = tmp_path / "fifo", tmp_path / "printed"
    os.mkfifo(fifo)
    end, descriptor = os.pipe()
    printed.symlink_to(f"/proc/self/fd/{descriptor}")
    for path, read in ((fifo, os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)), (printed, end)):
        ask("export", csv, "--to", "json", "-o", path)
        assert json.loads(os.read(read, 2**16))
        os.close(read)
    os.close(descriptor)
    assert stat.S_ISFIFO(fifo.stat().st_mode) and printed.is_symlink()


def test_a_file_system_without_locks_is_told_once_and_takes_every_row(
    ask: Ask, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(whole_files.fcntl, "flock", no_locks)
    ask(*FAKE_RUN, "2", "--out", tmp_path / "out")
    (path,) = (tmp_path / "out").glob("*.csv")
    ask("run", "--resume", path, "-q")
    assert len(read_rows(path)) == 2
    assert caplog.text.count("cannot be locked") == 1


def test_a_name_that_is_no_text_or_would_move_the_cursor_is_told_in_one_line(
    csv: str, ask: Ask, tmp_path: Path
) -> None:
    odd = tmp_path / "\udcff\x1b[31m\n.csv"
    shutil.copy(csv, odd)
    ask("compare", csv, odd)
    ask(*FAKE_RUN, "1", "--out", tmp_path / "\udcff")
    line = ask(*FAKE_RUN, "1", "--data", odd, code=2).one_line
    assert "--data" in line and "not UTF-8" in line
    odd.unlink()
    assert ask("gap", odd, code=2).one_line.isprintable()


def test_half_of_torchruns_variables_are_named(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    for found in ({}, {"RANK": "0", "WORLD_SIZE": "2"}, {"RANK": "x", "LOCAL_WORLD_SIZE": "1"}):
        for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in found.items():
            monkeypatch.setenv(name, value)
        for verb in ("run -w sleep-infer --device fake", "measure-link --device cpu"):
            line = ask(*verb.split(), code=2).one_line
            assert all(f"{name}={value}" in line for name, value in found.items())
            assert "torchrun" in line


def test_every_flag_of_every_verb_is_read_from_the_documented_variable(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(Verb, "invoke", lambda _command, ctx: seen.append(ctx))
    needs = {"ab": ["A", "B"], "calibrate": ["A"], "data phantom": ["OUT"]}
    needs |= dict.fromkeys(("compare", "gap", "report", "export", "project"), ["x.csv"])
    top, num = typer.main.get_command(bench.cli.app).commands, 0  # type: ignore[attr-defined]
    verbs = {"data phantom": top["data"].commands["phantom"], **top}
    for verb in [name for name in verbs if name != "data"]:
        words = [*verb.split(), *needs.get(verb, [])]
        for option in (one for one in verbs[verb].params if one.param_type_name == "option"):
            flag = max(option.opts, key=len)
            name = f"BENCH_{verb}_{flag[2:]}".replace(" ", "_").replace("-", "_").upper()
            is_switch, is_number = option.is_flag, option.type.name[:3] in ("int", "flo")
            given = str(int(not option.default)) if is_switch else "7" if is_number else "x"
            monkeypatch.setenv(name, given)
            ask(*words)
            read = seen.pop().params[option.name]
            wanted = {"0": False, "1": True} if is_switch else {"7": 7, "x": Path("x")}
            assert read in (given, (given,), [given], wanted.get(given)), (name, read)
            if is_switch or is_number:
                monkeypatch.setenv(name, "many")
                assert name in ask(*words, code=2).one_line
            monkeypatch.delenv(name)
            num += 1
    assert num > 90


def test_a_value_from_the_environment_is_refused_with_its_variable(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = ("run", "-w", "sleep-infer", "--device", "fake", "--out", tmp_path)
    for name, value in (
        ("TRIALS", "0"), ("WORKLOAD", "slep"), ("SET", "seconds=x"), ("RESUME", "none"),
        ("DTYPE", "fp9"), ("BUDGET", "10"), ("DATA", "/no/such/place"), ("DEVICES", "0"),
    ):  # fmt: skip
        monkeypatch.setenv(f"BENCH_RUN_{name}", value)
        words = fake if name != "WORKLOAD" else fake[:1]
        said = ask(*words, code=2).one_line
        assert said.endswith(f"(set by BENCH_RUN_{name})"), said
        monkeypatch.delenv(f"BENCH_RUN_{name}")
    # Nothing of a run within another verb comes from what was meant for runs of the user's.
    for name in ("JSON", "RESUME", "DRY_RUN"):
        monkeypatch.setenv(f"BENCH_RUN_{name}", "1")
    ask("calibrate", "--workload sleep-infer --device fake", "--blocks", 2, "--smoke")
