"""For all tests: an interrupt reaches the programs they start, however pytest was started."""

import signal

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A shell's background job ignores SIGINT, and whatever it starts would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
