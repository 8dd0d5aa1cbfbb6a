"""`bench doctor`: one table or one document, no torch, and quick."""

import json
import subprocess
import sys

import pytest

from bench.cli import main
from bench.devices.doctor import all_findings as checks
from bench.devices.doctor.finding import Finding

Captured = pytest.CaptureFixture[str]
FINDINGS = [
    Finding(severity="error", what="CUDA_LAUNCH_BLOCKING=1 is set", why="[serial]", fix="unset it"),
    Finding(severity="note", what="turbo is on", why="heat", fix="echo 1"),
]


def test_findings_are_told_in_order_with_what_to_do(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "findings", list)
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out == "nothing found\n"
    monkeypatch.setattr(checks, "findings", lambda: FINDINGS)
    assert main(["doctor"]) == 0
    table = capsys.readouterr().out
    assert "[serial]" in table and "unset it" in table
    assert table.index("error") < table.index("note")
    assert main(["doctor", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)["findings"]
    assert first == {
        "severity": "error",
        "what": "CUDA_LAUNCH_BLOCKING=1 is set",
        "why": "[serial]",
        "fix": "unset it",
    }
    assert second["severity"] == "note"


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
