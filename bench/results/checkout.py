"""Which bench this is: its version, and the commit when it runs from a checkout.

A checkout is a folder that has both our pyproject.toml and .git; an installed package sits inside
whatever repository its environment does, which says nothing about bench. git gets two seconds, so
that a slow network folder costs a blank cell and not a run.
"""

import os
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

import bench

DISTRIBUTION = "gapbench"
_GIT_LIMIT_S = 2.0


def source_root() -> Path:
    """Folder that holds the `bench` package."""
    return Path(bench.__file__).resolve().parent.parent


def bench_version(*, root: Path | None = None) -> str | None:
    """Version in the checkout's pyproject.toml, else the installed one's."""
    from_checkout = _pyproject_version(root or source_root())
    if from_checkout is not None:
        return from_checkout
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return None


def git_commit(*, root: Path | None = None) -> str | None:
    """Commit, with -dirty when a tracked file is changed; None when this is no checkout."""
    folder = root or source_root()
    if _pyproject_version(folder) is None or not (folder / ".git").exists():
        return None
    commit = _git("rev-parse", "HEAD", folder=folder)
    changed = _git("status", "--porcelain", "--untracked-files=no", folder=folder)
    if not commit or changed is None:
        return None
    return f"{commit}-dirty" if changed else commit


def _pyproject_version(folder: Path) -> str | None:
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    except (OSError, ValueError, KeyError):
        return None
    return str(project.get("version")) if project.get("name") == DISTRIBUTION else None


def _git(*arguments: str, folder: Path) -> str | None:
    # GIT_DIR and its like would answer for another repository, as inside a git hook.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=_GIT_LIMIT_S,
            env=clean,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip()
