"""Figures of the code that come from a committed measurement are those of its document."""

import re
from pathlib import Path

from bench.measure.communication.modelled_link import CPU_TAX_COPIES

DOCUMENTS = Path(__file__).parents[2] / "results" / "validation"


def test_the_processors_tax_is_the_largest_that_was_fitted_on_real_ranks() -> None:
    reported = [
        re.search(r"tax \(([\d.]+) copies of each byte\)", document.read_text())
        for document in DOCUMENTS.glob("real-link*.md")
    ]
    fitted = [float(found[1]) for found in reported if found is not None]
    assert len(fitted) == len(reported) >= 2
    assert round(max(fitted)) == CPU_TAX_COPIES
