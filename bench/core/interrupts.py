"""Being ended from outside: every polite signal is an interrupt, and none comes between two writes.

A scheduler and `docker stop` send SIGTERM, a lost connection SIGHUP. Both end what runs as Ctrl-C
does, which Python raises as KeyboardInterrupt. Signals belong to the main thread; elsewhere nothing
is changed.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_POLITE = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


@contextmanager
def as_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt, with the signal's name, for what would end the process at once.

    A signal that is ignored, as by nohup, stays so.
    """
    is_main = threading.current_thread() is threading.main_thread()
    ending = [one for one in _POLITE if is_main and signal.getsignal(one) is signal.SIG_DFL]
    for number in ending:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number in ending:
            signal.signal(number, signal.SIG_DFL)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


@contextmanager
def held_back() -> Iterator[None]:
    """Let interrupts wait until the block has ended."""
    is_main = threading.current_thread() is threading.main_thread()
    handlers = {one: signal.getsignal(one) for one in _POLITE if is_main}
    handlers = {one: handler for one, handler in handlers.items() if callable(handler)}
    arrived: list[int] = []
    for number in handlers:
        signal.signal(number, lambda number, _frame: arrived.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for number in arrived[:1]:
        signal.raise_signal(number)
