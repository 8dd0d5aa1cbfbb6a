import subprocess
import time
from pathlib import Path

import pytest

from bench.results import environment
from bench.results.environment import bench_version, git_commit


def _git(folder: Path, *arguments: str) -> None:
    subprocess.run(
        ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *arguments],
        check=True,
        capture_output=True,
    )


@pytest.fixture
def checkout_folder(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "gapbench"\nversion = "9.8.7"\n')
    _git(tmp_path, "init", "-q")
    _git(tmp_path, "add", "pyproject.toml")
    _git(tmp_path, "commit", "-q", "-m", "x")
    return tmp_path


def test_a_checkout_knows_its_commit_and_whether_it_changed(
    checkout_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = git_commit(root=checkout_folder)
    assert commit is not None
    assert len(commit) == 40 and int(commit, 16) > 0
    assert bench_version(root=checkout_folder) == "9.8.7"
    (checkout_folder / "run.csv").write_text("untracked results change nothing")
    monkeypatch.setenv("GIT_DIR", "/as/in/a/hook")
    assert git_commit(root=checkout_folder) == commit
    with (checkout_folder / "pyproject.toml").open("a") as file:
        file.write("\n")
    assert git_commit(root=checkout_folder) == f"{commit}-dirty"


def test_another_project_and_an_installed_package_have_no_commit(checkout_folder: Path) -> None:
    installed = checkout_folder / "lib" / "site-packages"
    installed.mkdir(parents=True)
    assert git_commit(root=installed) is None
    (checkout_folder / "pyproject.toml").write_text('[project]\nname = "other"\nversion = "1"\n')
    assert git_commit(root=checkout_folder) is None


def test_a_slow_or_missing_git_costs_a_blank_and_little_time(
    checkout_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = checkout_folder / "bin"
    commands.mkdir()
    monkeypatch.setenv("PATH", str(commands))
    assert git_commit(root=checkout_folder) is None
    (commands / "git").write_text("#!/bin/sh\nexec /bin/sleep 20\n")
    (commands / "git").chmod(0o755)
    monkeypatch.setattr(environment, "_GIT_LIMIT_S", 0.2)
    began_s = time.perf_counter()
    assert git_commit(root=checkout_folder) is None
    assert time.perf_counter() - began_s < 5.0
