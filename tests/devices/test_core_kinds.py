"""Hybrid processors: made-up /sys trees, the cores that trials get, and where it is shown."""

import json
import math
from types import SimpleNamespace

import pytest
import torch

from bench import discovery
from bench.cli import main
from bench.devices.doctor import kernel_findings
from bench.devices.host import cpu
from bench.devices.host.cpu import machine_facts, parse_cpu_list
from bench.measure import inspection
from bench.measure.engine.feed import make_loader
from bench.run import record

SYS = "sys/devices/system/cpu"


def spread(name, **by_value):
    """The file of this name, of all logical processors, by the value it has for them."""
    return {
        f"{SYS}/cpu{cpu_id}/{name}": f"{value.lstrip('_')}\n"
        for value, cpu_ids in by_value.items()
        for cpu_id in parse_cpu_list(cpu_ids)
    }


def pairs(first, num_cores, name="core_cpus_list"):
    """SMT siblings that are neighbours."""
    lists = [f"{first + 2 * n}-{first + 2 * n + 1}" for n in range(num_cores)]
    return spread(f"topology/{name}", **{text: text for text in lists})


CAPACITY, CLOCK, CPPC = "cpu_capacity", "cpufreq/cpuinfo_max_freq", "acpi_cppc/nominal_perf"
FAST_LIST = "sys/devices/cpu_core/cpus"
RAPTOR_LAKE = {  # 8 P with SMT and 16 E; two cores are favoured, all have one capacity
    **pairs(0, 8),
    **spread(CLOCK, _5500000="0-7,12-15", _5800000="8-11", _4300000="16-31"),
    **spread(CAPACITY, _1024="0-31"),
    FAST_LIST: "0-15\n",
    f"{SYS}/online": "0-31",
}
ARROW_LAKE = {  # small cores that reach 88 % of the clock, numbered among the others
    **spread(CLOCK, _5200000="0-1,6-7,12-13", _4600000="2-5,8-11"),
    FAST_LIST: "0-1,6-7,12-13",
}
LITTLE_FIRST = {**spread(CAPACITY, _485="0-3", _1010="4-5", _1024="6-7"), f"{SYS}/online": "0-7"}
THREE_KINDS = spread(CAPACITY, _250="0-3", _870="4-6", _1024="7")
ZEN_4C = {**pairs(0, 6), **spread(CLOCK, _4900000="0-3", _3500000="4-11")}
CPPC_ONLY = spread(CPPC, _48="0-1", _30="2-5")
SERVER = {
    **pairs(0, 4, "thread_siblings_list"),  # of an older kernel
    **spread(CLOCK, _3700000="0-5", _3900000="6-7"),
    **spread("acpi_cppc/highest_perf", _236="0-1", _166="2-7"),  # ranks of one kind, on AMD
    **spread(CPPC, _100="0-7"),
    f"{SYS}/online": "0-7",
}
SMALL_FIRST = {**pairs(8, 3), FAST_LIST: "8-13", "proc/self/cgroup": "0::/\n"}


def nodes(*cpu_ids):
    return {f"sys/devices/system/node/node{n}/cpulist": ids for n, ids in enumerate(cpu_ids)}


TWO_NODES = {**spread(CAPACITY, _400="0-3,5", _1024="4,6-9"), **nodes("0-5", "6-9")}


def under(quota_us):
    return {**SMALL_FIRST, "sys/fs/cgroup/cpu.max": f"{quota_us} 100000"}


@pytest.mark.parametrize(
    ("files", "allowed", "pinned"),
    [
        (RAPTOR_LAKE, "0-31", "0,2,4,6,8,10,12,14"),
        (RAPTOR_LAKE, "1,3,16-31", "1,3"),  # affinity that cuts cores in half
        (RAPTOR_LAKE, "20-23", "20-23"),  # slow ones only: all of them
        (ARROW_LAKE, "0-13", "0,1,6,7,12,13"),
        (LITTLE_FIRST, "0-7", "4-7"),
        (LITTLE_FIRST, "0-4", "4"),
        (THREE_KINDS, "0-7", "4-7"),
        (THREE_KINDS, "0-5", "4,5"),
        (ZEN_4C, "0-11", "0,2"),
        (CPPC_ONLY, "0-5", "0,1"),
        (SERVER, "0-7", "0,2,4,6"),
        ({}, "0-3", "0-3"),  # a virtual machine shows nothing
        # One reading is missing or nonsense: nothing can be said.
        (spread(CLOCK, _4900000="0-1", _3500000="2"), "0-3", "0-3"),
        (spread(CLOCK, _4900000="0-1", _0="2-3"), "0-3", "0-3"),
        # A quota takes no small cores that are numbered first.
        (under(300_000), "0-13", "8,10,12"),
        (under(900_000), "0-13", "8,10,12"),
    ],
)
def test_trials_get_the_fast_cores_that_are_allowed(machine, files, allowed, pinned):
    machine(files, allowed)
    assert cpu.usable_cpu_ids() == parse_cpu_list(pinned)
    assert cpu.usable_cores() == len(parse_cpu_list(pinned))


@pytest.mark.parametrize(
    ("files", "allowed", "num_cores", "pinned"),
    [
        (under(300_000), "0-13", 5, "8,10,12"),
        (under(900_000), "0-13", 5, "0,1,8,10,12"),  # slow ones come last
        (TWO_NODES, "0-9", 4, "6-9"),  # fast ones of one memory node come first
        (TWO_NODES, "0-9", 5, "4,6-9"),
        (nodes("0-1", "2-3"), "1-3", 2, "2,3"),  # one memory node where it suffices
        (nodes("0-1", "2-3"), "1-3", 3, "1-3"),
        (nodes("0-1,3\n"), "0-1, 3", 9, "0,1,3"),
    ],
)
def test_cores_come_from_few_nodes_and_fast_ones_first(machine, files, allowed, num_cores, pinned):
    machine(files, allowed)
    assert cpu.usable_cpu_ids(num_cores=num_cores) == parse_cpu_list(pinned)


def test_threads_that_the_user_asks_for_may_take_slow_cores_and_the_roof_is_theirs(
    machine, monkeypatch
):
    machine(RAPTOR_LAKE, "0-31")
    fast = (0, 2, 4, 6, 8, 10, 12, 14)
    assert record._cpu_ids(None) == record._cpu_ids(3) == fast
    assert record._cpu_ids(10) == (*fast, 16, 17)
    assert len(record._cpu_ids(99)) == 24, "all cores"
    asked = []
    monkeypatch.setattr(inspection, "pin", asked.append)
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    for threads in ((8,), (2, 1), (10,)):
        question = inspection._Question(label="cpu", dtypes=(), with_roof=False, threads=threads)
        inspection._inspect(question)
    assert asked == [fast, 8, fast, 2, 1, (*fast, 16, 17), 10]


def test_the_record_names_the_kinds_of_a_hybrid_and_leaves_others_alone(machine):
    facts = machine_facts(root=machine(RAPTOR_LAKE, "0-31"), environ={})["cpu"]
    assert (facts["fast_cpus"], facts["slow_cpus"]) == ("0-15", "16-31")
    assert facts["pinned_cpus"] == "0,2,4,6,8,10,12,14"
    facts = machine_facts(root=machine(RAPTOR_LAKE, "16-31"), environ={})["cpu"]
    assert "fast_cpus" not in facts, "one kind is allowed"


KINDS = "cores are of two kinds: 0-15 fast, 16-31 slow; trials are pinned to 0,2,4,6,8,10,12,14"
SLOW_ONLY = "warning: only slow cores (1-2) are allowed; 4-7 are fast"


@pytest.mark.parametrize(
    ("files", "allowed", "found"),
    [
        (RAPTOR_LAKE, "0-31", [f"note: {KINDS}"]),
        (LITTLE_FIRST, "1-2", [SLOW_ONLY]),
        (SERVER, "0-7", []),
        ({}, "0-3", []),
    ],
)
def test_doctor_reports_kinds_of_cores_and_slow_ones_alone(machine, files, allowed, found):
    findings = kernel_findings.core_findings(root=machine(files, allowed))
    assert [f"{one.severity}: {one.what}" for one in findings] == found


@pytest.mark.parametrize(
    ("total", "free", "num_cores", "found"),
    [
        (64, 64, 2, "64.0 MiB of 64.0 MiB free; 1 loader workers may hold 204 MiB"),
        (4096, 300, 16, "300 MiB of 4.00 GiB free; 4 loader workers may hold 816 MiB"),
        (4096, 4000, 128, None),
        (4096, 1000, 128, "1000 MiB of 4.00 GiB free; 8 loader workers"),
    ],
)
def test_doctor_compares_shared_memory_with_what_workers_hold(
    machine, monkeypatch, total, free, num_cores, found
):
    root = machine({}, f"0-{num_cores - 1}")
    usage = SimpleNamespace(total=total * 2**20, free=free * 2**20)
    monkeypatch.setattr(kernel_findings.shutil, "disk_usage", lambda _folder: usage)
    assert list(kernel_findings.shared_memory_findings(root=root)) == [], "no /dev/shm here"
    (root / "dev/shm").mkdir(parents=True)
    findings = list(kernel_findings.shared_memory_findings(root=root))
    assert len(findings) == (found is not None)
    for one in findings:
        assert one.what.startswith(f"/dev/shm has {found}") and "--shm-size" in one.fix


def test_shared_memory_is_counted_by_the_largest_shipped_batch():
    found = discovery.load("imaging")
    tiny = discovery.instance(found, size="tiny", overrides={"channels": 4})
    large = discovery.instance(found, size="large", overrides={})
    batch = next(iter(make_loader(tiny, found.phase("train"), data=None, seed=0)))
    voxel_bytes = sum(tensor.nbytes for tensor in batch.values()) / batch["label"].numel()
    assert math.prod(large.patch) * large.batch * voxel_bytes == kernel_findings.BATCH_BYTES


def test_devices_names_the_cores_that_trials_are_pinned_to(machine, capsys):
    machine(ARROW_LAKE, "0-13")
    assert main(["devices", "--no-probe"]) == 0
    line = "cpu: fast cores 0-1,6-7,12-13, slow 2-5,8-11; trials are pinned to 0-1,6-7,12-13"
    assert line in capsys.readouterr().out.splitlines()
    assert main(["devices", "--no-probe", "--json"]) == 0
    cores = json.loads(capsys.readouterr().out)["cores"]
    assert cores == {"fast": [0, 1, 6, 7, 12, 13], "slow": [2, 3, 4, 5, 8, 9, 10, 11]}
