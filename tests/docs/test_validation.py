"""Figures of the code that come from a committed measurement are those of its document."""

import re
from pathlib import Path

from bench.measure.modelled_link import CPU_TAX_COPIES

DOCUMENT = Path(__file__).parents[2] / "results" / "validation" / "real-link.md"


def test_the_processors_tax_is_the_one_fitted_on_real_ranks() -> None:
    told = re.search(r"tax \(([\d.]+) copies of each byte\)", DOCUMENT.read_text())
    assert told is not None
    assert round(float(told[1])) == CPU_TAX_COPIES
