"""A Linux machine that is made up of files."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from bench.devices.host import cpu
from tests.devices.recorded_drivers import make_tree


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Let this process run on a machine of these files, on these processors."""
    monkeypatch.setattr(cpu.platform, "system", lambda: "Linux")
    for name in ("usable_cores", "usable_cpu_ids", "core_kinds"):
        monkeypatch.setattr(cpu, name, partial(getattr(cpu, name), root=tmp_path))

    def make(files: dict[str, str], allowed: str = "0-3") -> Path:
        monkeypatch.setattr(cpu, "allowed_cpu_ids", lambda: cpu.parse_cpu_list(allowed))
        make_tree(tmp_path, files)
        return tmp_path

    return make
