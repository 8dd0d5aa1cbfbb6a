"""Compiles the simulated device into a shared library: `python build.py FOLDER`.

Run in a process of its own, because torch's builder also loads what it has built, and a registered
backend would become the current accelerator of the whole test session.
"""

import sys
from pathlib import Path


def main(folder: Path) -> None:
    from torch.utils import cpp_extension

    sources = sorted((Path(__file__).parent / "csrc").glob("*.cpp"))
    cpp_extension.load(
        name="libtorch_simdev",
        sources=[str(source) for source in sources],
        extra_cflags=["-O1", "-g0"],
        build_directory=str(folder),
        is_python_module=False,
        verbose=True,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
