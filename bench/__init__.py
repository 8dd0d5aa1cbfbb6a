"""Benchmark harness for accelerators: measures, emulates, compares, projects.

Importing it does nothing but define the version: no torch, no device query.
"""

__version__ = "0.1.0"
