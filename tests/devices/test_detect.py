"""What is found, who made it, and what is not asked."""

import sys
import types

import pytest
import torch
from fake_torch import (
    add_backend,
    build_torch_with,
    choose_accelerator,
    install_tools,
    properties,
)
from hypothesis import given
from hypothesis import strategies as st

from bench.core.errors import UsageError
from bench.devices.torch import backends, detect

GIB = 2**30


@pytest.fixture(autouse=True)
def _bare_machine(monkeypatch):
    """No accelerator, no vendor tool and no vendor package, whatever this machine has."""
    for device_type in detect.IN_TREE_TYPES:
        add_backend(monkeypatch, device_type, is_available=False)
    choose_accelerator(monkeypatch, None)
    build_torch_with(monkeypatch)
    install_tools(monkeypatch)
    monkeypatch.setattr(detect, "load_packages", tuple)
    monkeypatch.setattr(detect, "registered_type", lambda: None)
    monkeypatch.setattr(detect, "memory_free_bytes", lambda device: None)
    monkeypatch.setattr(detect, "open_telemetry", lambda device: None)


def labels():
    return [device.label for device in detect.survey().devices]


def add_cuda(monkeypatch, *names, **functions):
    add_backend(
        monkeypatch,
        "cuda",
        num_devices=len(names),
        get_device_properties=lambda index: properties(names[index], total_memory=32 * GIB),
        **functions,
    )
    choose_accelerator(monkeypatch, "cuda")


def test_the_cpu_is_always_found_and_last(monkeypatch):
    assert labels() == ["cpu"]
    add_cuda(monkeypatch, "NVIDIA H200")
    assert labels() == ["cuda:0", "cpu"]


@pytest.mark.parametrize(
    ("name", "vendor"),
    [
        ("AMD EPYC 9654 96-Core Processor", "amd"),
        ("Intel(R) Xeon(R) Gold 6338", "intel"),
        ("Kunpeng-920", "huawei"),
        (None, None),
    ],
)
def test_cpu_states_cores_and_memory_it_may_use(monkeypatch, name, vendor):
    monkeypatch.setattr(detect, "usable_cores", lambda: 3)
    monkeypatch.setattr(detect, "usable_memory_bytes", lambda: 5 * GIB)
    monkeypatch.setattr(detect, "cpu_model", lambda: name)
    cpu = detect.find("cpu")
    assert (cpu.name, cpu.vendor) == (name or "CPU", vendor)
    assert (cpu.compute_units, cpu.memory_bytes) == (3, 5 * GIB)


def test_cuda_build_without_a_gpu_is_asked_nothing_more(monkeypatch):
    asked = []
    traps = dict.fromkeys(("device_count", "get_device_properties", "mem_get_info"), asked.append)
    build_torch_with(monkeypatch, cuda="13.0")
    add_backend(monkeypatch, "cuda", is_available=False, **traps)
    assert (labels(), asked) == (["cpu"], [])


@pytest.mark.parametrize("error", [RuntimeError, TypeError, ValueError])
def test_is_available_that_raises_counts_as_no(monkeypatch, error):
    def refuse_so(*_):
        raise error("not here")

    add_backend(monkeypatch, "xpu")
    monkeypatch.setattr(torch.xpu, "is_available", refuse_so)
    assert labels() == ["cpu"]


@pytest.mark.parametrize(
    ("name", "built_with", "vendor", "stack"),
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
    ],
)
def test_cuda_does_not_mean_nvidia(monkeypatch, name, built_with, vendor, stack):
    build_torch_with(monkeypatch, **built_with)
    add_cuda(monkeypatch, name)
    device = detect.find("cuda")
    assert (device.vendor, device.stack) == (vendor, stack)


@pytest.mark.parametrize(
    ("name", "module", "tools", "vendor"),
    [
        ("device 0", "", (), None),
        ("device 0", "torch_xmlir", ("ixsmi",), "baidu"),
        ("device 0", "", ("ixsmi",), "iluvatar"),
        ("device 0", "", ("mx-smi",), "metax"),
        ("device 0", "", ("hy-smi",), "hygon"),
        ("device 0", "", ("nvidia-smi",), "nvidia"),
        ("MetaX C500", "torch_xmlir", ("nvidia-smi",), "metax"),
        ("NVIDIA A800-SXM4-80GB", "", ("mx-smi", "ixsmi"), "nvidia"),
    ],
)
def test_name_then_package_then_tool_shows_the_maker(monkeypatch, name, module, tools, vendor):
    build_torch_with(monkeypatch, cuda="12.0")
    add_cuda(monkeypatch, name)
    install_tools(monkeypatch, *tools)
    if module:
        monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
    assert detect.find("cuda").vendor == vendor


@pytest.mark.parametrize(
    ("device_type", "package", "vendor"),
    [
        ("npu", "torch_npu", "huawei"),
        ("mlu", "torch_mlu", "cambricon"),
        ("musa", "torch_musa", "moore threads"),
        ("gcu", "torch_gcu", "enflame"),
        ("supa", "torch_br", "biren"),
    ],
)
def test_added_device_types_have_their_vendor_and_package(
    monkeypatch, device_type, package, vendor
):
    module = types.ModuleType(package)
    module.__version__ = "2.10.0"
    monkeypatch.setitem(sys.modules, package, module)
    add_backend(monkeypatch, device_type, get_device_properties=lambda index: properties("chip"))
    monkeypatch.setattr(detect, "registered_type", lambda: device_type)
    device = detect.find(f"{device_type}:0")
    assert (device.vendor, device.stack) == (vendor, f"{package} 2.10.0")


def test_unknown_backend_works_through_torch_accelerator_alone(monkeypatch):
    choose_accelerator(monkeypatch, "novel")
    monkeypatch.setattr(detect, "registered_type", lambda: "novel")
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(torch.accelerator, "get_memory_info", lambda index: (GIB, 2 * GIB))
    assert labels() == ["novel:0", "novel:1", "cpu"]
    device = detect.find("novel:1")
    assert (device.vendor, device.memory_bytes, device.memory_free_bytes) == (None, 2 * GIB, GIB)


def test_torch_s_own_choice_comes_first_and_hides_nothing(monkeypatch):
    add_cuda(monkeypatch, "NVIDIA H200")
    add_backend(monkeypatch, "npu", get_device_properties=lambda index: properties("Ascend"))
    choose_accelerator(monkeypatch, "npu")
    monkeypatch.setattr(detect, "registered_type", lambda: "npu")
    assert labels() == ["npu:0", "cuda:0", "cpu"]
    assert detect.find(None).label == "npu:0"


def fail_on(broken, name="NVIDIA H200"):
    def get_device_properties(index):
        if index in broken:
            raise RuntimeError("CUDA error: unknown error")
        return properties(name, total_memory=32 * GIB)

    return get_device_properties


@pytest.mark.parametrize("broken", [0, 1])
def test_a_failing_device_does_not_hide_its_neighbour(monkeypatch, broken):
    add_backend(monkeypatch, "cuda", num_devices=2, get_device_properties=fail_on({broken}))
    choose_accelerator(monkeypatch, None)
    here = detect.survey()
    assert [device.label for device in here.devices] == [f"cuda:{1 - broken}", "cpu"]
    assert here.problems == (f"cuda:{broken} does not answer",)
    with pytest.raises(UsageError, match=f"cuda:{broken} does not answer"):
        detect.find(f"cuda:{broken}")


def test_a_backend_that_describes_nothing_is_kept(monkeypatch):
    add_backend(monkeypatch, "cuda", num_devices=2, get_device_properties=fail_on({0, 1}))
    assert labels() == ["cuda:0", "cuda:1", "cpu"]
    assert detect.find("cuda").memory_bytes is None


def test_what_properties_state_is_kept(monkeypatch):
    stated = properties(
        "NVIDIA H200",
        total_memory=140 * GIB,
        multi_processor_count=132,
        uuid="aa-bb",
        pci_domain_id=0,
        pci_bus_id=0x3B,
        pci_device_id=0,
    )
    add_backend(monkeypatch, "cuda", get_device_properties=lambda index: stated)
    monkeypatch.setattr(detect, "memory_free_bytes", lambda device: 100 * GIB)
    device = detect.find("cuda")
    assert device.pci_bus_id == "00000000:3B:00.0"
    assert (device.uuid, device.compute_units) == ("aa-bb", 132)
    assert (device.memory_bytes, device.memory_free_bytes) == (140 * GIB, 100 * GIB)


def test_a_device_that_states_its_size_is_not_asked_for_free_memory(monkeypatch):
    """The question makes a context, whose memory a trial would take for somebody else's."""

    def mem_get_info(index):
        raise AssertionError("asked")

    add_cuda(monkeypatch, "AMD Instinct MI300X", mem_get_info=mem_get_info)
    assert detect.find("cuda").memory_free_bytes is None


def test_apple_s_gpu_has_the_recommended_memory(monkeypatch):
    add_backend(monkeypatch, "mps", recommended_max_memory=lambda: 20 * GIB)
    monkeypatch.setattr(torch.backends.mps, "get_name", lambda: "Apple M3 Max", raising=False)
    device = detect.find("mps")
    assert (device.name, device.vendor, device.memory_bytes) == ("Apple M3 Max", "apple", 20 * GIB)


def test_no_label_means_the_best_device(monkeypatch):
    assert detect.find(None).label == "cpu"
    add_cuda(monkeypatch, "NVIDIA H200", "NVIDIA H200")
    assert detect.find(None).label == "cuda:0"
    assert detect.find("cuda:1").index == 1


@pytest.mark.parametrize("label", ["cuda", "cuda:7", "npu:0", "cpu:1"])
def test_a_device_that_is_not_here_names_those_that_are(label):
    with pytest.raises(UsageError, match=r"is not one of cpu"):
        detect.find(label)
    with pytest.raises(UsageError, match=r"is not one of cpu"):
        detect.locate(label)


@pytest.mark.parametrize(
    "label", ["", "cuda:", ":0", "cuda:-1", "cuda:01", "CUDA", "cuda 0", "gpu!"]
)
def test_a_text_that_is_no_label_says_what_one_is(label):
    with pytest.raises(UsageError, match="try cpu, cuda"):
        detect.find(label)


@given(st.text(max_size=30) | st.from_regex(r"[a-z][a-z_]{0,20}(:[0-9]{1,5})?", fullmatch=True))
def test_any_text_is_a_label_or_a_usage_error(text):
    try:
        device_type, index = detect.parse_label(text)
    except UsageError as error:
        assert "\n" not in str(error)
    else:
        assert text.strip() in {f"{device_type}:{index}", *([device_type] if index == 0 else [])}


class TestPackages:
    """Vendor packages are imported once, and none may stop the harness."""

    @pytest.fixture(autouse=True)
    def _fresh(self, monkeypatch):
        monkeypatch.delenv("TORCH_DEVICE_BACKEND_AUTOLOAD", raising=False)
        monkeypatch.setattr(backends, "registered_type", lambda: None)
        backends.load_packages.cache_clear()
        yield
        backends.load_packages.cache_clear()

    def states(self):
        return {item.module: (item.state, item.reason) for item in backends.load_packages()}

    def importing(self, monkeypatch, module, error):
        def import_module(name):
            if name == module:
                raise error
            raise ModuleNotFoundError(f"No module named {name!r}", name=name.partition(".")[0])

        monkeypatch.setattr(backends.importlib, "import_module", import_module)

    @pytest.mark.parametrize(
        "error",
        [
            ImportError("libascendcl.so: cannot open shared object file"),
            ModuleNotFoundError("No module named 'acl'", name="acl"),
            RuntimeError("torch_npu needs torch 2.7\nsee the table"),
            OSError("libcndrv.so: undefined symbol"),
        ],
    )
    def test_a_package_that_cannot_load_is_told_with_its_reason(self, monkeypatch, error):
        self.importing(monkeypatch, "torch_npu", error)
        state, reason = self.states()["torch_npu"]
        assert state == "failed"
        assert reason.startswith(f"{type(error).__name__}: {str(error).splitlines()[0]}")
        assert "\n" not in reason

    def test_a_package_that_is_not_installed_is_missing(self, monkeypatch):
        self.importing(monkeypatch, "nothing", ImportError())
        assert {state for state, _ in self.states().values()} == {"missing"}
        assert list(self.states()) == list(backends.PACKAGES)

    def test_a_package_that_torch_loaded_is_not_imported_again(self, monkeypatch):
        self.importing(monkeypatch, "torch_npu", RuntimeError("second import"))
        monkeypatch.setitem(sys.modules, "torch_npu", types.ModuleType("torch_npu"))
        assert self.states()["torch_npu"] == ("loaded", "with torch")

    def test_a_second_added_type_is_not_tried(self, monkeypatch):
        self.importing(monkeypatch, "torch_mlu", RuntimeError("already registered"))
        monkeypatch.setattr(backends, "registered_type", lambda: "npu")
        state, reason = self.states()["torch_mlu"]
        assert (state, "npu" in reason) == ("skipped", True)

    def test_switching_autoload_off_is_honoured(self, monkeypatch):
        self.importing(monkeypatch, "torch_npu", RuntimeError("breaks torch"))
        monkeypatch.setenv("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
        assert self.states()["torch_npu"] == ("skipped", "TORCH_DEVICE_BACKEND_AUTOLOAD=0")
