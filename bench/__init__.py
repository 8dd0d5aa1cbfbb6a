"""Benchmark harness for accelerators: measures, emulates, compares, projects.

Importing it does nothing but define the version: no torch, no device query.
"""

__version__ = "0.1.0"

_on_mark = []  # type: ignore[var-annotated]  # what `bench wrap` wants called


def mark_step() -> None:
    """End a step of a program under `bench wrap --step mark`; elsewhere it does nothing."""
    for mark in _on_mark:
        mark()
