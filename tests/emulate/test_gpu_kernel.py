"""Kernels without a toolkit: compiled by the real NVRTC, launched on a driver that notes calls."""

import contextlib
import ctypes
import os
import sys
from collections import UserDict
from types import SimpleNamespace

import pytest
import torch

from bench.core.errors import MeasurementError
from bench.emulate import limited_device
from bench.emulate.link import device_clock, gpu_kernel

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="NVRTC's wheel is for Linux")
SOURCES = [device_clock.SOURCE, limited_device.COUNT_UNITS]
ARCHITECTURES = [70, 80, 90, 100, 120]


class Driver:
    """Keeps what is launched; a kernel that the loaded binary does not name is not found."""

    def __init__(self):
        self.launched = []
        self.binary = b""
        self.code = 0

    def cuModuleLoadData(self, module, binary):  # noqa: N802
        self.binary = binary
        return 0

    def cuModuleGetFunction(self, function, module, name):  # noqa: N802
        function._obj.value = len(self.launched) + 1
        return 0 if b"\0" + name + b"\0" in self.binary else 500

    def cuLaunchKernel(self, function, *given):  # noqa: N802
        *shape, _, stream, places, _ = given
        read = [ctypes.c_int64.from_address(place).value for place in places]
        self.launched.append((shape[0], shape[3], stream.value, read))
        return self.code

    def cuGetErrorName(self, code, text):  # noqa: N802
        text._obj.value = b"CUDA_ERROR_INVALID_CONTEXT"
        return 0


@pytest.fixture
def driver(monkeypatch):
    made, load = Driver(), ctypes.CDLL

    def load_library(name, *args, **given):
        return made if name == "libcuda.so.1" else load(name, *args, **given)

    monkeypatch.setattr(ctypes, "CDLL", load_library)
    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *size, device=None, **given: zeros(*size, **given))
    unit = SimpleNamespace(major=9, minor=0, multi_processor_count=132)
    for name, value in {
        "get_device_capability": (9, 0),
        "get_device_properties": unit,
        "device": contextlib.nullcontext(),
        "synchronize": None,
        "current_device": 0,
        "current_stream": SimpleNamespace(cuda_stream=7),
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda *device, value=value: value)
    return made


class Environment(UserDict):
    def __getitem__(self, name):
        assert name not in ("CUDA_HOME", "CUDA_PATH"), name
        return super().__getitem__(name)


@pytest.fixture
def no_toolkit(monkeypatch):
    """No nvcc on PATH, and whoever asks for the toolkit's folder fails the test."""

    def fail(*args, **given):
        raise AssertionError("torch's paths of the toolkit are asked for")

    from torch.utils import cpp_extension

    for name in ("include_paths", "_find_cuda_home"):
        monkeypatch.setattr(cpp_extension, name, fail)
    for name in ("CUDA_HOME", "CUDA_PATH", "PATH"):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setattr(os, "environ", Environment(os.environ))


def ptx_of(source):
    program, options = ctypes.c_void_p(), (ctypes.c_char_p * 1)(b"--gpu-architecture=compute_90")
    nvrtc, given = gpu_kernel.load_nvrtc(), source.encode()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), given, b"bench.cu", 0, None, None)
    assert nvrtc.nvrtcCompileProgram(program, 1, options) == 0
    return gpu_kernel._read(program, what="PTX").decode()


def known_architectures() -> set[int]:
    nvrtc, number = gpu_kernel.load_nvrtc(), ctypes.c_int()
    assert nvrtc.nvrtcGetNumSupportedArchs(ctypes.byref(number)) == 0
    known = (ctypes.c_int * number.value)()
    assert nvrtc.nvrtcGetSupportedArchs(known) == 0
    return set(known)


def test_sources_need_no_headers_and_contention_has_several_loads_under_way():
    left_out = set(ARCHITECTURES) - known_architectures()
    assert left_out <= {70}, "CUDA 13 has left Volta behind, and torch for it runs on none"
    for source in SOURCES:
        assert "#include" not in source
        for architecture in set(ARCHITECTURES) - left_out:
            binary = gpu_kernel.compile_source(source, architecture=f"sm_{architecture}")
            assert binary.startswith(b"\x7fELF")
        ptx = ptx_of(source)
        assert ".param .u64" in ptx and ".param .u32" not in ptx, "all are launched as 64 bits"
    ptx = ptx_of(device_clock.SOURCE)
    loop = ptx[ptx.index(".entry hold(") :]
    first_store = loop.index("st.global.v4.f32")
    assert loop.count("ld.global.v4.f32", 0, first_store) >= 8
    assert ".global.add.u64" in loop, "what was moved is counted"


def test_a_link_and_the_count_of_units_need_no_toolkit(driver, no_toolkit):
    gpu_kernel.load_nvrtc.cache_clear()
    kernels = device_clock.DelayKernels(torch.device("cpu"), capacity=9)
    stream = SimpleNamespace(cuda_stream=2**47)
    kernels.stamp(3, stream=stream)
    kernels.reserve(6, level=1, duration_s=2.5, stream=stream)
    kernels.hold(6, units=0, traffic_bytes=1.0, stream=stream)
    one_thread = (1, 1, 2**47)
    at, link = kernels._stamps.data_ptr(), kernels._free[1].data_ptr()
    assert driver.launched[0] == (*one_thread, [at, 3])
    assert driver.launched[1] == (*one_thread, [link, at, 6, 2_500_000_000])
    assert driver.launched[2][:3] == one_thread
    limited_device.count_units(torch.device("cpu"))
    assert driver.launched[3][:3] == (132 * 64, 32, 7)
    assert driver.launched[3][3][1] == 20_000


def test_traffic_is_counted_where_it_was_moved_and_a_driver_that_refuses_is_named(driver):
    kernels = device_clock.DelayKernels(torch.device("cpu"), capacity=3)
    stream = SimpleNamespace(cuda_stream=1)
    for units in (0, 16, 16):
        kernels.hold(0, units=units, traffic_bytes=1e6, stream=stream)
    counters = {read[-1] for *_, read in driver.launched}
    assert [read[-2] for *_, read in driver.launched] == [0, 10**6, 10**6]
    ctypes.c_int64.from_address(*counters).value = 1_500_000
    assert kernels.take_traffic() == (2_000_000, 1_500_000)
    assert kernels.take_traffic() == (0, 0)
    kernels = gpu_kernel.GpuKernels(limited_device.COUNT_UNITS, device=torch.device("cpu"))
    with pytest.raises(MeasurementError, match=r"INVALID_CONTEXT \(500\)"):
        kernels.launch("no_such_kernel", stream=stream)
    driver.code = 201
    with pytest.raises(MeasurementError, match=r"INVALID_CONTEXT \(201\)"):
        kernels.launch("count_units", 0, 0, stream=stream)


def test_no_nvrtc_at_all_says_what_to_install(monkeypatch):
    gpu_kernel.load_nvrtc.cache_clear()
    monkeypatch.setattr(gpu_kernel, "_nvrtc_names", lambda: iter(["libno.so", "libc.so.6"]))
    with pytest.raises(MeasurementError, match=r"tried libno.so, libc.so.6.*nvidia-cuda-nvrtc"):
        gpu_kernel.load_nvrtc()
