"""Emulated and throttled steps against two real ranks over a link of known width.

Takes minutes and needs root and tc: `pytest -m slow tests/netns -s`. With --write-document the
tables go to results/validation/real-link.md.
"""

from __future__ import annotations

import datetime
import math
from pathlib import Path

import pytest

from tests.netns import document
from tests.netns.experiment import Experiment, fit_line, median_error, rank_processes
from tests.netns.shaped import missing, shaped_pair

DOCUMENT = Path(__file__).resolve().parents[2] / "results" / "validation" / "real-link.md"


def test_a_line_is_fitted_from_collectives_alone() -> None:
    times_s = {size: 2 * 3e-4 + size / 25e6 for size in (16_384, 65_536, 262_144, 1_048_576)}
    alpha_s, bytes_per_s = fit_line(times_s)
    assert math.isclose(alpha_s, 3e-4, rel_tol=1e-6)
    assert math.isclose(bytes_per_s, 25e6, rel_tol=1e-6)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_emulated_steps_take_as_long_as_real_ones(request: pytest.FixtureRequest) -> None:
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    with shaped_pair() as pair, rank_processes(pair) as ranks:
        found = Experiment(pair, ranks, rounds=5, steps=8).measure()
    text = document.document(found, date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"))
    print("\n" + text)
    if request.config.getoption("write_document", default=False):
        DOCUMENT.parent.mkdir(parents=True, exist_ok=True)
        DOCUMENT.write_text(text, encoding="utf-8")
    scored = [point for point in found.points if not point.is_fitted]
    dominated = median_error([point for point in scored if point.is_dominated], mode="taxed")
    elsewhere = median_error([point for point in scored if not point.is_dominated], mode="taxed")
    assert dominated is not None
    assert dominated <= 0.05
    assert elsewhere is not None
    assert elsewhere <= 0.10
