"""What is printed to: a reader that is gone, full disks, closed streams, odd terminals."""

import io
import os
import shlex
import sys
from pathlib import Path

import pytest

from bench.cli import main
from bench.results.reader import read_rows
from tests.cli.conftest import Ask
from tests.cli.in_a_shell import BENCH, ROOT, shell
from tests.run.bench_process import rows_in

FAKE_RUN = "run -w sleep-infer --size tiny --device fake --trials 1 --out OUT"
FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.is_char_device(), reason="no /dev/full")


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def code_on(file: Path | int, line: str, *, name: str = "stdout", buffering: int = -1) -> int:
    """Run a line in this process with this file as one of its streams; returns the exit code."""
    with pytest.MonkeyPatch.context() as patch, open(file, "wb", buffering=buffering) as raw:
        how = {"write_through": buffering == 0, "line_buffering": name == "stderr"}
        patch.setattr(sys, name, io.TextIOWrapper(raw, encoding="ascii", **how))
        return main(shlex.split(line))


def test_a_reader_that_is_gone_is_no_failure(
    csv: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for line in (f"compare {csv} {csv}", f"export --to json {csv}", "list workloads"):
        for buffering in (-1, 0):
            read, write = os.pipe()
            os.close(read)  # before anything is printed
            assert code_on(write, line, buffering=buffering) == 0
            assert capsys.readouterr().err == ""
    read, write = os.pipe()
    os.close(read)
    done = shell(f"{BENCH} run --help >&{write}", folder=tmp_path, descriptor=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


@needs_full
def test_a_full_disk_under_the_answer_is_one_line_and_no_verdict(
    csv: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    said = "bench: what was to be printed could not be written: No space left on device\n"
    for buffering in (-1, 0):
        assert code_on(FULL, f"compare {csv} {csv}", buffering=buffering) == 2
        assert capsys.readouterr().err == said
    done = shell(f"{BENCH} --version > {FULL}", folder=tmp_path)
    assert (done.returncode, done.stderr) == (2, said)
    assert code_on(FULL, "gap none.csv", name="stderr") == 2


@needs_full
def test_a_full_disk_under_the_answer_or_the_log_costs_no_row(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert code_on(FULL, FAKE_RUN) == 2
    (path,) = Path("OUT").glob("*.csv")
    assert f"rows so far are in OUT/{path.name}" in capsys.readouterr().err.splitlines()[-1]
    assert len(read_rows(path)) == 1
    assert code_on(FULL, FAKE_RUN, name="stderr") == 0
    assert "1 OK" in capsys.readouterr().out


def test_closed_streams_never_become_a_result_file(csv: str, tmp_path: Path) -> None:
    done = shell(f"{BENCH} gap {csv} >&-", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert shell(f"{BENCH} {FAKE_RUN} -q <&- >&- 2>&-", folder=tmp_path).returncode == 0
    assert len(rows_in(Path("OUT"))) == 1
    assert shell(f"{BENCH} gap none.csv 2>&-", folder=tmp_path).returncode == 2


def test_a_terminal_without_umlauts_gets_every_answer(
    csv: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TERM", raising=False)
    Path("Läufe.csv").write_bytes(Path(csv).read_bytes())
    for line in VERBS_WITH_JSON.replace("CSV", "Läufe.csv").strip().splitlines():
        verb = line.replace("export", "export --to bmf")
        assert code_on(Path("printed"), verb) == 0, verb
        printed = Path("printed").read_bytes()
        assert printed.isascii() and printed, verb


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
    csv: str, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "dumb")
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
    lines = ask("gap", reference).out.partition("published for")[0].splitlines()
    assert max(map(len, lines)) == 80, "there is no room to spare"
    for name in ("imaging-train/infer", "llm-train/prefill", "imaging-train", "llm-prefill"):
        assert any(line.startswith(f"{name} ") for line in lines), name
    words = {word for line in lines for word in line.split()}
    assert {"bandwidth", "published", "x2.08", "volume", "MiB"} <= words
