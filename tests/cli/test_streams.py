"""What is printed to: a reader that is gone, full disks, closed streams, odd terminals."""

import os
import shlex
import shutil
from pathlib import Path

import pytest

from bench.results.reader import read_rows
from tests.cli.conftest import Ask
from tests.cli.in_a_shell import BENCH, FAKE_RUN, ROOT, shell


@pytest.mark.parametrize(
    ("verb", "unbuffered"),
    [
        ("compare CSV CSV", ""),
        ("compare CSV CSV", "1"),
        ("export --to json CSV", ""),
        ("list workloads", "1"),
        ("run --help", ""),
    ],
)
def test_a_reader_that_is_gone_is_no_failure(
    verb: str, unbuffered: str, csv: str, tmp_path: Path
) -> None:
    read, write = os.pipe()
    os.close(read)  # before anything is printed
    line = f"{BENCH} {verb.replace('CSV', csv)} >&{write}"
    done = shell(line, folder=tmp_path, PYTHONUNBUFFERED=unbuffered, descriptor=write)
    os.close(write)
    assert done.returncode == 0 and "bench: " not in done.stderr and "rror" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_under_the_answer_is_one_line_and_no_verdict(
    unbuffered: str, csv: str, tmp_path: Path
) -> None:
    for verb in (f"compare {csv} {csv}", "--version"):
        done = shell(f"{BENCH} {verb} > /dev/full", folder=tmp_path, PYTHONUNBUFFERED=unbuffered)
        (line,) = done.stderr.splitlines()
        assert (done.returncode, line) == (
            2,
            "bench: what was to be printed could not be written: No space left on device",
        )


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no /dev/full")
def test_a_full_disk_under_the_answer_or_the_log_costs_no_row(tmp_path: Path) -> None:
    done = shell(f"{FAKE_RUN} > /dev/full", folder=tmp_path)
    (path,) = (tmp_path / "OUT").glob("*.csv")
    assert f"rows so far are in OUT/{path.name}" in done.stderr.splitlines()[-1]
    assert len(read_rows(path)) == 1
    done = shell(f"{FAKE_RUN} 2> /dev/full", folder=tmp_path)
    assert done.returncode == 0 and "1 OK" in done.stdout
    assert shell(f"{BENCH} gap none.csv 2> /dev/full", folder=tmp_path).returncode == 2


def test_closed_streams_never_become_a_result_file(csv: str, tmp_path: Path) -> None:
    for closed in (">&-", "<&- >&- 2>&-"):
        done = shell(f"{BENCH} gap {csv} {closed}", folder=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        done = shell(f"{FAKE_RUN} -q {closed}", folder=tmp_path)
        assert done.returncode == 0
        (path,) = (tmp_path / "OUT").glob("*.csv")
        assert len(read_rows(path)) == 1
        shutil.rmtree(tmp_path / "OUT")
    assert shell(f"{BENCH} gap none.csv 2>&-", folder=tmp_path).returncode == 2


def test_a_terminal_without_umlauts_gets_every_answer(csv: str, tmp_path: Path) -> None:
    shutil.copy(csv, tmp_path / "Läufe.csv")
    for verb in ("compare CSV CSV", "gap CSV", "project CSV --to h20-96g"):
        line = f"{BENCH} {verb.replace('CSV', 'Läufe.csv')}"
        done = shell(line, folder=tmp_path, PYTHONIOENCODING="ascii", TERM=None, LC_ALL="C")
        assert done.returncode == 0, done.stderr
        assert done.stdout.isascii() and done.stdout


VERBS_WITH_JSON = """
run -w sleep-infer --device fake --trials 1 --out OUT
run -w sleep-infer --device fake --dry-run
list workloads
list chips
list chips h20-96g
list links h100-nvlink
list recipes
compare CSV CSV
gap CSV
report CSV -o OUT.html
export CSV
project CSV --to h20-96g
claims
claims 1
data phantom OUT/phantom
"""


def test_json_is_one_document_on_the_narrowest_screen(
    csv: str, ask: Ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.chdir(tmp_path)
    for line in VERBS_WITH_JSON.strip().splitlines():
        assert ask(*shlex.split(line.replace("CSV", csv)), "--json").document is not None, line


def test_columns_that_are_no_width_are_as_if_there_were_none(
    csv: str, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = ask("compare", csv, csv).out
    for odd in ("0", "-5", "wide", ""):
        monkeypatch.setenv("COLUMNS", odd)
        assert ask("compare", csv, csv).out == usual


def test_no_word_is_broken_at_80_columns(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    reference = ROOT / "results" / "reference" / "cpu-2core.csv"
    *lines, _ = ask("gap", reference).out.partition("no energy ratio")[0].splitlines()
    assert max(map(len, lines)) == 80, "there is no room to spare"
    for name in ("imaging-train/infer", "llm-train/prefill", "imaging-train", "llm-prefill"):
        assert any(line.startswith(f"{name} ") for line in lines), name
    words = {word for line in lines for word in line.split()}
    assert {"bandwidth", "utilisation", "volume", "MiB"} <= words
