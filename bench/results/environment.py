"""The environment of a run: a record to read, an identity to compare, and columns for each row.

Rows whose environments differ are compared only with a list of what differs. The identity
leaves out what changes by itself (load, time, temperature, free memory), which machine of several
alike it was, and the commit of bench, which has its own column. torch is not imported here: what it
knows comes from the trial's process. Nothing identifies a person: environment variables come from a
list, home folders are cut out of paths, the host name and device identifiers are hashed.

bench has a commit only in a checkout, a folder that has both our pyproject.toml and .git: an
installed package sits inside whatever repository its environment does. git gets two seconds, so
that a slow network folder costs a blank cell and not a run.
"""

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import bench
from bench.results.schema import Row

DISTRIBUTION = "gapbench"
SOURCE_ROOT = Path(bench.__file__).resolve().parent.parent
_GIT_LIMIT_S = 2.0
_VARIABLES = """
    OMP_NUM_THREADS OMP_PROC_BIND OMP_PLACES OMP_SCHEDULE GOMP_CPU_AFFINITY KMP_AFFINITY
    KMP_BLOCKTIME MKL_NUM_THREADS MKL_DYNAMIC OPENBLAS_NUM_THREADS MALLOC_ARENA_MAX MALLOC_CONF
    LD_PRELOAD ONEDNN_MAX_CPU_ISA DNNL_MAX_CPU_ISA ATEN_CPU_CAPABILITY
    CUDA_VISIBLE_DEVICES CUDA_DEVICE_ORDER CUDA_LAUNCH_BLOCKING CUDA_DEVICE_MAX_CONNECTIONS
    CUDA_MODULE_LOADING CUBLAS_WORKSPACE_CONFIG NVIDIA_TF32_OVERRIDE
    TORCH_ALLOW_TF32_CUBLAS_OVERRIDE TORCH_CUDNN_V8_API_DISABLED
    HIP_VISIBLE_DEVICES ROCR_VISIBLE_DEVICES HSA_OVERRIDE_GFX_VERSION MIOPEN_FIND_MODE
    TORCH_BLAS_PREFER_HIPBLASLT PYTORCH_TUNABLEOP_ENABLED
    ZE_AFFINITY_MASK ONEAPI_DEVICE_SELECTOR ASCEND_RT_VISIBLE_DEVICES MLU_VISIBLE_DEVICES
    MUSA_VISIBLE_DEVICES TASK_QUEUE_ENABLE
    PYTORCH_ALLOC_CONF PYTORCH_CUDA_ALLOC_CONF PYTORCH_HIP_ALLOC_CONF PYTORCH_NO_CUDA_MEMORY_CACHING
    PYTORCH_ENABLE_MPS_FALLBACK PYTORCH_MPS_HIGH_WATERMARK_RATIO
    TORCH_COMPILE_DISABLE TORCHDYNAMO_DISABLE TORCHINDUCTOR_MAX_AUTOTUNE
    NCCL_ALGO NCCL_PROTO NCCL_P2P_DISABLE NCCL_P2P_LEVEL NCCL_IB_DISABLE NCCL_MIN_NCHANNELS
    NCCL_MAX_NCHANNELS NCCL_NVLS_ENABLE
"""
"""Environment variables that change what is measured; all others are never recorded."""

_CHANGING = "load time uptime utc free available used usage utilization temp temperature pid uuid"
"""A fact whose name has one of these words is left out of the identity."""

_NOT_IDENTITY = ("now", "host_hash", "bench")
_HOME = re.compile(r"/(?:home|Users)/[^/\s:;,\"']+|[A-Za-z]:\\Users\\[^\\\s;,\"']+")
_IDENTIFIER = re.compile(r"\b(GPU|MIG)-[0-9a-fA-F-]{8,}")


def fingerprint(
    *,
    torch_facts: Mapping[str, object],
    machine: Mapping[str, Mapping[str, object]],
    environ: Mapping[str, str],
) -> dict[str, object]:
    """Everything worth knowing about where a run ran, without naming anyone.

    `machine` has the parts cpu, memory, system, and now: what is different a minute later.
    """
    found = {
        "host_hash": host_hash(),
        **machine,
        "python": {
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "is_gil_enabled": getattr(sys, "_is_gil_enabled", lambda: True)(),
        },
        "bench": {"version": bench_version(), "git_commit": git_commit()},
        "torch": dict(torch_facts),
        "variables": _variables(environ),
        "now": {
            "utc": datetime.now(UTC).isoformat(timespec="seconds"),
            **machine.get("now", {}),
        },
    }
    return {name: _anonymous(part) for name, part in found.items()}


def env_id(environment: Mapping[str, object]) -> str:
    """SHA-256 of what does not change by itself; equal on machines that are alike."""
    stable = {name: part for name, part in environment.items() if name not in _NOT_IDENTITY}
    text = json.dumps(_stable(stable), sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def host_hash() -> str:
    """Hash of the host name: distinguishes machines without naming them."""
    return hashlib.sha256(f"gapbench host {platform.node()}".encode()).hexdigest()[:16]


def row_columns(environment: Mapping[str, Any]) -> Row:
    """Cells that every row of the run repeats."""
    parts = ("torch", "cpu", "system", "bench", "python")
    torch, cpu, system, package, python = (environment.get(name, {}) for name in parts)
    drivers = system.get("drivers", {})
    driver = drivers.get("nvidia") if torch.get("cuda_runtime") else None
    driver = drivers.get("amdgpu") if torch.get("hip_runtime") else driver
    cells: dict[str, object] = {
        "env_id": env_id(environment),
        "driver_version": torch.get("driver_version") or driver,
        "runtime_version": torch.get("cuda_runtime") or torch.get("hip_runtime"),
        "torch_version": torch.get("torch"),
        "dnn_version": torch.get("cudnn") or torch.get("onednn"),
        "python_version": python.get("version"),
        "bench_version": package.get("version"),
        "git_commit": package.get("git_commit"),
        "cpu_model": cpu.get("model"),
        "os_version": f"{system.get('name')}, {system.get('kernel')}",
        "host_hash": environment.get("host_hash"),
    }
    return {name: None if value is None else str(value) for name, value in cells.items()}


def _variables(environ: Mapping[str, str]) -> dict[str, str]:
    kept = {name: environ[name] for name in sorted(environ.keys() & _VARIABLES.split())}
    if preloaded := kept.get("LD_PRELOAD"):
        # Which allocator it is matters, where it lies does not and may name someone.
        kept["LD_PRELOAD"] = " ".join(Path(one).name for one in re.split(r"[\s:]+", preloaded))
    return kept


def _stable(value: object) -> object:
    if isinstance(value, Mapping):
        return {
            name: _stable(item)
            for name, item in value.items()
            if not set(_CHANGING.split()) & set(str(name).lower().split("_"))
        }
    return [_stable(item) for item in value] if isinstance(value, list | tuple) else value


def _anonymous(value: object) -> object:
    """Cut home folders out of texts and hash device identifiers, at any depth."""
    match value:
        case str():
            home = str(Path.home())
            text = value.encode(errors="replace").decode()  # a variable may hold any bytes
            text = text.replace(home, "~") if len(home) > 1 else text
            return _IDENTIFIER.sub(_hashed_identifier, _HOME.sub("~", text))
        case Mapping():
            return {str(name): _anonymous(item) for name, item in value.items()}
        case list() | tuple():
            return [_anonymous(item) for item in value]
        case _:
            return value


def _hashed_identifier(match: re.Match[str]) -> str:
    return f"{match[1]}-{hashlib.sha256(match[0].encode()).hexdigest()[:16]}"


def bench_version(*, root: Path = SOURCE_ROOT) -> str | None:
    """Version in the checkout's pyproject.toml, else the installed one's."""
    try:
        return _pyproject_version(root) or metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return None


def git_commit(*, root: Path = SOURCE_ROOT) -> str | None:
    """Commit, with -dirty when a tracked file is changed; None when this is no checkout."""
    if _pyproject_version(root) is None or not (root / ".git").exists():
        return None
    # GIT_DIR and its like would answer for another repository, as inside a git hook.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    # Not `describe --dirty`, which locks and rewrites the index all the same.
    status = ["status", "--porcelain=v2", "--branch", "--no-ahead-behind", "--untracked-files=no"]
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(root), *status],
            capture_output=True,
            text=True,
            check=True,
            timeout=_GIT_LIMIT_S,
            env=clean,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    found = re.search(r"^# branch\.oid ([0-9a-f]+)$", done.stdout, re.MULTILINE)
    is_changed = re.search(r"^[^#]", done.stdout, re.MULTILINE) is not None
    return f"{found[1]}{'-dirty' if is_changed else ''}" if found else None


def _pyproject_version(folder: Path) -> str | None:
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    except (OSError, ValueError, KeyError):
        return None
    return str(project.get("version")) if project.get("name") == DISTRIBUTION else None
