"""Readers of power, heat, clocks and memory, and the sums over a window."""
