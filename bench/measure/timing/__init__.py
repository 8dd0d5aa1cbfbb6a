"""How long and how steadily: the clock, warm-up, the window, what it sums up to."""
