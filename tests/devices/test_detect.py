"""What is found, who made it, and what is not asked."""

import sys
import types
from unittest.mock import Mock

import pytest
import torch

from bench.core.errors import UsageError
from bench.devices.torch import backends, detect
from tests.devices.recorded_drivers import add_backend, choose_accelerator, refuse

GIB = 2**30


def build_torch_with(monkeypatch, *, cuda=None, hip=None):
    """Pretend that torch was built for CUDA or HIP."""
    for name, version in {"cuda": cuda, "hip": hip, "rocm": hip and "7.1.0"}.items():
        monkeypatch.setattr(torch.version, name, version, raising=False)


def install_tools(monkeypatch, *names):
    """Pretend that exactly these programs are on the path."""
    paths = {name: f"/usr/bin/{name}" for name in names}
    monkeypatch.setattr(backends.shutil, "which", paths.get)


@pytest.fixture(autouse=True)
def _bare_machine(monkeypatch):
    """No accelerator, no vendor tool and no vendor package, whatever this machine has."""
    for device_type in detect.IN_TREE_TYPES:
        add_backend(monkeypatch, device_type, is_available=False)
    choose_accelerator(monkeypatch, None)
    build_torch_with(monkeypatch)
    install_tools(monkeypatch)
    monkeypatch.setattr(detect, "load_packages", tuple)
    for name in ("registered_type", "memory_free_bytes", "open_telemetry"):
        monkeypatch.setattr(detect, name, lambda *_: None)


def labels():
    return [device.label for device in detect.survey().devices]


def add_cuda(monkeypatch, *names, broken=(), **functions):
    def get_device_properties(index):
        if index in broken:
            refuse()
        return types.SimpleNamespace(name=names[index], total_memory=32 * GIB)

    functions = {"get_device_properties": get_device_properties, **functions}
    add_backend(monkeypatch, "cuda", num_devices=len(names), **functions)


def add_type(monkeypatch, device_type, package=None, **functions):
    """A device type that a vendor's package has added."""
    if package:
        module = types.ModuleType(package)
        module.__version__ = "2.10.0"
        monkeypatch.setitem(sys.modules, package, module)
    if functions or package:
        chip = types.SimpleNamespace(name="chip")
        functions.setdefault("get_device_properties", lambda index: chip)
        add_backend(monkeypatch, device_type, **functions)
    monkeypatch.setattr(detect, "registered_type", lambda: device_type)


def test_the_best_device_comes_first_and_the_cpu_is_always_last(monkeypatch):
    assert (labels(), detect.find(None).label) == (["cpu"], "cpu")
    add_cuda(monkeypatch, "NVIDIA H200", "NVIDIA H200")
    choose_accelerator(monkeypatch, "cuda")
    assert labels() == ["cuda:0", "cuda:1", "cpu"]
    assert (detect.find(None).label, detect.find("cuda:1").index) == ("cuda:0", 1)
    # torch's own choice comes first and hides nothing.
    add_type(monkeypatch, "npu", is_available=True)
    choose_accelerator(monkeypatch, "npu")
    assert labels() == ["npu:0", "cuda:0", "cuda:1", "cpu"]
    assert detect.find(None).label == "npu:0"


def test_cpu_states_cores_and_memory_it_may_use(monkeypatch):
    monkeypatch.setattr(detect, "usable_cores", lambda: 3)
    monkeypatch.setattr(detect, "usable_memory_bytes", lambda: 5 * GIB)
    for name, vendor in (
        ("AMD EPYC 9654 96-Core Processor", "amd"),
        ("Intel(R) Xeon(R) Gold 6338", "intel"),
        ("Kunpeng-920", "huawei"),
        (None, None),
    ):
        monkeypatch.setattr(detect, "cpu_model", Mock(return_value=name))
        cpu = detect.find("cpu")
        assert (cpu.name, cpu.vendor) == (name or "CPU", vendor)
        assert (cpu.compute_units, cpu.memory_bytes) == (3, 5 * GIB)


def test_a_type_that_is_not_available_is_asked_nothing_more(monkeypatch):
    asked = []
    traps = dict.fromkeys(("device_count", "get_device_properties", "mem_get_info"), asked.append)
    build_torch_with(monkeypatch, cuda="13.0")
    add_backend(monkeypatch, "cuda", is_available=False, **traps)
    add_backend(monkeypatch, "xpu")
    for error in (RuntimeError, TypeError, ValueError):
        monkeypatch.setattr(torch.xpu, "is_available", Mock(side_effect=error("not here")))
        assert (labels(), asked) == (["cpu"], [])


@pytest.mark.parametrize(
    ("name", "shown", "vendor", "stack"),
    [
        ("NVIDIA H200", {"cuda": "13.0"}, "nvidia", "CUDA 13.0"),
        ("Quadro K1000M", {"cuda": "11.8"}, "nvidia", "CUDA 11.8"),
        ("AMD Instinct MI300X", {"hip": "7.1.25"}, "amd", "ROCm 7.1.0"),
        ("K100_AI", {"hip": "6.1"}, "hygon", "DTK (HIP 6.1)"),
        ("Iluvatar BI-V150", {"cuda": "10.2"}, "iluvatar", "CoreX (CUDA 10.2)"),
        ("MetaX C500", {"cuda": "11.6"}, "metax", "MACA (CUDA 11.6)"),
        ("4000", {"cuda": "11.6"}, "metax", "MACA (CUDA 11.6)"),
        ("PPU-ZW810E", {"cuda": "12.3"}, "alibaba", "PPU (CUDA 12.3)"),
        ("P800 OAM", {"cuda": "11.7"}, "baidu", "XPyTorch (CUDA 11.7)"),
        ("Mystery Accelerator", {"cuda": "12.0"}, None, "CUDA 12.0"),
        ("Mystery Accelerator", {"hip": "6.0"}, None, "ROCm 7.1.0"),
        # Where the name shows nothing, a package in this process, then a vendor's tool.
        ("device 0", {"module": "torch_xmlir", "tools": ["ixsmi"]}, "baidu", None),
        ("device 0", {"tools": ["ixsmi"]}, "iluvatar", None),
        ("device 0", {"tools": ["mx-smi"]}, "metax", None),
        ("device 0", {"tools": ["hy-smi"]}, "hygon", None),
        ("device 0", {"tools": ["nvidia-smi"]}, "nvidia", None),
        ("MetaX C500", {"module": "torch_xmlir", "tools": ["nvidia-smi"]}, "metax", None),
        ("NVIDIA A800-SXM4-80GB", {"tools": ["mx-smi", "ixsmi"]}, "nvidia", None),
    ],
)
def test_cuda_does_not_mean_nvidia(monkeypatch, name, shown, vendor, stack):
    build_torch_with(monkeypatch, cuda=shown.get("cuda"), hip=shown.get("hip"))
    install_tools(monkeypatch, *shown.get("tools", ()))
    if "module" in shown:
        monkeypatch.setitem(sys.modules, shown["module"], types.ModuleType(shown["module"]))
    add_cuda(monkeypatch, name)
    device = detect.find("cuda")
    assert (device.vendor, stack or device.stack) == (vendor, device.stack)


def test_added_types_have_their_vendor_and_package_or_torch_accelerator_alone(monkeypatch):
    for device_type, package, vendor in (
        ("npu", "torch_npu", "huawei"),
        ("mlu", "torch_mlu", "cambricon"),
        ("musa", "torch_musa", "moore threads"),
        ("gcu", "torch_gcu", "enflame"),
        ("supa", "torch_br", "biren"),
    ):
        add_type(monkeypatch, device_type, package)
        device = detect.find(f"{device_type}:0")
        assert (device.vendor, device.stack) == (vendor, f"{package} 2.10.0")
    choose_accelerator(monkeypatch, "novel")
    add_type(monkeypatch, "novel")
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(torch.accelerator, "get_memory_info", lambda index: (GIB, 2 * GIB))
    assert labels() == ["novel:0", "novel:1", "cpu"]
    device = detect.find("novel:1")
    assert (device.vendor, device.memory_bytes, device.memory_free_bytes) == (None, 2 * GIB, GIB)


def test_a_failing_device_does_not_hide_its_neighbour(monkeypatch):
    for broken in (0, 1):
        add_cuda(monkeypatch, "NVIDIA H200", "NVIDIA H200", broken={broken})
        here = detect.survey()
        assert [device.label for device in here.devices] == [f"cuda:{1 - broken}", "cpu"]
        assert here.problems == (f"cuda:{broken} does not answer",)
        with pytest.raises(UsageError, match=f"cuda:{broken} does not answer"):
            detect.find(f"cuda:{broken}")
    # A backend that describes nothing at all is kept.
    add_cuda(monkeypatch, "NVIDIA H200", "NVIDIA H200", broken={0, 1})
    assert labels() == ["cuda:0", "cuda:1", "cpu"]
    assert detect.find("cuda").memory_bytes is None


def test_what_properties_state_is_kept(monkeypatch):
    stated = types.SimpleNamespace(
        name="NVIDIA H200",
        total_memory=140 * GIB,
        multi_processor_count=132,
        uuid="aa-bb",
        pci_domain_id=0,
        pci_bus_id=0x3B,
        pci_device_id=0,
    )
    add_cuda(monkeypatch, "NVIDIA H200", get_device_properties=lambda index: stated)
    monkeypatch.setattr(detect, "memory_free_bytes", lambda device: 100 * GIB)
    device = detect.find("cuda")
    assert (device.uuid, device.compute_units) == ("aa-bb", 132)
    assert device.pci_bus_id == "00000000:3B:00.0"
    assert (device.memory_bytes, device.memory_free_bytes) == (140 * GIB, 100 * GIB)
    # The question for free memory makes a context, whose memory a trial would take for another's.
    asked = []
    add_cuda(monkeypatch, "AMD Instinct MI300X", mem_get_info=asked.append)
    assert (detect.find("cuda").memory_free_bytes, asked) == (None, [])


def test_apple_s_gpu_has_the_recommended_memory(monkeypatch):
    monkeypatch.setattr(detect, "usable_memory_bytes", lambda: 5 * GIB)
    monkeypatch.setattr(torch.backends.mps, "get_name", lambda: "Apple M3 Max", raising=False)
    monkeypatch.setattr(torch.backends.mps, "get_core_count", lambda: 40, raising=False)
    for recommended, num_bytes in ((lambda: 20 * GIB, 20 * GIB), (refuse, 5 * GIB)):
        add_backend(monkeypatch, "mps", recommended_max_memory=recommended)
        device = detect.find("mps")
        assert (device.name, device.vendor, device.stack) == ("Apple M3 Max", "apple", "Metal")
        assert (device.memory_bytes, device.compute_units) == (num_bytes, 40)


def test_a_device_that_is_not_here_names_those_that_are():
    for label in ("cuda", "cuda:7", "npu:0", "cpu:1"):
        for look in (detect.find, detect.locate):
            with pytest.raises(UsageError, match=r"is not one of cpu"):
                look(label)
    for label in ("", "cuda:", ":0", "cuda:-1", "cuda:01", "CUDA", "cuda 0", "gpu!", "cuda\n:0"):
        with pytest.raises(UsageError, match="try cpu, cuda") as caught:
            detect.find(label)
        assert "\n" not in str(caught.value)
    assert [detect.parse_label(text) for text in ("npu", " xpu:12 ")] == [("npu", 0), ("xpu", 12)]


NO_FILE = ImportError("libascendcl.so: cannot open shared object file")
NO_ACL = ModuleNotFoundError("No module named 'acl'", name="acl")
ONE_ALREADY = "torch has one added device type already: npu"


@pytest.mark.parametrize(
    ("module", "error", "taken", "expected"),
    [
        ("torch_npu", NO_FILE, None, f"failed ImportError: {NO_FILE}"),
        ("torch_npu", NO_ACL, None, f"failed ModuleNotFoundError: {NO_ACL}"),
        ("torch_npu", RuntimeError("it needs\n2.7"), None, "failed RuntimeError: it needs 2.7"),
        ("torch_npu", OSError("undefined symbol"), None, "failed OSError: undefined symbol"),
        ("nothing", ImportError(), None, "missing not installed"),
        # What torch has loaded is not imported again, and a second added type is not tried.
        ("torch_npu", None, None, "loaded with torch"),
        ("torch_mlu", RuntimeError("already registered"), "npu", f"skipped {ONE_ALREADY}"),
        ("torch_npu", RuntimeError("broken"), "off", "skipped TORCH_DEVICE_BACKEND_AUTOLOAD=0"),
    ],
)
def test_packages_are_imported_once_and_none_stops_us(monkeypatch, module, error, taken, expected):
    def import_module(name):
        if name == module:
            raise error
        raise ModuleNotFoundError(f"No module named {name!r}", name=name.partition(".")[0])

    monkeypatch.setenv("TORCH_DEVICE_BACKEND_AUTOLOAD", "0" if taken == "off" else "1")
    monkeypatch.setattr(backends, "registered_type", lambda: None if taken == "off" else taken)
    monkeypatch.setattr(backends.importlib, "import_module", import_module)
    if error is None:
        monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
    backends.load_packages.cache_clear()
    states = {item.module: f"{item.state} {item.reason}" for item in backends.load_packages()}
    backends.load_packages.cache_clear()
    assert list(states) == list(backends.PACKAGES)
    assert states.get(module, states["torch_npu"]) == expected
