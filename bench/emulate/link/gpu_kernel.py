"""CUDA kernels compiled by the NVRTC that torch brings, and launched through the driver.

`torch.cuda._compile_kernel` adds the toolkit's headers to its options and so fails where CUDA_HOME
is not set: with torch from pip and in `-runtime` images. The sources here include nothing, so no
toolkit is needed. Each argument of a kernel is a pointer or an integer of 64 bits.
"""

import ctypes
import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from bench.core.errors import MeasurementError

_HELP = "torch for CUDA brings it: install torch again, or nvidia-cuda-nvrtc; or --mode simulated"


class GpuKernels:
    """The kernels of one source, compiled for one device and loaded there."""

    def __init__(self, source: str, *, device: torch.device) -> None:
        major, minor = torch.cuda.get_device_capability(device)
        binary = compile_source(source, architecture=f"sm_{major}{minor}")
        self._device = device
        self._driver = ctypes.CDLL("libcuda.so.1")
        self._module = ctypes.c_void_p()
        self._functions: dict[str, ctypes.c_void_p] = {}
        with torch.cuda.device(device):
            # Loading takes a context, and the first allocation makes it.
            torch.zeros(1, device=device)
            self._check(self._driver.cuModuleLoadData(ctypes.byref(self._module), binary))

    def launch(
        self,
        name: str,
        *args: Tensor | int,
        stream: torch.cuda.Stream,
        grid: int = 1,
        block: int = 1,
    ) -> None:
        """Launch the kernel called `name` on `stream`, with so many blocks and threads of each."""
        driver = self._driver
        if name not in self._functions:
            function = self._functions[name] = ctypes.c_void_p()
            code = driver.cuModuleGetFunction(ctypes.byref(function), self._module, name.encode())
            self._check(code)
        values = [one.data_ptr() if isinstance(one, Tensor) else one for one in args]
        cells = (ctypes.c_uint64 * len(args))(*values)
        first, cell_bytes = ctypes.addressof(cells), ctypes.sizeof(ctypes.c_uint64)
        places = (ctypes.c_void_p * len(args))(*(first + cell_bytes * i for i in range(len(args))))
        shape, queue = (grid, 1, 1, block, 1, 1), ctypes.c_void_p(stream.cuda_stream)
        # A program may use a device that is not its current one, and a launch needs its context.
        with torch.cuda.device(self._device):
            code = driver.cuLaunchKernel(self._functions[name], *shape, 0, queue, places, None)
        self._check(code)

    def _check(self, code: int) -> None:
        if code:
            text = ctypes.c_char_p()
            self._driver.cuGetErrorName(code, ctypes.byref(text))
            raise MeasurementError(
                f"the CUDA driver answers {(text.value or b'unknown').decode()} ({code})"
            )


def compile_source(source: str, *, architecture: str) -> bytes:
    """Return the binary of CUDA source for an architecture such as `sm_90`."""
    nvrtc = load_nvrtc()
    program = ctypes.c_void_p()
    _check_nvrtc(
        nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"bench.cu", 0, None, None)
    )
    options = (ctypes.c_char_p * 1)(f"--gpu-architecture={architecture}".encode())
    try:
        if nvrtc.nvrtcCompileProgram(program, len(options), options):
            log = _read(program, what="ProgramLog").rstrip(b"\0").decode().strip()
            raise MeasurementError(f"NVRTC compiles no kernel for {architecture}: {log}")
        return _read(program, what="CUBIN")
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _read(program: ctypes.c_void_p, *, what: str) -> bytes:
    nvrtc, size = load_nvrtc(), ctypes.c_size_t()
    _check_nvrtc(getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check_nvrtc(getattr(nvrtc, f"nvrtcGet{what}")(program, buffer))
    return buffer.raw


def _check_nvrtc(code: int) -> None:
    if code:
        raise MeasurementError(f"NVRTC fails with its error {code}")


@cache
def load_nvrtc() -> ctypes.CDLL:
    """Load the NVRTC of torch's CUDA version; with torch for CPUs, any that is installed."""
    tried = []
    for name in _nvrtc_names():
        try:
            library = ctypes.CDLL(name)
            library.nvrtcCompileProgram  # noqa: B018  # raises where the library lacks it
            return library
        except (OSError, AttributeError):
            tried.append(name)
    raise MeasurementError(f"NVRTC is not found (tried {', '.join(tried)}); {_HELP}")


def _nvrtc_names() -> Iterator[str]:
    major = torch.version.cuda.split(".")[0] if torch.version.cuda else None
    # Linked to NVRTC with the path that torch's build gave it.
    yield str(Path(torch.__file__).parent / "lib" / "libcaffe2_nvrtc.so")
    # Of the packages that torch depends on: nvidia/cuda_nvrtc until CUDA 12, nvidia/cu13 later.
    package = importlib.util.find_spec("nvidia")
    for root in (package and package.submodule_search_locations) or ():
        yield from map(str, sorted(Path(root).glob(f"*/lib/libnvrtc.so.{major or '[0-9]*'}")))
    yield f"libnvrtc.so.{major}" if major else "libnvrtc.so"
