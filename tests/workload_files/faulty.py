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


def _hang() -> None:
    time.sleep(1000)


def _hang_stubbornly() -> None:
    """Hang with a child process, both deaf to a polite request to end."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    time.sleep(1000)


def _out_of_memory() -> None:
    raise MemoryError("no room for the batch")


def _unsupported() -> None:
    raise NotImplementedError("operator frobnicate is missing")


def _error() -> None:
    raise KeyError("first line\nsecond line")


def _die_talking() -> None:
    print("the last words", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


FAULTS: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "hang": _hang,
    "hang_stubbornly": _hang_stubbornly,
    "memory": _out_of_memory,
    "unsupported": _unsupported,
    "error": _error,
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
        if self.batch > self.above_batch and self._is_due():
            FAULTS[self.fault]()
        return 0.1 * self.batch

    def _is_due(self) -> bool:
        if not self.once:
            return True
        marker = Path(self.once)
        is_first = not marker.exists()
        marker.touch()
        return is_first
