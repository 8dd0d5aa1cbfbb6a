"""The start hook: torch calls it at the end of its own import, in every process that imports it.

An entry point of the group `torch.backends`, which torch loads by itself
(https://docs.pytorch.org/docs/stable/notes/extensions.html). It is found by the interpreter that
runs the program, so it survives `python -I`, torchrun, console scripts and processes that the
program spawns; a sitecustomize on PYTHONPATH does not survive `-I`. It does nothing unless
`bench wrap` has started the process.
"""

from __future__ import annotations

import os

FOLDER = "BENCH_WRAP_FOLDER"
"""Variable with the folder of the trial: its request, and the pipe to the parent."""


def start() -> None:
    """Watch this process's steps where it is part of a wrapped trial; never raises."""
    folder = os.environ.get(FOLDER)
    if folder is None:
        return
    from bench.wrap.watch import begin

    begin(folder)
