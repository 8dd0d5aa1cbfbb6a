"""Sleeping until a moment, on a machine whose sleeps end late.

A sleep ends some 0.1 to 0.3 ms late, most on virtual machines. So it is asked to end early by what
sleeps here usually take too long, and what is left is spun away, letting other threads have the
interpreter. Where the processor is busy or another thread holds the interpreter it still ends late;
that is not corrected for, since compute would then have had the time.
"""

import time
from time import perf_counter

_NUM_SLEEPS = 9
_ASKED_S = 5e-4
_MOST_S = 5e-4
"""Longest spin: more would take from compute what it saves."""


def measure_oversleep_s() -> float:
    """Return what a short sleep takes too long here, at its median; costs some milliseconds."""
    late_s = []
    for _ in range(_NUM_SLEEPS):
        start_s = perf_counter()
        time.sleep(_ASKED_S)
        late_s.append(perf_counter() - start_s - _ASKED_S)
    return min(sorted(late_s)[_NUM_SLEEPS // 2], _MOST_S)


def sleep_until(end_s: float, *, early_s: float) -> None:
    """Return at `end_s` of `perf_counter`, never before; the last `early_s` are spun."""
    while (left_s := end_s - perf_counter()) > 0:
        # Sleeping for nothing lets another thread have the interpreter.
        time.sleep(left_s - early_s if left_s > early_s else 0)
