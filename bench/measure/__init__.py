"""One trial, in a process of its own: clock, warm-up, window, memory, correctness."""
