"""Operator profiles of real runs: made in a process of their own, kept beside the rows, once."""

from pathlib import Path

import pytest

from bench.cli import main
from bench.results.operator_profiles import profiles_path, read_profiles
from bench.run.planning.request import RunRequest
from bench.run.session import prepare

WORKLOAD = str(Path(__file__).parents[1] / "workload_files" / "small_net.py")


def test_a_run_is_profiled_on_request_and_only_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # no roof of another run
    flags = ["--device", "cpu", "--threads", "1", "--profile", "smoke", "--quiet"]
    assert main(["run", "-w", WORKLOAD, *flags, "--out", str(tmp_path)]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert not profiles_path(path).exists(), "a smoke run ends without"
    words = ["project", str(path), "--to", "h20", "--profile-operators"]
    # A smoke run measures no roof, so there is a profile and nothing to project from.
    assert main(words) == 5
    reported = capsys.readouterr().err
    assert "profiling operators" in reported and "roof was not measured" in reported
    profiles = read_profiles(path)
    assert profiles
    for one in profiles.values():
        assert sum(operators.time_s or 0.0 for operators in one.operators) > 0.0
        assert any(operators.is_matrix and operators.flops > 0.0 for operators in one.operators)
    before = profiles_path(path).read_bytes()
    assert main(words) == 5
    assert "profiling operators" not in capsys.readouterr().err
    assert profiles_path(path).read_bytes() == before


@pytest.mark.parametrize(
    ("profile", "budget_s", "expected"),
    [("smoke", None, False), ("quick", None, False), ("default", None, True),
     ("default", 60.0, False), ("rigorous", None, True)],
)  # fmt: skip
def test_long_runs_without_a_firm_budget_end_with_profiles(
    profile: str, budget_s: float | None, expected: bool
) -> None:
    request = RunRequest(
        workloads=("sleep-infer",), device="fake", profile=profile, budget_s=budget_s
    )
    plan, _ = prepare(request, note=lambda _: None)
    assert plan.wants_profiles is expected
