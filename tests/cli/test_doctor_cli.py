"""`bench doctor`: one table or one document, no torch, and quick."""

import json
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from bench.cli.doctor import doctor
from bench.devices.doctor import all_findings as checks
from bench.devices.doctor.finding import Finding

FINDINGS = [
    Finding(severity="error", what="CUDA_LAUNCH_BLOCKING=1 is set", why="[serial]", fix="unset it"),
    Finding(severity="note", what="turbo is on", why="heat", fix="echo 1"),
]


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    app.command()(doctor)
    return app


def test_clean_machine_is_told_so(app: typer.Typer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "findings", list)
    result = CliRunner().invoke(app, [])
    assert (result.exit_code, result.stdout) == (0, "nothing found\n")


def test_table_keeps_order_and_square_brackets(
    app: typer.Typer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "findings", lambda: FINDINGS)
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 0
    assert "[serial]" in result.stdout
    assert result.stdout.index("error") < result.stdout.index("note")
    assert "unset it" in result.stdout


def test_json_is_one_document_with_every_field(
    app: typer.Typer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "findings", lambda: FINDINGS)
    result = CliRunner().invoke(app, ["--json"])
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["findings"][0] == {
        "severity": "error",
        "what": "CUDA_LAUNCH_BLOCKING=1 is set",
        "why": "[serial]",
        "fix": "unset it",
    }
    assert len(document["findings"]) == 2


def test_real_run_ends_well_and_imports_no_torch() -> None:
    program = (
        "import sys\n"
        "from bench.cli import main\n"
        "assert main(['doctor', '--json']) == 0\n"
        "sys.stderr.write('torch imported' if 'torch' in sys.modules else 'no torch')\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert answer.stderr == "no torch"
    for finding in json.loads(answer.stdout)["findings"]:
        assert finding["severity"] in ("error", "warning", "note")
        assert finding["what"] and finding["why"] and finding["fix"]
