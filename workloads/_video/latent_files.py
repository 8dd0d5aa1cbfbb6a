"""A folder of stored latents, as those who train text-to-video nets precompute them. No torch.

Each file is `.safetensors` with `latents` (channels, frames, rows, columns) and `text` (tokens,
width), the embedding of its prompt. Only headers are read here: eight bytes with the length of a
JSON text, then that (https://huggingface.co/docs/safetensors).
"""

import json
from pathlib import Path
from typing import Any

from bench.core.errors import DataError
from workloads._video.video_cost import VideoNet

LARGEST_HEADER = 100_000_000
"""Bytes; the limit of the format's own library."""


def latent_files(folder: Path) -> list[Path]:
    """Return the files of a folder by name; `DataError` where there are none."""
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; give one of .safetensors with latents and text")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise DataError(f"{folder} has no .safetensors file; each has latents and text")
    return files


def check_latents(folder: Path, net: VideoNet) -> None:
    """Read the header of each file; `DataError` names one that does not fit the net."""
    wanted = (net.channels, *net.latent)
    for path in latent_files(folder):
        header = _header(path)
        latents, text = (_shape(header, name, path=path) for name in ("latents", "text"))
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


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "one number"


def _header(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(min(length, LARGEST_HEADER))
        header = json.loads(text)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as safetensors: {error}") from error
    if not isinstance(header, dict):
        raise DataError(f"{path} cannot be read as safetensors: its header is no object")
    ends = [one["data_offsets"][1] for name, one in header.items() if name != "__metadata__"]
    if path.stat().st_size < 8 + length + max(ends, default=0):
        raise DataError(f"{path} is cut off: its header names more bytes than it has")
    return header


def _shape(header: dict[str, Any], name: str, *, path: Path) -> tuple[int, ...]:
    if name not in header:
        there = ", ".join(sorted(one for one in header if one != "__metadata__"))
        raise DataError(f"{path} has no tensor {name!r}, only {there or 'none'}")
    return tuple(header[name]["shape"])
