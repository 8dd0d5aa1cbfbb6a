"""The ledger and the reference rows come with a wheel, and are found where it was installed."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from bench.analysis.claims.ledger import shipped_folder
from bench.core.errors import DataError

ROOT = Path(__file__).resolve().parents[2]


def test_packaging_names_every_file_of_the_ledger_and_every_reference_row() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    shipped = project["tool"]["setuptools"]["data-files"]
    assert shipped == {
        "share/gapbench/seeds": ["seeds/*.yaml"],
        "share/gapbench/reference": ["results/reference/*.csv"],
    }
    assert len(list((ROOT / "seeds").glob("*.yaml"))) == 5


def test_without_a_checkout_the_installed_folder_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The installer's list of files says where: the prefix is two folders above the packages."""
    packages = tmp_path / "lib" / "packages"
    information = packages / "gapbench-1.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Name: gapbench\nVersion: 1\n", encoding="utf-8")
    listed = "../../share/gapbench/seeds/F0.yaml,,\n"
    (information / "RECORD").write_text(listed, encoding="utf-8")
    monkeypatch.syspath_prepend(str(packages))
    with pytest.raises(DataError, match="install gapbench again"):
        shipped_folder("seeds", checkout="no-such-folder")
    installed = tmp_path / "share" / "gapbench" / "seeds"
    installed.mkdir(parents=True)
    (installed / "F0.yaml").touch()
    assert shipped_folder("seeds", checkout="no-such-folder").resolve() == installed


@pytest.mark.slow
def test_claims_are_judged_from_an_installed_wheel(tmp_path: Path) -> None:
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns(".git", "build", "*.egg-info", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, source, ignore=ignored)
    wheel = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation"]
    subprocess.run([*wheel, "-q", "-w", str(tmp_path)], cwd=source, check=True)
    place = tmp_path / "place"
    (built,) = tmp_path.glob("*.whl")
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "-q", "--target", str(place)]
    subprocess.run([*install, str(built)], check=True)
    done = subprocess.run(
        [sys.executable, "-m", "bench", "claims", "h20-cores", "cpu-and-gpu"],
        cwd=tmp_path, env={"PYTHONPATH": str(place), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "HOLDS WHEN" in done.stdout, "the reference rows were found as well"
