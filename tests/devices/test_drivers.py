"""Readers over recorded drivers and made-up /sys trees."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.core.nouns import Device
from bench.devices.telemetry import amd_smi, nvml, nvml_links
from bench.devices.telemetry.amd_smi import AmdTelemetry, import_amdsmi, open_amd
from bench.devices.telemetry.common import Baseline, Sample
from bench.devices.telemetry.nvml import NvmlTelemetry, open_nvml
from bench.devices.telemetry.readers import open_rapl, open_telemetry
from tests.devices import recorded_drivers as recorded
from tests.devices.recorded_drivers import MISSING, RecordedAmdSmi, RecordedNvml

GPU = Device(
    type="cuda", index=3, name="H100", vendor="nvidia", stack="CUDA 13.0", memory_bytes=None
)
AMD = replace(GPU, index=0, name="AMD Instinct MI300X", vendor="amd", pci_bus_id="0000:00:00.0")


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 12.5)


def nvml_reader(**readings: Any) -> NvmlTelemetry:
    return NvmlTelemetry(RecordedNvml(**readings), handle="handle 0")


def open_recorded_amd(device: Device = AMD, **readings: Any) -> AmdTelemetry | None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(amd_smi, "import_amdsmi", lambda: RecordedAmdSmi(**readings))
        return open_amd(device)


def amd_sample(**readings: Any) -> Sample:
    telemetry = open_recorded_amd(**readings)
    assert telemetry is not None
    return telemetry.sample()


def test_nvml_readings_are_in_base_units() -> None:
    assert nvml_reader().sample() == Sample(
        time_s=12.5,
        power_w=250.0,
        energy_j=7.0,
        temperature_c=55.0,
        sm_clock_hz=1.755e9,
        throttle_reasons=frozenset({"sw_power_cap", "sw_thermal"}),
        used_bytes=3 * 2**30,
        utilization_frac=0.4,
    )
    assert nvml_reader().baseline() == Baseline(
        used_bytes=3 * 2**30,
        utilization_frac=0.4,
        power_limit_w=600.0,
        power_limit_default_w=700.0,
        driver_version="580.95",
        ecc_uncorrected=0,
        hot_s=2.5,
        sm_clock_max_hz=1.98e9,
        pcie_width=16,
        pcie_width_max=16,
        has_persistence=True,
        has_mig=False,
    )


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        ({"nvmlDeviceGetFieldValues": None}, {"power_w": 111.0}),
        ({"nvmlDeviceGetFieldValues": recorded.instant_power(0, error=3)}, {"power_w": 111.0}),
        (
            {
                "nvmlDeviceGetCurrentClocksEventReasons": MISSING,
                "nvmlDeviceGetCurrentClocksThrottleReasons": 0x80,
            },
            {"throttle_reasons": {"power_brake"}},
        ),
        # Idle is not a reason that limits clocks.
        (
            {"nvmlDeviceGetCurrentClocksEventReasons": 0x01},
            {"throttle_reasons": set()},
        ),
        # A slice of a device has no energy of its own.
        (
            {"nvmlDeviceIsMigDeviceHandle": 1},
            {"power_w": None, "energy_j": None, "temperature_c": 55.0},
        ),
        ({"nvmlDeviceGetMigMode": [1, 1]}, {"power_w": None, "energy_j": None}),
        # A superchip's counter covers the module: used where its power can be checked.
        ({"nvmlDeviceGetName": "NVIDIA GH200 480GB"}, {"energy_j": 7.0, "power_w": 250.0}),
        (
            {"nvmlDeviceGetName": "NVIDIA GH200 480GB", "nvmlDeviceGetFieldValues": None},
            {"energy_j": None, "power_w": 111.0},
        ),
    ],
)
def test_what_nvml_offers_instead_is_read(
    readings: dict[str, Any], expected: dict[str, Any]
) -> None:
    sample = nvml_reader(**readings).sample()
    assert {name: getattr(sample, name) for name in expected} == expected


def test_what_the_driver_refuses_is_blank_and_the_rest_is_read() -> None:
    telemetry = nvml_reader(
        nvmlDeviceGetTotalEnergyConsumption=None,
        nvmlDeviceGetTotalEccErrors=None,
        nvmlDeviceGetViolationStatus=None,
        nvmlDeviceGetCurrentClocksEventReasons=None,
    )
    sample = telemetry.sample(with_memory=False)
    assert sample == Sample(time_s=12.5, power_w=250.0, temperature_c=55.0, sm_clock_hz=1.755e9)
    assert telemetry.baseline().hot_s is None
    assert telemetry.available == ("power", "temperature", "sm_clock", "memory")


def test_scope_is_the_module_where_the_counter_covers_it() -> None:
    assert nvml_reader().scope == "gpu"
    assert nvml_reader(nvmlDeviceGetName="NVIDIA GH200 480GB").scope == "module"
    for name, scope in (("AMD Instinct MI250X / MI250", "module"), (AMD.name, "gpu")):
        telemetry = open_recorded_amd(replace(AMD, name=name))
        assert telemetry is not None and telemetry.scope == scope


@pytest.mark.parametrize(
    ("known", "is_found"),
    [
        ({"uuid": "1234"}, True),
        ({"uuid": "GPU-1234"}, True),
        ({"uuid": "9", "pci_bus_id": "0000:17:00.0"}, True),
        ({}, True),
        ({"uuid": "9"}, False),
        ({"pci_bus_id": "0000:99:00.0"}, False),
    ],
)
def test_an_nvidia_device_is_matched_by_uuid_then_address_then_being_the_only_one(
    monkeypatch: pytest.MonkeyPatch, known: dict[str, str], is_found: bool
) -> None:
    driver = RecordedNvml()
    monkeypatch.setattr(nvml, "import_nvml", lambda: driver)
    telemetry = open_nvml(replace(GPU, **known))
    assert (telemetry is not None) == is_found
    assert driver.calls.count("nvmlShutdown") == (0 if is_found else 1)
    if telemetry is not None:
        telemetry.close()
        assert driver.calls.count("nvmlShutdown") == 1


def test_amd_readings_are_in_base_units() -> None:
    telemetry = open_recorded_amd()
    assert telemetry is not None
    sample, base = telemetry.sample(), telemetry.baseline()
    assert sample.energy_j == pytest.approx(30.6)
    assert (sample.power_w, sample.temperature_c, sample.sm_clock_hz) == (300.0, 60.0, 1.3e9)
    assert (sample.used_bytes, sample.utilization_frac) == (512 * 2**20, None)
    assert (base.power_limit_w, base.power_limit_default_w) == (500.0, 750.0)
    assert (base.ecc_uncorrected, base.sm_clock_max_hz) == (None, 2.1e9)


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        # Releases 6 and 7 call the same field by other names.
        (
            {"amdsmi_get_power_info": {"current_socket_power": "N/A", "average_socket_power": 90}},
            {"power_w": 90},
        ),
        ({"amdsmi_get_power_info": {"socket_power": 410}}, {"power_w": 410}),
        ({"amdsmi_get_power_info": {"socket_power": 2**32 - 1}}, {"power_w": None}),
        ({"amdsmi_get_power_info": {"average_socket_power": 65_535}}, {"power_w": None}),
        ({"amdsmi_get_power_info": {"average_socket_power": 0}}, {"power_w": None}),
        (
            {"amdsmi_get_energy_count": {"energy_accumulator": 2**64 - 1, "counter_resolution": 1}},
            {"energy_j": None},
        ),
        ({"amdsmi_get_energy_count": None}, {"energy_j": None}),
        ({"amdsmi_get_clock_info": {"cur_clk": 1_200}}, {"sm_clock_hz": 1.2e9}),
        ({"amdsmi_get_clock_info": MISSING}, {"sm_clock_hz": None, "power_w": 300}),
        (
            {"amdsmi_get_temp_metric": lambda h, kind, m: None if kind == "hotspot" else 61},
            {"temperature_c": 61},
        ),
    ],
)
def test_amd_readings_that_are_none_stay_blank_and_old_names_are_read(
    readings: dict[str, Any], expected: dict[str, Any]
) -> None:
    sample = amd_sample(**readings)
    assert {name: getattr(sample, name) for name in expected} == expected


@pytest.mark.parametrize("error", [KeyError("power_cap"), AttributeError("undefined symbol")])
def test_an_amd_binding_that_does_not_fit_its_driver_leaves_blanks(error: Exception) -> None:
    def fail(handle: int, *_: object) -> None:
        raise error

    calls = {name: fail for name in recorded.MI300X if name.startswith("amdsmi_get_p")}
    calls["amdsmi_get_processor_handles"] = recorded.MI300X["amdsmi_get_processor_handles"]
    telemetry = open_recorded_amd(**calls)
    assert telemetry is not None
    assert telemetry.sample().power_w is None
    assert telemetry.baseline().power_limit_w is None


@pytest.mark.parametrize("error", ["AttributeError('symbol')", "KeyError('x')", "RuntimeError()"])
def test_an_amd_binding_that_fails_at_import_is_as_good_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    (tmp_path / "amdsmi.py").write_text(f"raise {error}")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert import_amdsmi() is None


@pytest.mark.parametrize("pci_bus_id", [None, "0000:07:00.0"])
def test_an_amd_device_is_never_guessed_among_several(pci_bus_id: str | None) -> None:
    assert open_recorded_amd(replace(AMD, pci_bus_id=pci_bus_id)) is None


def package(root: Path, name: str, *, kind: str, energy_uj: int) -> Path:
    directory = root / "sys/class/powercap" / name
    directory.mkdir(parents=True)
    (directory / "name").write_text(kind + "\n")
    (directory / "energy_uj").write_text(f"{energy_uj}\n")
    (directory / "max_energy_range_uj").write_text("1000\n")
    return directory / "energy_uj"


def test_packages_are_added_up_and_their_parts_are_not(tmp_path: Path) -> None:
    first = package(tmp_path, "intel-rapl:0", kind="package-0", energy_uj=100)
    second = package(tmp_path, "intel-rapl:1", kind="package-1", energy_uj=900)
    package(tmp_path, "intel-rapl:0:0", kind="core", energy_uj=50)
    package(tmp_path, "intel-rapl-mmio:0", kind="package-0", energy_uj=100)
    telemetry = open_rapl(root=tmp_path)
    assert telemetry is not None
    assert (telemetry.scope, telemetry.available) == ("package", ("energy",))
    assert telemetry.sample() == Sample(time_s=12.5, energy_j=0.0)
    first.write_text("150")
    second.write_text("30")  # it wrapped
    assert telemetry.sample().energy_j == pytest.approx(180e-6)
    second.write_text("40")
    assert telemetry.sample().energy_j == pytest.approx(190e-6)
    second.unlink()
    assert telemetry.sample().energy_j is None


def test_a_machine_or_device_without_a_reader_has_none(tmp_path: Path) -> None:
    assert open_rapl(root=tmp_path) is None
    package(tmp_path, "intel-rapl:0", kind="package-0", energy_uj=900)
    package(tmp_path, "intel-rapl:1", kind="package-1", energy_uj=900).unlink()
    assert open_rapl(root=tmp_path) is None
    assert open_telemetry(replace(GPU, type="xpu", vendor="intel")) is None


@pytest.mark.parametrize(
    ("readings", "links"),
    [
        (
            recorded.linked(handle0=["bus-1", "bus-1", "bus-2"], handle1=["bus-0"]),
            ["nvlink 2 links"],
        ),
        (
            recorded.linked(handle0=["switch"] * 4, handle1=["switch"] * 4),
            ["nvlink 4 links through NVSwitch"],
        ),
        # A switch that only one of them has joins nothing.
        (
            recorded.linked(handle0=["switch"] * 4) | {"nvmlDeviceGetTopologyCommonAncestor": 20},
            ["pcie several PCIe switches"],
        ),
        (
            recorded.linked() | {"nvmlDeviceGetTopologyCommonAncestor": 50},
            ["pcie across processor sockets"],
        ),
        (recorded.linked() | {"nvmlDeviceGetTopologyCommonAncestor": None}, []),
    ],
)
def test_links_of_two_devices_are_those_that_nvml_states(
    monkeypatch: pytest.MonkeyPatch, readings: dict[str, Any], links: list[str]
) -> None:
    driver = RecordedNvml(**readings)
    monkeypatch.setattr(nvml, "import_nvml", lambda: driver)
    devices = [replace(GPU, index=index, uuid=f"uuid-{index}") for index in (0, 1)]
    found = [
        (link.first, link.second, f"{link.kind} {link.detail}")
        for link in nvml_links.device_links(devices)
    ]
    assert found == [
        ("cuda:0", "host", "pcie gen 5 x16"),
        ("cuda:1", "host", "pcie gen 5 x16"),
        *(("cuda:0", "cuda:1", link) for link in links),
    ]
    assert nvml_links.memory_free_bytes(devices[0]) == 5 * 2**30
    assert driver.calls.count("nvmlShutdown") == 2


def test_without_a_driver_nothing_is_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "import_nvml", lambda: None)
    assert nvml_links.memory_free_bytes(GPU) is None
    assert nvml_links.device_links([GPU, GPU]) == []
    assert nvml_links.device_memories() == []
