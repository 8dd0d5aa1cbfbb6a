"""Where the start hook was; environments that were installed before still name it."""

from gapbench_start import FOLDER, start

__all__ = ["FOLDER", "start"]
