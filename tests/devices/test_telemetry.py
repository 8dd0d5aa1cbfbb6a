"""Readers over fake drivers and fake /sys trees, and the sampler thread."""

import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_drivers import FakeAmd, FakeNvml

from bench.core.nouns import Device
from bench.devices.amd import import_amdsmi, open_amd
from bench.devices.noise import CpuSnapshot
from bench.devices.nvml import NvmlTelemetry, open_nvml
from bench.devices.rapl import open_rapl
from bench.devices.sampler import Sampler
from bench.devices.telemetry import Baseline, Sample, open_telemetry
from tests.devices.replay_telemetry import ReplayTelemetry


def gpu(*, uuid: str | None = None, pci_bus_id: str | None = None) -> Device:
    return Device(
        type="cuda",
        index=3,
        name="Fake H100",
        vendor="nvidia",
        stack="CUDA 13.0",
        memory_bytes=None,
        uuid=uuid,
        pci_bus_id=pci_bus_id,
    )


def telemetry_of(**values: Any) -> NvmlTelemetry:
    return NvmlTelemetry(FakeNvml(**values), handle="handle", clock=lambda: 12.5)


def test_nvml_sample_is_in_base_units() -> None:
    assert telemetry_of().sample() == Sample(
        time_s=12.5,
        power_w=250.0,
        energy_j=7.0,
        temperature_c=55.0,
        sm_clock_hz=1.755e9,
        throttle_reasons=frozenset({"sw_power_cap", "sw_thermal"}),
        power_limited=True,
        used_bytes=3 * 2**30,
        utilization_frac=0.4,
    )


def test_nvml_baseline_is_in_base_units() -> None:
    assert telemetry_of().baseline() == Baseline(
        used_bytes=3 * 2**30,
        utilization_frac=0.4,
        power_limit_w=600.0,
        power_limit_default_w=700.0,
        driver_version="580.95",
        ecc_uncorrected=0,
        violation_s={"power": 2.5, "thermal": 2.5, "board_limit": 2.5, "reliability": 2.5},
        sm_clock_max_hz=1.98e9,
        pcie_width=16,
        pcie_width_max=16,
        has_persistence=True,
        has_mig=False,
    )


def test_memory_is_only_read_when_asked_for() -> None:
    sample = telemetry_of().sample(with_memory=False)
    assert (sample.used_bytes, sample.utilization_frac) == (None, None)
    assert sample.power_w == 250.0


def test_mean_power_is_the_fallback_where_instant_power_is_missing() -> None:
    assert telemetry_of(nvmlDeviceGetFieldValues=None).sample().power_w == 111.0
    refused = [FakeNvml.field(0, error=3)]
    assert telemetry_of(nvmlDeviceGetFieldValues=refused).sample().power_w == 111.0


def test_what_the_driver_refuses_is_blank_and_the_rest_is_read() -> None:
    telemetry = telemetry_of(
        nvmlDeviceGetTotalEnergyConsumption=None,
        nvmlDeviceGetTotalEccErrors=None,
        nvmlDeviceGetViolationStatus=None,
        nvmlDeviceGetCurrentClocksEventReasons=None,
    )
    sample = telemetry.sample()
    assert (sample.energy_j, sample.throttle_reasons, sample.power_limited) == (None, None, None)
    assert sample.power_w == 250.0
    assert telemetry.baseline().violation_s == {}
    assert telemetry.available == ("power", "temperature", "sm_clock", "memory")


def test_old_name_of_the_reasons_call_still_works() -> None:
    nvml = FakeNvml(nvmlDeviceGetCurrentClocksThrottleReasons=0x80)
    del nvml.values["nvmlDeviceGetCurrentClocksEventReasons"]
    telemetry = NvmlTelemetry(nvml, handle="handle")
    assert telemetry.sample().throttle_reasons == frozenset({"power_brake"})


def test_idle_is_not_a_reason_that_limits_clocks() -> None:
    sample = telemetry_of(nvmlDeviceGetCurrentClocksEventReasons=0x01).sample()
    assert sample.throttle_reasons == frozenset()
    assert sample.power_limited is False


@pytest.mark.parametrize(
    "mig", [{"nvmlDeviceIsMigDeviceHandle": 1}, {"nvmlDeviceGetMigMode": [1, 1]}]
)
def test_slice_of_a_device_has_no_energy_of_its_own(mig: dict[str, Any]) -> None:
    telemetry = telemetry_of(**mig)
    sample = telemetry.sample()
    assert (sample.power_w, sample.energy_j) == (None, None)
    assert sample.temperature_c == 55.0
    assert telemetry.baseline().has_mig is True


def test_superchip_covers_the_module_where_its_power_can_be_checked() -> None:
    telemetry = telemetry_of(nvmlDeviceGetName="NVIDIA GH200 480GB")
    assert (telemetry.scope, telemetry.sample().energy_j) == ("module", 7.0)
    blind = telemetry_of(nvmlDeviceGetName="NVIDIA GH200 480GB", nvmlDeviceGetFieldValues=None)
    assert (blind.scope, blind.sample().energy_j, blind.sample().power_w) == ("gpu", None, 111.0)


@pytest.mark.parametrize(
    "device",
    [gpu(uuid="1234"), gpu(uuid="GPU-1234"), gpu(uuid="9", pci_bus_id="0000:17:00.0"), gpu()],
)
def test_device_is_matched_by_uuid_then_address_then_being_the_only_one(device: Device) -> None:
    assert open_nvml(device, nvml=FakeNvml()) is not None


def test_device_that_does_not_match_is_never_replaced_by_another() -> None:
    nvml = FakeNvml()
    assert open_nvml(gpu(uuid="9"), nvml=nvml) is None
    assert open_nvml(gpu(pci_bus_id="0000:99:00.0"), nvml=nvml) is None
    assert nvml.num_shutdowns == 2


def test_closing_undoes_the_start_of_nvml() -> None:
    nvml = FakeNvml()
    telemetry = open_nvml(gpu(), nvml=nvml)
    assert telemetry is not None
    telemetry.close()
    assert nvml.num_shutdowns == 1


def amd_device(pci_bus_id: str | None) -> Device:
    return Device(
        type="cuda",
        index=0,
        name="Fake MI300X",
        vendor="amd",
        stack="ROCm 7.1",
        memory_bytes=None,
        pci_bus_id=pci_bus_id,
    )


def test_amd_counter_times_resolution_is_joules() -> None:
    telemetry = open_amd(amd_device("0000:00:00.0"), smi=FakeAmd())
    assert telemetry is not None
    sample = telemetry.sample()
    assert sample.energy_j == pytest.approx(30.6)
    assert (sample.power_w, sample.temperature_c, sample.sm_clock_hz) == (300.0, 60.0, 1.3e9)
    assert (sample.used_bytes, sample.utilization_frac) == (512 * 2**20, None)
    base = telemetry.baseline()
    assert (base.power_limit_w, base.power_limit_default_w) == (500.0, 750.0)
    assert base.ecc_uncorrected is None


def test_amd_device_that_knows_little_gives_blanks() -> None:
    telemetry = open_amd(amd_device("0000:01:00.0"), smi=FakeAmd())
    assert telemetry is not None
    sample = telemetry.sample()
    assert (sample.power_w, sample.energy_j, sample.temperature_c) == (90.0, None, 61.0)


class EmptyAmd(FakeAmd):
    """Releases 6 and 7: all ones for what the device lacks, symbols that the library lacks."""

    AmdSmiTemperatureType = SimpleNamespace(EDGE="edge")

    def amdsmi_get_power_info(self, handle: int) -> dict[str, Any]:
        empty = {"socket_power": 2**64 - 1, "current_socket_power": 2**32 - 1}
        return {**empty, "average_socket_power": 65_535 if handle else 410}

    def amdsmi_get_energy_count(self, handle: int) -> dict[str, Any]:
        return {"energy_accumulator": 2**64 - 1, "counter_resolution": 15.3}

    def amdsmi_get_clock_info(self, handle: int, kind: str) -> dict[str, Any]:
        raise AttributeError("undefined symbol: amdsmi_get_clock_info")

    def amdsmi_get_power_cap_info(self, handle: int) -> dict[str, int]:
        raise KeyError("power_cap")


def test_amd_readings_of_all_ones_are_no_readings() -> None:
    first, second = (open_amd(amd_device(f"0000:0{n}:00.0"), smi=EmptyAmd()) for n in (0, 1))
    assert first is not None and second is not None
    assert first.sample().power_w == 410
    assert second.sample().power_w is None
    assert first.sample().energy_j is None
    assert first.sample().sm_clock_hz is None
    assert first.sample().temperature_c == 60
    assert first.baseline().power_limit_w is None


def test_amd_power_of_a_module_with_two_dies_is_not_called_the_die_s() -> None:
    scopes = {
        name: open_amd(replace(amd_device("0000:00:00.0"), name=name), smi=FakeAmd()).scope
        for name in ("AMD Instinct MI250X / MI250", "AMD Instinct MI300X")
    }
    assert list(scopes.values()) == ["module", "gpu"]


@pytest.mark.parametrize("error", ["AttributeError('symbol')", "KeyError('x')", "RuntimeError()"])
def test_an_amd_binding_that_fails_at_import_is_as_good_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    (tmp_path / "amdsmi.py").write_text(f"raise {error}")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert import_amdsmi() is None


def test_amd_device_is_never_guessed_among_several() -> None:
    assert open_amd(amd_device(None), smi=FakeAmd()) is None
    assert open_amd(amd_device("0000:07:00.0"), smi=FakeAmd()) is None


def rapl_domain(root: Path, name: str, *, kind: str, energy_uj: int, range_uj: int = 1000) -> Path:
    directory = root / "sys/class/powercap" / name
    directory.mkdir(parents=True)
    (directory / "name").write_text(kind + "\n")
    (directory / "energy_uj").write_text(f"{energy_uj}\n")
    (directory / "max_energy_range_uj").write_text(f"{range_uj}\n")
    return directory


def test_packages_are_added_up_and_their_parts_are_not(tmp_path: Path) -> None:
    first = rapl_domain(tmp_path, "intel-rapl:0", kind="package-0", energy_uj=100)
    second = rapl_domain(tmp_path, "intel-rapl:1", kind="package-1", energy_uj=200)
    rapl_domain(tmp_path, "intel-rapl:0:0", kind="core", energy_uj=50)
    rapl_domain(tmp_path, "intel-rapl-mmio:0", kind="package-0", energy_uj=100)
    telemetry = open_rapl(root=tmp_path, clock=lambda: 4.0)
    assert telemetry is not None
    assert (telemetry.scope, telemetry.available) == ("package", ("energy",))
    assert telemetry.sample() == Sample(time_s=4.0, energy_j=0.0)
    (first / "energy_uj").write_text("150")
    (second / "energy_uj").write_text("230")
    assert telemetry.sample().energy_j == pytest.approx(80e-6)


def test_counter_that_wraps_goes_on_rising(tmp_path: Path) -> None:
    directory = rapl_domain(tmp_path, "intel-rapl:0", kind="package-0", energy_uj=900)
    telemetry = open_rapl(root=tmp_path)
    assert telemetry is not None
    (directory / "energy_uj").write_text("30")
    assert telemetry.sample().energy_j == pytest.approx(130e-6)
    (directory / "energy_uj").write_text("40")
    assert telemetry.sample().energy_j == pytest.approx(140e-6)


def test_counter_that_becomes_unreadable_is_blank_not_a_part_of_the_sum(tmp_path: Path) -> None:
    rapl_domain(tmp_path, "intel-rapl:0", kind="package-0", energy_uj=900)
    second = rapl_domain(tmp_path, "intel-rapl:1", kind="package-1", energy_uj=900)
    telemetry = open_rapl(root=tmp_path)
    assert telemetry is not None
    (second / "energy_uj").unlink()
    assert telemetry.sample().energy_j is None


def test_machine_without_readable_packages_has_no_reader(tmp_path: Path) -> None:
    assert open_rapl(root=tmp_path) is None
    rapl_domain(tmp_path, "intel-rapl:0", kind="package-0", energy_uj=900)
    hidden = rapl_domain(tmp_path, "intel-rapl:1", kind="package-1", energy_uj=900)
    (hidden / "energy_uj").unlink()
    assert open_rapl(root=tmp_path) is None


def test_device_of_an_unknown_kind_has_no_reader() -> None:
    device = Device(type="xpu", index=0, name="x", vendor="intel", stack="XPU", memory_bytes=None)
    assert open_telemetry(device) is None


def snapshot_at(pid: int) -> CpuSnapshot:
    return CpuSnapshot(time_s=float(pid), busy_s=0.0, steal_s=None, total_s=0.0, processes={})


def samples(*times_s: float) -> list[Sample | Exception]:
    return [Sample(time_s=time_s) for time_s in times_s]


def test_replayed_samples_come_back_in_order_and_then_end() -> None:
    recorded = ReplayTelemetry([Sample(time_s=1.0, power_w=5.0), Sample(time_s=2.0)])
    assert recorded.available == ("power",)
    assert [recorded.sample().time_s, recorded.sample().time_s] == [1.0, 2.0]
    with pytest.raises(OSError, match="ended"):
        recorded.sample()
    recorded.close()
    assert recorded.is_closed


def test_failing_sample_is_kept_as_missed_with_its_reason() -> None:
    recorded = ReplayTelemetry([*samples(1.0), OSError("gpu lost"), *samples(3.0)])
    sampler = Sampler(recorded, pid=7, clock=lambda: 9.0, snapshot=snapshot_at)
    for _ in range(3):
        sampler.collect()
    assert [one.time_s for one in sampler.samples] == [1.0, 3.0]
    (missed,) = sampler.missed
    assert (missed.time_s, missed.what, missed.reason) == (9.0, "telemetry", "OSError: gpu lost")


def test_failing_snapshot_does_not_stop_the_telemetry() -> None:
    def fail(pid: int) -> CpuSnapshot:
        raise ProcessLookupError(pid)

    sampler = Sampler(ReplayTelemetry(samples(1.0)), pid=7, clock=lambda: 0.0, snapshot=fail)
    sampler.collect()
    assert len(sampler.samples) == 1
    assert [one.what for one in sampler.missed] == ["snapshot"]


def test_snapshots_and_memory_are_taken_less_often_than_power() -> None:
    asked: list[bool] = []

    class Recording(ReplayTelemetry):
        def sample(self, *, with_memory: bool = True) -> Sample:
            asked.append(with_memory)
            return super().sample(with_memory=with_memory)

    now_s = iter(number / 10 for number in range(11))
    sampler = Sampler(
        Recording(samples(*range(11))),
        pid=7,
        slow_period_s=0.5,
        clock=lambda: next(now_s),
        snapshot=snapshot_at,
    )
    for _ in range(11):
        sampler.collect()
    assert [number for number, is_slow in enumerate(asked) if is_slow] == [0, 5, 10]
    assert len(sampler.snapshots) == 3


def test_device_without_telemetry_still_gets_processor_snapshots() -> None:
    with Sampler(None, pid=7, snapshot=snapshot_at) as sampler:
        pass
    assert sampler.samples == []
    assert len(sampler.snapshots) >= 1


def test_thread_samples_until_it_is_stopped_and_brackets_the_time_between() -> None:
    class Live(ReplayTelemetry):
        def sample(self, *, with_memory: bool = True) -> Sample:
            return Sample(time_s=time.monotonic())

    num_threads = threading.active_count()
    sampler = Sampler(Live([]), pid=7, snapshot=snapshot_at)
    sampler.start()
    time.sleep(0.35)
    stop_s = time.monotonic()
    sampler.stop()
    assert len(sampler.samples) >= 2
    assert sampler.samples[-1].time_s >= stop_s
    assert len(sampler.snapshots) >= 2
    assert sampler.missed == []
    assert threading.active_count() == num_threads
    with pytest.raises(RuntimeError):
        sampler.start()


def test_sampling_faster_than_ten_times_a_second_is_refused() -> None:
    with pytest.raises(ValueError, match="periods"):
        Sampler(None, pid=7, period_s=0.05)
