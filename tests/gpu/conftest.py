"""All tests of this folder run on a real CUDA device, and are skipped where there is none."""

from pathlib import Path

import pytest
import torch


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(scope="session", autouse=True)
def cuda() -> None:
    """Skip before any other fixture looks for the device."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device is available")
