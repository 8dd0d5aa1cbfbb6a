"""Measurements of minutes are left out of the normal suite."""

import pytest


@pytest.fixture(autouse=True)
def _only_when_timed(request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("--benchmark-enable"):
        pytest.skip("a measurement of minutes; run it with --benchmark-enable")
