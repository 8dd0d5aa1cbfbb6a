"""A folder of stored latents, as those who train text-to-video nets precompute them. No torch.

Each file is `.safetensors` with `latents` (channels, frames, rows, columns) and `text` (tokens,
width), the embedding of its prompt. A check reads all headers and, of some files, the numbers too,
but for bf16, which numpy does not know: those are looked at when they are loaded.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from bench.core.errors import DataError
from bench.workload import NUM_READ_WHOLE
from workloads._video.video_cost import VideoNet

TENSORS = ("latents", "text")
NUMPY_KINDS = ("F16", "F32", "F64")
LARGEST = float(np.finfo(np.float32).max)


def latent_files(folder: Path) -> list[Path]:
    """Return the files of a folder by name; `DataError` where there are none."""
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; give one of .safetensors with latents and text")
    files = sorted(one for one in folder.glob("*.safetensors") if not one.name.startswith("."))
    if not files:
        raise DataError(f"{folder} has no .safetensors file; each has latents and text")
    return files


def check_latents(folder: Path, net: VideoNet) -> None:
    """Read each header and some numbers; `DataError` names a file that does not fit the net."""
    wanted = (net.channels, *net.latent)
    for number, path in enumerate(latent_files(folder)):
        with opened(path, framework="np") as file:
            latents, text = (_shape(file, name, path=path) for name in TENSORS)
            known = [name for name in TENSORS if file.get_slice(name).get_dtype() in NUMPY_KINDS]
            for name in known if number < NUM_READ_WHOLE else ():
                largest = float(np.abs(file.get_tensor(name)).max(initial=0))
                check_finite(largest, name=name, path=path)
        if latents != wanted:
            how = ""
            if len(latents) == 4:
                sizes = "x".join(map(str, latents[1:]))
                how = f"; --set channels={latents[0]} --set latent={sizes}"
            raise DataError(f"{path}: latents are {_by(latents)}, this net's {_by(wanted)}{how}")
        if len(text) != 2 or text[0] > net.text_tokens or text[1] != net.text_dim:
            raise DataError(
                f"{path}: text is {_by(text)}, this net takes at most {net.text_tokens} tokens of "
                f"{net.text_dim}; --set text_tokens=... --set text_dim=..."
            )


def check_finite(largest: float, *, name: str, path: Path) -> None:
    """Raise `DataError` where the largest magnitude of a tensor is none in fp32, or NaN."""
    if not largest <= LARGEST:
        raise DataError(f"{path}: {name} holds values that are not finite in fp32 (NaN, infinity)")


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "one number"


@contextmanager
def opened(path: Path, *, framework: str) -> Iterator[Any]:
    """Yield the file, its header read and held to its size; tensors come as the framework's."""
    try:
        with safe_open(path, framework=framework) as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is cut off, or cannot be read as safetensors: {error}") from error


def _shape(file: Any, name: str, *, path: Path) -> tuple[int, ...]:
    if name not in file.keys():  # noqa: SIM118  # it is no mapping
        there = ", ".join(sorted(file.keys()))
        raise DataError(f"{path} has no tensor {name!r}, only {there or 'none'}")
    kept = file.get_slice(name)
    if not kept.get_dtype().startswith(("F", "BF")):
        raise DataError(f"{path}: {name} is of {kept.get_dtype()}; give floating-point numbers")
    return tuple(kept.get_shape())
