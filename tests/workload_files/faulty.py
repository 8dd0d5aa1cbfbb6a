"""A workload for the fake device whose steps fail in the way that `fault` names."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timed import Workload as Timed

from bench.workload import Phase


def _hang_stubbornly() -> None:
    """Hang with a child process, where neither ends when politely asked to."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    time.sleep(1000)


def _fail(error: Exception) -> None:
    raise error


def _die_talking() -> None:
    print("the last words", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


FAULTS: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "hang": lambda: time.sleep(1000),
    "hang_stubbornly": _hang_stubbornly,
    "memory": lambda: _fail(MemoryError("no room for the batch")),
    "unsupported": lambda: _fail(NotImplementedError("operator frobnicate is missing")),
    "error": lambda: _fail(KeyError("first line\nsecond line")),
    "kill": _die_talking,
    "segfault": lambda: ctypes.string_at(0),
    "exit": lambda: sys.exit(0),
    "interrupt": lambda: signal.raise_signal(signal.SIGINT),
}


@dataclass(frozen=True, kw_only=True)
class Workload(Timed):
    """Fails on purpose."""

    phases = (Phase(name="infer", item="sample"),)

    fault: str = "none"
    above_batch: int = 0
    """The fault shows at larger batches only."""
    once: str = ""
    """Path of a file that the first step makes: the fault shows only where there is none yet."""

    def simulated_step_s(self, phase: Phase) -> float:
        is_due = not (self.once and Path(self.once).exists())
        if self.batch > self.above_batch and is_due:
            if self.once:
                Path(self.once).touch()
            FAULTS[self.fault]()
        return 0.1 * self.batch
