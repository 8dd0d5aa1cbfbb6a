"""Keeps Python's collector of cyclic garbage out of verbs that read much and end soon.

Importing pandas and matplotlib and holding 100,000 rows makes many objects and hardly any garbage.
The collector goes through all of them again and again, and once more when the process ends: a
fifth of the time of a large `bench report`.
"""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collection() -> Iterator[None]:
    """Collect nothing while the verb runs, and nothing of what it leaves when the process ends."""
    was_enabled = gc.isenabled()
    gc.disable()
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
