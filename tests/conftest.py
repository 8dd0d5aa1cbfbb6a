"""For all tests: an interrupt reaches the programs they start, however pytest was started."""

import signal

import pytest

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A shell's background job ignores SIGINT, and whatever it starts would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """--update-screens writes the golden screens of tests/report anew."""
    parser.addoption("--update-screens", action="store_true", help="write golden screens anew")
