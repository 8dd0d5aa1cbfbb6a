"""Each finding appears where its cause is there, and stays away where it is not."""

from itertools import groupby
from types import SimpleNamespace
from typing import Any

import pytest

from bench.devices.doctor import all_findings, host_findings
from bench.devices.doctor.host_findings import Finding
from bench.devices.host.cpu_noise import CpuNoise, CpuSnapshot, ProcessTimes
from bench.measure.asking import failure_of
from tests.devices.recorded_drivers import RecordedAmdSmi, RecordedNvml, make_tree

CPU = "sys/devices/system/cpu"
GROUP = "sys/fs/cgroup"
HUGE = "sys/kernel/mm/transparent_hugepage/enabled"


def words(found: Any) -> list[str]:
    return [f"{one.severity}: {one.what} -> {one.fix}" for one in found]


NO_TURBO, BOOST = f"{CPU}/intel_pstate/no_turbo", f"{CPU}/cpufreq/boost"
CALM = {
    f"{CPU}/cpu0/cpufreq/scaling_governor": "performance\n",
    f"{GROUP}/memory.current": f"{2**29}",
    "proc/self/cgroup": "0::/\n",
}
HIDDEN = "note: this container does not see the host's processes -> docker run --pid=host"
GOVERNOR = "warning: the frequency governor is powersave -> sudo cpupower"
HUGE_PAGES = "note: transparent huge pages are set to always -> echo madvise"
FULL_MEMORY = "warning: only 512 MiB of memory are free -> ps aux"
QUOTA = "warning: a quota allows 2.5 of 8 processors -> docker run --cpuset-cpus=0-1"


@pytest.mark.parametrize(
    ("file", "harmless", "spoiling", "found"),
    [
        (f"{CPU}/cpu1/cpufreq/scaling_governor", "performance\n", "powersave\n", GOVERNOR),
        (NO_TURBO, "1", "0", f"note: turbo clocks are on -> echo 1 | sudo tee /{NO_TURBO}"),
        (BOOST, "0", "1", f"note: turbo clocks are on -> echo 0 | sudo tee /{BOOST}"),
        (HUGE, "always [madvise] never\n", "[always] madvise never\n", HUGE_PAGES),
        (f"{CPU}/smt/active", "0\n", "1\n", "note: SMT is on"),
        (f"{GROUP}/cpu.max", "800000 100000\n", "250000 100000\n", QUOTA),
        (f"{GROUP}/memory.max", f"{2**33}", f"{2**30}", FULL_MEMORY),
        ("proc/2/comm", "kthreadd\n", "python\n", HIDDEN),
        ("proc/1/cgroup", "0::/init.scope\n", "0::/kubepods/pod1\n", HIDDEN),
        ("swap", "", "", "warning: 1.00 GiB of swap are in use"),
    ],
)
def test_a_setting_is_found_where_it_spoils(tmp_path, monkeypatch, file, harmless, spoiling, found):
    monkeypatch.setattr(host_findings, "allowed_cpu_ids", lambda: tuple(range(8)))
    swap, memory = SimpleNamespace(used=0), SimpleNamespace(available=2**40, total=2**40)
    monkeypatch.setattr(host_findings.psutil, "swap_memory", lambda: swap)
    monkeypatch.setattr(host_findings.psutil, "virtual_memory", lambda: memory)

    def look(more):
        make_tree(tmp_path, more)
        processor = host_findings.processor_findings(root=tmp_path)
        share = host_findings.share_findings(root=tmp_path, environ={})
        return words([*processor, *share])

    in_docker = {".dockerenv": ""} if file == "proc/2/comm" else {}
    assert look({}) == look(CALM) == look({file: harmless, **in_docker}) == []
    swap.used = 2**30 if file == "swap" else 0
    (finding,) = look({file: spoiling})
    assert finding.startswith(found)


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
    tmp_path, monkeypatch, torch, vision, pin, found
):
    needs = f"Requires-Dist: numpy\nRequires-Dist: {pin}\n"
    for name, version, more in (("torch", torch, ""), ("torchvision", vision, needs)):
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{more}"
        make_tree(tmp_path, {f"{name}-{version}.dist-info/METADATA": text})
    monkeypatch.syspath_prepend(str(tmp_path))
    findings = list(host_findings.software_findings({}))
    error = RuntimeError("Failed to import Llama:\noperator torchvision::nms does not exist")
    detail = failure_of(error, device="cpu").detail
    what = f"torchvision {vision} was built for {found}"
    assert [(one.severity, one.what) for one in findings] == [("error", what)] * bool(found)
    plain = "RuntimeError: Failed to import Llama: operator torchvision::nms does not exist"
    assert detail.startswith(f"{what}; pip uninstall" if found else plain)


def test_full_disk_is_found_at_the_nearest_directory_that_exists(tmp_path, monkeypatch):
    for free_bytes, severities in ((5 * 10**7, ["error"]), (5 * 10**8, ["warning"]), (10**10, [])):
        usage = {tmp_path: SimpleNamespace(free=free_bytes)}
        monkeypatch.setattr(host_findings.shutil, "disk_usage", usage.__getitem__)
        found = host_findings.disk_findings(tmp_path / "results" / "deep")
        assert [one.severity for one in found] == severities


def test_variables_that_change_what_is_measured_are_found():
    environ = {
        "TORCH_DEVICE_BACKEND_AUTOLOAD": "0",
        "OMP_NUM_THREADS": "3",
        "CUDA_LAUNCH_BLOCKING": "1",
        "HIP_LAUNCH_BLOCKING": "0",
        "MKL_NUM_THREADS": "",
        "HOME": "/root",
    }
    assert words(host_findings.software_findings(environ)) == [
        "warning: TORCH_DEVICE_BACKEND_AUTOLOAD=0 is set -> unset TORCH_DEVICE_BACKEND_AUTOLOAD",
        "note: OMP_NUM_THREADS=3 is set -> unset OMP_NUM_THREADS",
        "error: CUDA_LAUNCH_BLOCKING=1 is set -> unset CUDA_LAUNCH_BLOCKING",
    ]


def test_three_busiest_foreign_processes_are_named_busiest_first():
    def look(time_s, *used_s):
        everything = {
            (pid, 0.0): ProcessTimes(parent_pid=0, own_s=10.0 + one_s, reaped_s=0.0, name="make")
            for pid, one_s in enumerate(used_s)
        }
        own = {(0, 0.0): everything[0, 0.0]}
        counters = {"busy_s": 0.0, "steal_s": None, "total_s": 0.0}
        return CpuSnapshot(time_s=time_s, **counters, processes=own, everything=everything)

    after = look(2.0, 2.0, 0.5, 1.5, 0.01, 0.2, 0.3)
    busy = host_findings.busiest(look(0.0, *[0.0] * 6), after)
    assert [(pid, round(cores, 3)) for cores, pid, _ in busy] == [(2, 0.75), (1, 0.25), (5, 0.15)]


BUSY = (0.9, 42, "make")
UNSEEN = "other programs use 30% of the processor: not visible from here"


@pytest.mark.parametrize(
    ("noise", "busy", "found"),
    [
        ({"foreign_cpu_frac": 0.01}, [BUSY], "note: other programs use 1% of the processor: "),
        ({"foreign_cpu_frac": 0.06}, [BUSY], "warning: other programs use 6%"),
        ({"foreign_cpu_frac": 0.5}, [BUSY], "error: other programs use 50%"),
        ({}, [BUSY], "warning: make (pid 42, 0.9 cores) -> stop them or wait: top -p 42"),
        ({"foreign_cpu_frac": 0.3}, [], f"error: {UNSEEN} -> look on"),
        ({"foreign_cpu_frac": 0.04, "steal_frac": 0.002}, [], None),
        ({}, [], None),
        ({"steal_frac": 0.05}, [], "warning: the hypervisor took 5.0%"),
    ],
)
def test_load_of_others_follows_the_limits_of_a_trial(noise, busy, found):
    got = words(host_findings.noise_findings(CpuNoise(**noise), busy=busy))
    assert len(got) == (found is not None)
    assert all(one.startswith(str(found)) for one in got)


LIMITED = "{} is limited to 400 W; its default is 700 W"
REFUSED = "the driver gives default power limit 0 W -> update the driver"
FREE = "{} has free clocks -> sudo nvidia-smi -i 0 -lgc 1485"
IDLE = {
    "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=2**20),
    "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=0),
    "nvmlDeviceGetEnforcedPowerLimit": 700_000,
    "nvmlDeviceGetCurrentClocksEventReasons": 0x02,
}


def gpu_words(*, smi: RecordedAmdSmi | None = None, **readings: Any) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(all_findings, "import_nvml", lambda: RecordedNvml(**{**IDLE, **readings}))
        patch.setattr(all_findings, "import_amdsmi", lambda: smi)
        return words(all_findings.gpu_findings())


@pytest.mark.parametrize(
    ("call", "reading", "found"),
    [
        ("MemoryInfo", SimpleNamespace(used=2**30), "warning: {} is in use: 1.00 GiB, 0% busy"),
        ("UtilizationRates", SimpleNamespace(gpu=30), "warning: {} is in use: 1.00 MiB, 30% busy"),
        ("CurrentClocksEventReasons", 0x42, "error: {} slows itself down (hw_thermal) at 55 C"),
        ("Temperature", 85, "warning: {} is hot before any work at 85 C"),
        ("TotalEccErrors", 2, "error: {}: 2 uncorrected memory errors since the driver started"),
        ("EnforcedPowerLimit", 400_000, f"warning: {LIMITED} -> sudo nvidia-smi -i 0 -pl 700"),
        ("PowerManagementDefaultLimit", 0, f"note: {{}}: {REFUSED}"),
        ("CurrPcieLinkWidth", 8, "warning: {} has 8 of 16 PCIe lanes"),
        ("MigMode", [1, 1], "warning: {} is split by MIG -> sudo nvidia-smi -i 0 -mig 0"),
        ("PersistenceMode", 0, "note: {} has persistence mode off -> sudo nvidia-smi -i 0 -pm 1"),
        ("CurrentClocksEventReasons", 0, f"note: {FREE} (undo: sudo nvidia-smi -i 0 -rgc)"),
        ("Count", None, "warning: NVIDIA's driver refuses to list its devices: Not Supported"),
    ],
)
def test_each_state_of_a_device_is_found(call, reading, found):
    text = found.format("GPU 0 (Fake H100)")
    assert any(one.startswith(text) for one in gpu_words(**{f"nvmlDeviceGet{call}": reading}))
    assert gpu_words() == [
        "note: GPU 0 (Fake H100) has its clocks limited by a setting"
        " -> sudo nvidia-smi -i 0 -rgc && sudo nvidia-smi -i 0 -rac"
    ]
    found = gpu_words(smi=RecordedAmdSmi(), nvmlDeviceGetCount=0)
    assert [one.partition("-> ")[2] for one in found if "default is 750 W" in one] == [
        f"sudo amd-smi set -g {index} --power-cap 750" for index in (0, 1)
    ]


def test_findings_are_sorted_by_severity_and_the_machine_is_left_alone(tmp_path, monkeypatch):
    loaded = Finding(severity="note", what="load", why="", fix="")
    monkeypatch.setattr(all_findings, "load_findings", lambda: [loaded])
    monkeypatch.setattr(all_findings, "gpu_findings", list)
    make_tree(tmp_path, {f"{CPU}/cpu0/cpufreq/scaling_governor": "powersave"})
    files = {file: file.read_text() for file in tmp_path.rglob("*") if file.is_file()}
    found = all_findings.findings(
        results_dir=tmp_path / "results",
        root=tmp_path,
        environ={"CUDA_LAUNCH_BLOCKING": "1", "OMP_NUM_THREADS": "1"},
    )
    kinds = [kind for kind, _ in groupby(one.severity for one in found)]
    assert kinds == ["error", "warning", "note"]
    assert files == {file: file.read_text() for file in tmp_path.rglob("*") if file.is_file()}
