"""One look at the device for all runs in this process, and a cache of their own."""

import functools
from pathlib import Path

import pytest

from bench.measure.inspection import inspect_device
from bench.run import session

looked_at_once = functools.cache(inspect_device)


@pytest.fixture(autouse=True)
def one_look_at_the_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # no roof of another run
    monkeypatch.setattr(session, "inspect_device", looked_at_once)
