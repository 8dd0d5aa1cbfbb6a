"""What torch reports about itself and its libraries, for the environment record."""

from __future__ import annotations

import hashlib
import os
from importlib import metadata
from typing import Any

from bench.core.nouns import Device

MIOPEN_FIND_MODE = "DYNAMIC_HYBRID"
"""How trials let MIOpen search where the user sets nothing: without solvers that need compiling.

The other modes that search compile for minutes, anew for each shape of a convolution
(https://rocm.docs.amd.com/projects/MIOpen/en/latest/reference/env_variables.html).
"""


def torch_facts(device: Device) -> dict[str, Any]:
    """Return versions and switches; what is absent is None. Identifiers are hashed."""
    import torch

    backends: Any = torch.backends
    cudnn = backends.cudnn.version() if backends.cudnn.is_available() else None
    if cudnn and torch.version.hip:
        mode = os.environ.get("MIOPEN_FIND_MODE", MIOPEN_FIND_MODE)
        cudnn = f"MIOpen {cudnn}, find mode {mode}"
    onednn = backends.mkldnn.is_available() if device.type == "cpu" else None
    return {
        "torch": torch.__version__,
        "torch_git": torch.version.git_version,
        "cuda_runtime": torch.version.cuda,
        "hip_runtime": torch.version.hip,
        "cudnn": str(cudnn) if cudnn else None,
        "onednn": "oneDNN of this torch" if onednn else None,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "triton": _version("triton"),
        "monai": _version("monai"),
        "transformers": _version("transformers"),
        "numpy": _version("numpy"),
        "device_name": device.name,
        "device_stack": device.stack,
        "device_uuid_hash": _hashed(device.uuid),
    }


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _hashed(identifier: str | None) -> str | None:
    return hashlib.sha256(identifier.encode()).hexdigest()[:16] if identifier else None
