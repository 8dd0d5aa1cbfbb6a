"""Each finding appears where its cause is there, and stays away where it is not."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_drivers import FakeAmd, FakeNvml

from bench.devices import doctor, host_findings, load_findings
from bench.devices.finding import Finding
from bench.devices.gpu_findings import gpu_findings
from bench.devices.noise import CpuNoise
from bench.devices.processes import ProcessTimes
from bench.measure.ending import failure_of


def write(root: Path, name: str, text: str) -> None:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_empty_machine_has_no_settings_to_complain_about(tmp_path: Path) -> None:
    checks = (
        host_findings.governor_finding,
        host_findings.turbo_finding,
        host_findings.huge_pages_finding,
        host_findings.smt_finding,
        host_findings.quota_finding,
        host_findings.container_finding,
    )
    assert [check(root=tmp_path) for check in checks] == [None] * len(checks)


def test_powersave_governor_is_found_and_performance_is_not(tmp_path: Path) -> None:
    name = "sys/devices/system/cpu/cpu{}/cpufreq/scaling_governor"
    write(tmp_path, name.format(0), "performance\n")
    assert host_findings.governor_finding(root=tmp_path) is None
    write(tmp_path, name.format(1), "powersave\n")
    found = host_findings.governor_finding(root=tmp_path)
    assert found is not None
    assert found.what == "the frequency governor is powersave"
    assert "cpupower" in found.fix


@pytest.mark.parametrize(
    ("name", "is_on", "is_off", "command"),
    [
        ("intel_pstate/no_turbo", "0", "1", "echo 1 | sudo tee"),
        ("cpufreq/boost", "1", "0", "echo 0 | sudo tee"),
    ],
)
def test_turbo_is_found_in_either_kernel_interface(
    tmp_path: Path, name: str, is_on: str, is_off: str, command: str
) -> None:
    write(tmp_path, f"sys/devices/system/cpu/{name}", is_off)
    assert host_findings.turbo_finding(root=tmp_path) is None
    write(tmp_path, f"sys/devices/system/cpu/{name}", is_on)
    found = host_findings.turbo_finding(root=tmp_path)
    assert found is not None
    assert found.fix == f"{command} /sys/devices/system/cpu/{name}"


def test_huge_pages_and_smt_are_found_where_on(tmp_path: Path) -> None:
    write(tmp_path, "sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n")
    write(tmp_path, "sys/devices/system/cpu/smt/active", "0\n")
    assert host_findings.huge_pages_finding(root=tmp_path) is None
    assert host_findings.smt_finding(root=tmp_path) is None
    write(tmp_path, "sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never\n")
    write(tmp_path, "sys/devices/system/cpu/smt/active", "1\n")
    assert host_findings.huge_pages_finding(root=tmp_path) is not None
    assert host_findings.smt_finding(root=tmp_path) is not None


@pytest.mark.parametrize(
    ("torch", "vision", "pin", "found"),
    [
        ("2.11.0+cu130", "0.26.0", "torch==2.11.0", None),
        ("2.11.0", "0.26.0+cpu", "torch (==2.11.0)", None),
        ("2.11.0a0+nv26.1", "0.26.0a0", "torch", None),
        ("2.13.0", "0.25.1", "torch==2.10.0", "torch 2.10.0, this is torch 2.13.0"),
        ("2.9.0+cpu", "0.24.0", "torch==2.9.0", "CUDA, this is torch 2.9.0+cpu"),
    ],
)
def test_a_torchvision_of_another_torch_is_found_and_is_the_reason_on_the_row(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    torch: str,
    vision: str,
    pin: str,
    found: str | None,
) -> None:
    for name, version, more in (
        ("torch", torch, ""),
        ("torchvision", vision, f"Requires-Dist: numpy\nRequires-Dist: {pin}\n"),
    ):
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{more}"
        write(tmp_path, f"{name}-{version}.dist-info/METADATA", text)
    monkeypatch.syspath_prepend(str(tmp_path))
    finding = host_findings.torchvision_finding()
    error = RuntimeError("Failed to import Llama:\noperator torchvision::nms does not exist")
    detail = failure_of(error, device="cpu").detail
    if found is None:
        assert finding is None
        assert detail == "RuntimeError: Failed to import Llama:"
    else:
        assert finding is not None and finding.severity == "error"
        assert finding.what == f"torchvision {vision} was built for {found}"
        assert detail.startswith(finding.what)
        assert "uninstall" in detail


def test_quota_below_the_affinity_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_findings, "allowed_cpu_ids", lambda: tuple(range(8)))
    write(tmp_path, "proc/self/cgroup", "0::/\n")
    write(tmp_path, "sys/fs/cgroup/cpu.max", "250000 100000\n")
    found = host_findings.quota_finding(root=tmp_path)
    assert found is not None
    assert found.what == "a quota allows 2.5 of 8 processors"
    write(tmp_path, "sys/fs/cgroup/cpu.max", "800000 100000\n")
    assert host_findings.quota_finding(root=tmp_path) is None


def test_little_free_memory_is_found(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/\n")
    write(tmp_path, "sys/fs/cgroup/memory.max", f"{2**30}\n")
    write(tmp_path, "sys/fs/cgroup/memory.current", f"{2**29}\n")
    found = host_findings.memory_finding(root=tmp_path)
    assert found is not None
    assert found.what == "only 512 MiB of memory are free"


@pytest.mark.parametrize(
    ("free_bytes", "severity"), [(5 * 10**7, "error"), (5 * 10**8, "warning"), (10**10, None)]
)
def test_full_disk_is_found_at_the_nearest_directory_that_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_bytes: int, severity: str | None
) -> None:
    seen: list[Path] = []

    def usage(place: Path) -> SimpleNamespace:
        seen.append(place)
        return SimpleNamespace(free=free_bytes)

    monkeypatch.setattr(host_findings.shutil, "disk_usage", usage)
    found = host_findings.disk_finding(tmp_path / "results" / "deep")
    assert seen == [tmp_path]
    assert (found.severity if found else None) == severity


def test_swap_in_use_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def swapped(used_bytes: int) -> Finding | None:
        monkeypatch.setattr(
            host_findings.psutil, "swap_memory", lambda: SimpleNamespace(used=used_bytes)
        )
        return host_findings.swap_finding()

    assert swapped(0) is None
    assert swapped(2**30) is not None


def test_container_that_hides_the_host_is_found(tmp_path: Path) -> None:
    write(tmp_path, ".dockerenv", "")
    assert host_findings.container_finding(root=tmp_path) is not None
    write(tmp_path, "proc/2/comm", "kthreadd\n")
    assert host_findings.container_finding(root=tmp_path) is None


def test_variables_that_change_what_is_measured_are_found() -> None:
    environ = {
        "TORCH_DEVICE_BACKEND_AUTOLOAD": "0",
        "OMP_NUM_THREADS": "3",
        "CUDA_LAUNCH_BLOCKING": "1",
        "MKL_NUM_THREADS": "",
        "HOME": "/root",
    }
    found = host_findings.variable_findings(environ)
    assert [(one.severity, one.fix) for one in found] == [
        ("warning", "unset TORCH_DEVICE_BACKEND_AUTOLOAD"),
        ("note", "unset OMP_NUM_THREADS"),
        ("error", "unset CUDA_LAUNCH_BLOCKING"),
    ]
    harmless = {"TORCH_DEVICE_BACKEND_AUTOLOAD": "1", "CUDA_LAUNCH_BLOCKING": "0"}
    assert host_findings.variable_findings(harmless) == []


def times(own_s: float) -> ProcessTimes:
    return ProcessTimes(parent_pid=0, own_s=own_s, reaped_s=0.0)


def test_three_busiest_foreign_processes_are_named_busiest_first() -> None:
    before = {(pid, 0.0): times(10.0) for pid in range(6)}
    used_s = {0: 2.0, 1: 0.5, 2: 1.5, 3: 0.01, 4: 0.2, 5: 0.3}
    after = {(pid, 0.0): times(10.0 + used_s[pid]) for pid in range(6)}
    busy = load_findings.busiest(before, after=after, elapsed_s=2.0, own={(0, 0.0)})
    assert [(pid, round(cores, 3)) for pid, cores in busy] == [(2, 0.75), (1, 0.25), (5, 0.15)]


@pytest.mark.parametrize(
    ("share", "severity"), [(0.01, "note"), (0.06, "warning"), (0.5, "error"), (None, "warning")]
)
def test_severity_of_foreign_load_follows_the_limits_of_a_trial(
    share: float | None, severity: str
) -> None:
    noise = CpuNoise(foreign_cpu_frac=share)
    found = load_findings.foreign_finding(noise, busy=[(42, 0.9)], names={42: "make"})
    assert found is not None
    assert found.severity == severity
    assert "make (pid 42, 0.9 cores)" in found.what


def test_load_that_no_visible_process_explains_is_still_found() -> None:
    found = load_findings.foreign_finding(CpuNoise(foreign_cpu_frac=0.3), busy=[], names={})
    assert found is not None
    assert found.what == "other programs use 30% of the processor: not visible from here"
    assert load_findings.foreign_finding(CpuNoise(), busy=[], names={}) is None


def test_steal_is_found_over_one_percent() -> None:
    assert load_findings.steal_finding(CpuNoise(steal_frac=0.002)) is None
    assert load_findings.steal_finding(CpuNoise(steal_frac=0.05)) is not None
    assert load_findings.steal_finding(CpuNoise()) is None


def gpu_words(**values: Any) -> str:
    found = gpu_findings(nvml=FakeNvml(**values), smi=SilentAmd())
    return "\n".join(f"{one.severity}: {one.what} -> {one.fix}" for one in found)


class SilentAmd(FakeAmd):
    def amdsmi_get_processor_handles(self) -> list[int]:
        return []


IDLE = {
    "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=2**20),
    "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=0),
    "nvmlDeviceGetEnforcedPowerLimit": 700_000,
    "nvmlDeviceGetCurrentClocksEventReasons": 0x02,
}


def test_idle_device_with_held_clocks_gets_only_that_note() -> None:
    assert gpu_words(**IDLE) == (
        "note: GPU 0 (Fake H100) has its clocks limited by a setting"
        " -> sudo nvidia-smi -i 0 -rgc && sudo nvidia-smi -i 0 -rac"
    )


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (
            {"nvmlDeviceGetMemoryInfo": SimpleNamespace(used=2**30)},
            "warning: GPU 0 (Fake H100) is in use: 1.00 GiB, 0% busy",
        ),
        (
            {"nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=30)},
            "is in use: 1.00 MiB, 30% busy",
        ),
        (
            {"nvmlDeviceGetCurrentClocksEventReasons": 0x42},
            "error: GPU 0 (Fake H100) slows itself down (hw_thermal) at 55 C",
        ),
        ({"nvmlDeviceGetTemperature": 85}, "warning: GPU 0 (Fake H100) is hot before any work"),
        (
            {"nvmlDeviceGetTotalEccErrors": 2},
            "error: GPU 0 (Fake H100): 2 uncorrected memory errors",
        ),
        (
            {"nvmlDeviceGetEnforcedPowerLimit": 400_000},
            "limited to 400 W; its default is 700 W -> sudo nvidia-smi -i 0 -pl 700",
        ),
        ({"nvmlDeviceGetCurrPcieLinkWidth": 8}, "has 8 of 16 PCIe lanes"),
        ({"nvmlDeviceGetMigMode": [1, 1]}, "is split by MIG -> sudo nvidia-smi -i 0 -mig 0"),
        (
            {"nvmlDeviceGetPersistenceMode": 0},
            "note: GPU 0 (Fake H100) has persistence mode off -> sudo nvidia-smi -i 0 -pm 1",
        ),
        (
            {"nvmlDeviceGetCurrentClocksEventReasons": 0},
            "has free clocks -> sudo nvidia-smi -i 0 -lgc 1485",
        ),
    ],
)
def test_each_state_of_a_device_is_found(value: dict[str, Any], words: str) -> None:
    assert words not in gpu_words(**IDLE)
    assert words in gpu_words(**{**IDLE, **value})


def test_driver_that_refuses_everything_is_a_finding_and_not_a_crash() -> None:
    class Refusing(FakeNvml):
        def nvmlDeviceGetCount(self) -> int:  # noqa: N802
            raise self.NVMLError("driver mismatch")

    found = gpu_findings(nvml=Refusing(), smi=SilentAmd())
    assert [one.severity for one in found] == ["warning"]
    assert "driver mismatch" in found[0].what


def test_amd_device_with_a_lowered_limit_is_found() -> None:
    nvml = FakeNvml()
    nvml.nvmlDeviceGetCount = lambda: 0  # type: ignore[method-assign]
    found = gpu_findings(nvml=nvml, smi=FakeAmd())
    assert [one.fix for one in found if "default is 750 W" in one.what] == [
        f"sudo amd-smi set -g {index} --power-cap 750" for index in (0, 1)
    ]


def test_findings_are_sorted_by_severity_and_the_machine_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded(*, root: Path, watch_s: float) -> list[Finding]:
        return [Finding(severity="note", what="load", why="", fix="")]

    monkeypatch.setattr(doctor, "load_findings", loaded)
    monkeypatch.setattr(doctor, "gpu_findings", list)
    write(tmp_path, "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave")
    files = {file: file.read_text() for file in tmp_path.rglob("*") if file.is_file()}
    found = doctor.findings(
        results_dir=tmp_path / "results",
        root=tmp_path,
        environ={"CUDA_LAUNCH_BLOCKING": "1", "OMP_NUM_THREADS": "1"},
    )
    severities = [one.severity for one in found]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)
    assert {"error", "warning", "note"} == set(severities)
    assert files == {file: file.read_text() for file in tmp_path.rglob("*") if file.is_file()}
