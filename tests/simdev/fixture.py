"""A pytest plugin that builds the simulated device and lays it out as an installed package.

`simdev_path` is a folder to put on PYTHONPATH: in any process started with `simdev_env`,
`import torch` finds the package's entry point and registers two devices called `simdev`. The test
process itself never loads it, because it would become the current accelerator there.
"""

import hashlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import pytest

HERE = Path(__file__).parent
LIBRARY = "libtorch_simdev.so"
ENTRY_POINTS = "[torch.backends]\ntorch_simdev = torch_simdev:autoload\n"
METADATA = "Metadata-Version: 2.1\nName: torch-simdev\nVersion: 0.1\n"


def missing_for_build() -> str | None:
    """What this machine lacks to build or to use the simulated device, or None."""
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None:
        return f"simdev needs a C++ compiler, and {compiler!r} is not on PATH"
    if shutil.which("ninja", path=build_environment()["PATH"]) is None:
        return "simdev needs ninja to build, and it is not on PATH"
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if torch.cuda.is_available():
            return "simdev would take precedence over this machine's CUDA device"
    return None


def build_environment() -> dict[str, str]:
    """The environment of the build: ninja may lie beside a Python that is not activated."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "PATH": path, "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}


def cached_library() -> Path:
    """Where the library for these sources, this torch and this Python is kept between sessions."""
    digest = hashlib.sha256()
    for source in sorted([*HERE.glob("csrc/*"), HERE / "build.py"]):
        digest.update(source.name.encode() + source.read_bytes())
    versions = (importlib.metadata.version("torch"), platform.python_version(), platform.machine())
    digest.update(repr((versions, os.environ.get("CXX"))).encode())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "gapbench-tests" / f"simdev-{digest.hexdigest()[:16]}" / LIBRARY


def build(library: Path) -> None:
    """Compile into a folder of our own and move the result: two sessions may build at once."""
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        command, env = [sys.executable, str(HERE / "build.py"), folder], build_environment()
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"simdev does not build:\n{(done.stdout + done.stderr)[-8000:]}")
        (Path(folder) / LIBRARY).replace(library)


@pytest.fixture(scope="session")
def simdev_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the simulated device as pip would have installed it."""
    if (reason := missing_for_build()) is not None:
        pytest.skip(reason)
    library = cached_library()
    if not library.exists():
        build(library)
    folder = tmp_path_factory.mktemp("simdev")
    package = folder / "torch_simdev"
    shutil.copytree(HERE / "torch_simdev", package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(library, package / LIBRARY)
    info = folder / "torch_simdev-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA)
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    return folder


@pytest.fixture(scope="session")
def simdev_env(simdev_path: Path) -> dict[str, str]:
    """A whole environment for a child process; add SIMDEV_QUIRKS to it to imitate a vendor."""
    paths = [str(simdev_path), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    environment.pop("SIMDEV_QUIRKS", None)
    environment.pop("TORCH_DEVICE_BACKEND_AUTOLOAD", None)
    return environment
