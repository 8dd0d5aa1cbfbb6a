"""The start hook: torch calls it at the end of its own import, in every process that imports it.

An entry point of the group `torch.backends`, which torch loads by itself
(https://docs.pytorch.org/docs/stable/notes/extensions.html). It is found by the interpreter that
runs the program, in its installed packages: so it survives `python -I`, `-E`, torchrun, console
scripts, shebangs, and processes that are spawned or come from a fork server; nothing is written
anywhere. A sitecustomize on PYTHONPATH would survive neither `-I` nor `-E`.

A module by itself, and of this name, because a program's own bench.py would hide the package, and
what an entry point raises ends the program's `import torch`. Outside `bench wrap` it looks at one
variable and does nothing else.
"""

from __future__ import annotations

import importlib.util
import os
import sys

FOLDER = "BENCH_WRAP_FOLDER"
"""Variable with the folder of the trial: its request, and the pipes to the parent."""


def start() -> None:
    """Watch this process where it is part of a wrapped trial; never raises."""
    folder = os.environ.get(FOLDER)
    if folder is None:
        return
    try:
        _begin(folder)
    except Exception as error:  # whatever is wrong with us, the program is to run
        print(f"bench: this process is not measured: {_words(error)}", file=sys.stderr)


def _begin(folder: str) -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    is_hidden = not _is_ours()
    if is_hidden:
        sys.path.insert(0, here)
    try:
        from bench.wrap.watch import begin
    finally:
        if is_hidden:
            sys.path.remove(here)
    begin(folder)


def _is_ours() -> bool:
    """Whether `import bench` gives ours, and not a bench.py that lies beside the program."""
    found = importlib.util.find_spec("bench")
    places = () if found is None else found.submodule_search_locations or ()
    return any(os.path.isdir(os.path.join(place, "wrap")) for place in places)


def _words(error: Exception) -> str:
    hiding = getattr(sys.modules.get("bench"), "__file__", None)
    if isinstance(error, ImportError) and hiding is not None:
        return f"{error}; the program imported another module called bench before: {hiding}"
    return f"{type(error).__name__}: {error}"
