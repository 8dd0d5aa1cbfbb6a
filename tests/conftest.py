"""For all tests: an interrupt reaches the programs they start; none judges this machine's speed."""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any speed")
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A shell's background job ignores SIGINT, and whatever it starts would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """--update-screens writes the golden screens of tests/report anew."""
    parser.addoption("--update-screens", action="store_true", help="write golden screens anew")


@pytest.fixture
def shared_case(tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a folder of `../shared/cases`, inputs after what people reported; else skip."""

    def copied(name: str) -> Path:
        folder = Path(__file__).parents[2] / "shared" / "cases" / name
        if not folder.is_dir():
            pytest.skip(f"{folder} is not on this machine")
        return Path(shutil.copytree(folder, tmp_path / name, dirs_exist_ok=True))

    return copied
