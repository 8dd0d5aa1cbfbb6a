"""The start hook: silent outside `bench wrap`, and no program's import of torch fails by it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch  # noqa: F401  (else its import would call the hook in a test)

import gapbench_start
from bench.cli.measuring.wrap import wrap
from bench.run.planning.request import FLAGS

ROOT = Path(__file__).resolve().parents[2]


def test_it_does_nothing_without_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(gapbench_start.FOLDER, raising=False)
    monkeypatch.setattr(gapbench_start, "_begin", None)
    gapbench_start.start()


@pytest.mark.parametrize("request_text", [None, "", "{}", '{"event":"trial","limits":"later"}'])
def test_a_stale_folder_or_a_request_of_another_version_is_a_line_and_no_error(
    request_text: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if request_text is not None:
        (tmp_path / "request.json").write_text(request_text)
    monkeypatch.setenv(gapbench_start.FOLDER, str(tmp_path))
    gapbench_start.start()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("bench: this process is not measured: ")


@pytest.mark.parametrize("script", ["bench.py", pytest.param("train.py", marks=pytest.mark.slow)])
def test_a_bench_of_the_program_s_own_hides_nothing(script: str, tmp_path: Path) -> None:
    """Neither where it is what is started, nor where it only lies beside it."""
    (tmp_path / "bench.py").write_text("import torch\nprint('trains')\n")
    (tmp_path / "train.py").write_text("import torch\nprint('trains')\n")
    done = subprocess.run(
        [sys.executable, str(tmp_path / script)],
        env={**os.environ, "PYTHONPATH": str(ROOT), gapbench_start.FOLDER: str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = done.stderr.splitlines()
    assert "not measured: FileNotFoundError" in line, "it was found, and its folder is stale"
    assert done.stdout == "trains\n"


def test_no_flag_has_the_hook_s_variable() -> None:
    flags = {flag.parameter for flag in FLAGS.values()} | set(wrap.__annotations__)
    assert gapbench_start.FOLDER == "BENCH_WRAP_FOLDER" and "folder" not in flags
