"""Readers over recorded drivers and made-up /sys trees."""

from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from bench.core.nouns import Device
from bench.devices.telemetry import nvml, readers
from bench.devices.telemetry.common import Baseline, Sample
from tests.devices import recorded_drivers as recorded
from tests.devices.recorded_drivers import MISSING, RecordedAmdSmi, RecordedNvml, make_tree

GPU = Device(
    type="cuda", index=3, name="H100", vendor="nvidia", stack="CUDA 13.0", memory_bytes=None
)
AMD = replace(GPU, index=0, name="AMD Instinct MI300X", vendor="amd", pci_bus_id="0000:00:00.0")
SUPERCHIP = "NVIDIA GH200 480GB"
EDGE = {"edge": 61}
FULL_COUNTER = {"energy_accumulator": 2**64 - 1, "counter_resolution": 1}
NO_ENERGY = {"power_w": None, "energy_j": None}


@pytest.fixture(autouse=True)
def _clock(monkeypatch):
    monkeypatch.setattr("time.monotonic", lambda: 12.5)


@pytest.fixture
def opened(monkeypatch):
    """Open a device's reader on drivers that play these readings."""

    def open_on(device, **readings):
        monkeypatch.setattr(nvml, "import_nvml", lambda: RecordedNvml(**readings))
        monkeypatch.setattr(readers, "import_amdsmi", lambda: RecordedAmdSmi(**readings))
        return readers.open_telemetry(device)

    return open_on


def test_readings_are_in_base_units(opened):
    telemetry = opened(GPU)
    assert telemetry.sample() == Sample(
        time_s=12.5,
        power_w=250.0,
        energy_j=7.0,
        temperature_c=55.0,
        sm_clock_hz=1.755e9,
        throttle_reasons=frozenset({"sw_power_cap", "sw_thermal"}),
        used_bytes=3 * 2**30,
        utilization_frac=0.4,
    )
    assert telemetry.baseline() == Baseline(
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
    telemetry = opened(AMD)
    assert telemetry.sample() == Sample(
        time_s=12.5,
        power_w=300.0,
        energy_j=pytest.approx(30.6),
        temperature_c=60.0,
        sm_clock_hz=1.3e9,
        used_bytes=512 * 2**20,
    )
    assert telemetry.baseline() == Baseline(
        used_bytes=512 * 2**20,
        power_limit_w=500.0,
        power_limit_default_w=750.0,
        sm_clock_max_hz=2.1e9,
    )


@pytest.mark.parametrize(
    ("call", "reading", "expected"),
    [
        ("nvmlDeviceGetFieldValues", None, {"power_w": 111.0}),
        ("nvmlDeviceGetFieldValues", recorded.instant_power(0, error=3), {"power_w": 111.0}),
        ("nvmlDeviceGetFieldValues", recorded.instant_power(0), {"power_w": 111.0, "refused": {}}),
        ("nvmlDeviceGetFieldValues", recorded.instant_power(2**32 - 1), {"power_w": 111.0}),
        # Idle is not a reason that limits clocks.
        ("nvmlDeviceGetCurrentClocksEventReasons", 0x01, {"throttle_reasons": set()}),
        # A slice of a device has no energy of its own.
        ("nvmlDeviceIsMigDeviceHandle", 1, {**NO_ENERGY, "temperature_c": 55.0}),
        ("nvmlDeviceGetMigMode", [1, 1], NO_ENERGY),
        # A superchip's counter covers the module: used where its power can be checked.
        ("nvmlDeviceGetName", SUPERCHIP, {"energy_j": 7.0, "power_w": 250.0}),
        # Releases 6 and 7 of AMD SMI call the same field by other names.
        ("amdsmi_get_power_info", {"socket_power": 410}, {"power_w": 410}),
        ("amdsmi_get_power_info", {"socket_power": 2**32 - 1}, {"power_w": None}),
        ("amdsmi_get_energy_count", FULL_COUNTER, {"energy_j": None}),
        ("amdsmi_get_energy_count", None, {"energy_j": None}),
        ("amdsmi_get_clock_info", {"cur_clk": 1_200}, {"sm_clock_hz": 1.2e9}),
        ("amdsmi_get_clock_info", MISSING, {"sm_clock_hz": None, "power_w": 300}),
        ("amdsmi_get_temp_metric", lambda _, kind, __: EDGE.get(kind), {"temperature_c": 61}),
    ],
)
def test_what_a_driver_offers_is_read_and_what_is_none_is_blank(opened, call, reading, expected):
    sample = opened(GPU if call.startswith("nvml") else AMD, **{call: reading}).sample()
    assert {name: getattr(sample, name) for name in expected} == expected


def test_a_superchip_an_older_release_and_a_refusing_driver_are_read_by_what_they_have(opened):
    """The scope is the module where the counter covers it."""
    sample = opened(GPU, nvmlDeviceGetName=SUPERCHIP, nvmlDeviceGetFieldValues=None).sample()
    superchip = opened(GPU, nvmlDeviceGetName=SUPERCHIP)
    assert (sample.energy_j, sample.power_w) == (None, 111.0)
    mi250 = replace(AMD, name="AMD Instinct MI250X / MI250")
    scopes = [superchip.scope, *(opened(device).scope for device in (GPU, AMD, mi250))]
    assert scopes == ["module", "gpu", "gpu", "module"]
    older = opened(
        GPU,
        nvmlDeviceGetCurrentClocksEventReasons=MISSING,
        nvmlDeviceGetCurrentClocksThrottleReasons=0x80,
        nvmlDeviceGetMemoryInfo=lambda _, *version: None if version else SimpleNamespace(used=7),
    ).sample()
    assert (older.throttle_reasons, older.used_bytes) == ({"power_brake"}, 7)
    # What the driver refuses is blank.
    telemetry = opened(
        GPU,
        nvmlDeviceGetTotalEnergyConsumption=None,
        nvmlDeviceGetTotalEccErrors=None,
        nvmlDeviceGetViolationStatus=None,
        nvmlDeviceGetCurrentClocksEventReasons=None,
    )
    sample = telemetry.sample(with_memory=False)
    assert sample == Sample(time_s=12.5, power_w=250.0, temperature_c=55.0, sm_clock_hz=1.755e9)
    assert telemetry.baseline().hot_s is None
    assert telemetry.available == ("power", "temperature", "sm_clock", "memory")


@pytest.mark.parametrize(
    ("device", "is_found"),
    [
        (replace(GPU, uuid="1234"), True),
        (replace(GPU, uuid="GPU-1234"), True),
        (replace(GPU, uuid="9", pci_bus_id="0000:17:00.0"), True),
        (replace(GPU, vendor=None), True),
        (replace(GPU, uuid="9"), False),
        (replace(GPU, pci_bus_id="0000:99:00.0"), False),
        # An AMD device is never guessed among several.
        (replace(AMD, pci_bus_id=None), False),
        (replace(AMD, pci_bus_id="0000:07:00.0"), False),
        # No reader knows these.
        (replace(GPU, type="xpu", vendor="intel"), False),
        (replace(GPU, type="npu", vendor=None), False),
        (replace(GPU, vendor="metax"), False),
        (replace(AMD, type="xpu"), False),
    ],
)
def test_a_device_is_matched_by_identity_address_or_as_the_only_one(opened, device, is_found):
    assert (opened(device) is not None) == is_found


def test_every_start_of_nvml_has_its_shutdown_and_without_a_driver_nothing_is_stated(monkeypatch):
    driver: RecordedNvml | None = RecordedNvml()
    monkeypatch.setattr(nvml, "import_nvml", lambda: driver)
    telemetry = nvml.open_nvml(GPU)
    assert telemetry is not None and driver.calls.count("nvmlShutdown") == 0
    telemetry.close()
    assert readers.baseline_of(GPU).driver_version == "580.95"
    assert nvml.open_nvml(replace(GPU, uuid="9")) is None
    assert driver.calls.count("nvmlShutdown") == 3
    driver = None
    assert (nvml.open_nvml(GPU), readers.baseline_of(GPU)) == (None, Baseline())
    assert nvml.memory_free_bytes(GPU) is None
    assert nvml.device_links([GPU, GPU]) == nvml.device_memories() == []


def test_an_amd_binding_that_fails_leaves_blanks_or_is_as_none(opened, tmp_path, monkeypatch):
    calls = [name for name in recorded.MI300X if name.startswith("amdsmi_get_po")]
    for error in (KeyError("power_cap"), AttributeError("undefined symbol")):
        telemetry = opened(AMD, **dict.fromkeys(calls, Mock(side_effect=error)))
        assert telemetry.sample().power_w is None, error
        assert telemetry.baseline().power_limit_w is None, error
        assert opened(AMD, amdsmi_get_processor_handles=Mock(side_effect=error)) is None, error
    monkeypatch.undo()
    monkeypatch.syspath_prepend(str(tmp_path))
    for error in ("AttributeError('symbol')", "KeyError('x')", "RuntimeError()"):
        (tmp_path / "amdsmi.py").write_text(f"raise {error}")
        assert readers.import_amdsmi() is None, error


def test_packages_are_added_up_and_their_parts_are_not(tmp_path):
    assert readers.open_rapl(root=tmp_path) is None
    folder = tmp_path / "sys/class/powercap"
    for name, kind, energy_uj in (
        ("intel-rapl:0", "package-0", 100),
        ("intel-rapl:1", "package-1", 900),
        ("intel-rapl:0:0", "core", 50),
        ("intel-rapl-mmio:0", "package-0", 100),
    ):
        files = {"name": kind, "energy_uj": f"{energy_uj}\n", "max_energy_range_uj": "1000"}
        make_tree(folder / name, files)
    telemetry = readers.open_rapl(root=tmp_path)
    assert (telemetry.scope, telemetry.available) == ("package", ("energy",))
    assert telemetry.sample() == Sample(time_s=12.5, energy_j=0.0)
    first, second = (folder / f"intel-rapl:{number}/energy_uj" for number in (0, 1))
    first.write_text("150")
    second.write_text("30")  # it wrapped
    assert telemetry.sample().energy_j == pytest.approx(180e-6)
    second.write_text("40")
    assert telemetry.sample().energy_j == pytest.approx(190e-6)
    second.unlink()
    assert telemetry.sample().energy_j is None
    assert readers.open_rapl(root=tmp_path) is None


@pytest.mark.parametrize(
    ("ends", "ancestor", "links"),
    [
        ([["bus-1", "bus-1", "bus-2"], ["bus-0"]], MISSING, ["nvlink 2 links"]),
        ([["switch"] * 4, ["switch"] * 4], 10, ["nvlink 4 links through NVSwitch"]),
        # A switch that only one of them has joins nothing.
        ([["switch"] * 4, []], 20, ["pcie several PCIe switches"]),
        ([[], []], 50, ["pcie across processor sockets"]),
        ([[], []], None, []),
    ],
)
def test_links_of_two_devices_are_those_that_nvml_states(monkeypatch, ends, ancestor, links):
    far_ends = recorded.linked(handle0=ends[0], handle1=ends[1])
    driver = RecordedNvml(**far_ends, nvmlDeviceGetTopologyCommonAncestor=ancestor)
    monkeypatch.setattr(nvml, "import_nvml", lambda: driver)
    devices = [replace(GPU, index=index, uuid=f"uuid-{index}") for index in (0, 1)]
    found = [
        (link.first, link.second, f"{link.kind} {link.detail}")
        for link in nvml.device_links(devices)
    ]
    assert found == [
        ("cuda:0", "host", "pcie gen 5 x16"),
        ("cuda:1", "host", "pcie gen 5 x16"),
        *(("cuda:0", "cuda:1", link) for link in links),
    ]
    assert nvml.memory_free_bytes(devices[0]) == 5 * 2**30
    assert driver.calls.count("nvmlShutdown") == 2
