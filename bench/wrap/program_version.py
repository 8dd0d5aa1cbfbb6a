"""What code a program is: a hash of the files that it imported from its own folder."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from pathlib import Path

CONFIGURATION = (".json", ".yaml", ".yml", ".toml")


def version_of_program() -> str:
    """Eight hex digits of the code that this program imported from its own folder.

    Its folder is the script's, of a package that `python -m` runs the one that holds the package;
    where that is an installed one, such as `python -m monai.bundle run`, it is the folder that it
    was started in. Configuration files that its arguments name belong to it.
    """
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    script = Path(sys.argv[0]).resolve()
    if not script.is_file():  # the program has gone to another folder
        script = Path(getattr(main, "__file__", None) or script).resolve()
    folder = script.parent
    if spec is not None and spec.name != "__main__":
        folder = folder.parents[spec.name.count(".") - 1] if "." in spec.name else folder
        if _is_installed(folder):
            folder = Path.cwd()
    paths = {script, *_named_files(sys.argv[1:])}
    for module in list(sys.modules.values()):
        name = getattr(module, "__file__", None)
        path = Path(name).resolve() if isinstance(name, str) else None
        if path is not None and path.is_relative_to(folder) and not _is_installed(path):
            paths.add(path)
    digest = hashlib.sha256()
    for path in sorted(paths):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


def _is_installed(path: Path) -> bool:
    return not {"site-packages", "dist-packages"}.isdisjoint(path.parts)


def _named_files(arguments: list[str]) -> list[Path]:
    words = [word for argument in arguments for word in re.split(r"[=,\[\]'\"\s]", argument)]
    started_in = os.environ.get("PWD", "")  # the program may have gone to another folder
    named = [word for word in words if word.endswith(CONFIGURATION)]
    paths = [Path(folder, word).resolve() for word in named for folder in ("", started_in)]
    return [path for path in paths if path.is_file()]
