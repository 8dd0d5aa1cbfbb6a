"""A program's version changes with the files that it imports from its own folder, and only so."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ASKS = "from bench.wrap.program_version import version_of_program\nprint(version_of_program())\n"


def version(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PWD": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("program", "imported", "words"),
    [
        ("train.py", "net.py", ["train.py"]),
        ("tool/train.py", "net.py", ["-m", "tool.train"]),
        ("tool/__main__.py", "net.py", ["-m", "tool"]),
    ],
)
def test_a_version_is_that_of_the_files_imported_from_the_programs_folder(
    tmp_path: Path, program: str, imported: str, words: list[str]
) -> None:
    (tmp_path / "tool").mkdir()
    (tmp_path / program).write_text(f"import net\n{ASKS}", encoding="utf-8")
    (tmp_path / imported).write_text("width = 1\n", encoding="utf-8")
    before = version(tmp_path, *words)
    (tmp_path / "unused.py").write_text("", encoding="utf-8")
    assert version(tmp_path, *words) == before
    (tmp_path / imported).write_text("width = 2\n", encoding="utf-8")
    assert version(tmp_path, *words) != before


def test_a_named_configuration_belongs_to_the_version(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(ASKS, encoding="utf-8")
    (tmp_path / "small.yaml").write_text("width: 1", encoding="utf-8")
    named = "--config=['small.yaml','other.yaml']"
    before = version(tmp_path, "train.py", named)
    (tmp_path / "small.yaml").write_text("width: 2", encoding="utf-8")
    assert version(tmp_path, "train.py", named) != before


def test_a_program_that_goes_to_another_folder_keeps_its_version(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "small.toml").write_text("width = 1", encoding="utf-8")
    found = []
    for comment in ("one", "two"):
        text = f"import os\nos.chdir('runs')  # {comment}\n{ASKS}"
        (tmp_path / "train.py").write_text(text, encoding="utf-8")
        found.append(version(tmp_path, "train.py", "small.toml"))
    (tmp_path / "small.toml").write_text("width = 2", encoding="utf-8")
    found.append(version(tmp_path, "train.py", "small.toml"))
    assert len(set(found)) == 3
