"""Verbs that look: workloads by formula, a link scored by a table, findings, and devices."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench import discovery
from bench.core.errors import MeasurementError
from bench.core.nouns import Device
from bench.devices.doctor import all_findings as checks
from bench.devices.doctor.host_findings import Finding
from bench.devices.telemetry import nvml
from bench.devices.torch import backends, detect, probe
from bench.hardware import chips
from bench.run.planning.selection import ALL
from tests.cli.conftest import Ask

TIMED = Path(__file__).resolve().parents[1] / "workload_files" / "timed.py"


def test_help_shows_the_verbs_in_four_groups(ask: Ask) -> None:
    groups: dict[str, list[str]] = {}
    for line in ask("--help").out.splitlines():
        if line and not line.startswith(" "):
            verbs = groups.setdefault(line.rstrip(":"), [])
        elif line.startswith("  ") and line[2] not in " -":
            verbs.append(line.split()[0])
    assert {name: groups[name] for name in ("Measure", "Look", "Judge", "Study")} == {
        "Measure": ["run", "wrap", "ab", "calibrate", "measure-link"],
        "Look": ["list", "devices", "doctor", "data"],
        "Judge": ["compare", "gap", "report", "export"],
        "Study": ["project", "claims"],
    }


def test_every_shipped_phase_and_size_is_listed_and_sizes_grow(ask: Ask) -> None:
    entries = ask("list", "--json").document
    names = {entry["workload"] for entry in entries}
    shipped = map(discovery.load, discovery.names())
    assert names == {
        f"{found.name}-{phase.name}" for found in shipped for phase in found.cls.phases
    }
    assert {"imaging-train", "imaging-infer", "llm-decode", "llm-serve", "align-infer"} <= names
    for name in names:
        of_name = [entry for entry in entries if entry["workload"] == name]
        assert [entry["size"] for entry in of_name] == ["tiny", "small", "base", "large"]
        for column in ("num_parameters", "flops_per_item", "memory_bytes"):
            values = [entry[column] for entry in of_name]
            assert min(values) > 0, (name, column)
            if name in ("imaging-train", "llm-train"):
                assert values == sorted(values) and values[0] < values[-1], (name, column)
    assert {entry["runs_here"].partition(":")[0] for entry in entries} <= {"yes", "no", "CPU"}
    table = ask("list")
    assert table.err == ""
    for word in (
        "imaging-infer",
        "volume",
        "token",
        "parameters",
        "FLOP/item",
        "memory, fp32",
        "runs here",
    ):
        assert word in table.out
    assert "--data: a Decathlon or nnU-Net v2 folder" in table.out


def test_one_workload_or_phase_or_file_is_listed_alone(ask: Ask) -> None:
    for words, names in (
        (("workloads", "sleep"), ["sleep-train", "sleep-infer"]),
        (("workloads", "llm-decode"), ["llm-decode"]),
        (("-w", TIMED), ["timed-train", "timed-infer"]),
    ):
        entries = ask("list", *words, "--json").document
        assert list(dict.fromkeys(entry["workload"] for entry in entries)) == names
    assert entries[0]["size"] == ""
    params = {"batch": 1, "seconds": 0.1, "width": 1, "shape": "1x2", "note": None}
    assert entries[0]["params"] == {**params, "is_wide": False, "pace": ""}


def test_a_colon_chooses_a_phase_of_a_name_a_pattern_or_a_file_whatever_its_path(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def listed(name: str) -> set[str]:
        return {one["workload"] for one in ask("list", "-w", name, "--json").document}

    assert listed("imaging:train") == {"imaging-train"}
    assert listed("imaging-train:train") == {"imaging-train"}
    assert listed("all:train") == {f"{name}-train" for name in ALL if name in discovery.names()}
    monkeypatch.chdir(tmp_path)
    for path in (
        "phased.py",
        "C:\\work\\phased.py",
        "a:b/phased.py",
        "a:train/phased.py",
        "my:train.py",
    ):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(TIMED.read_text())
        both = listed(path)
        assert {name.rpartition("-")[2] for name in both} == {"train", "infer"}, path
        (train,) = listed(f"{path}:train")
        assert train in both and train.endswith("-train")

    def hashes(name: str) -> list[str]:
        words = ("run", "--device", "fake", "-w", name, "--trials", "1", "--size", "tiny")
        return [row["config_hash"] for row in ask(*words, "--json").document["rows"]]

    assert hashes("imaging:train") == hashes("imaging-train"), "one configuration"
    assert len(hashes("imaging:train,imaging-train,imaging")) == 2


def test_a_chip_is_found_in_any_case_by_its_names_and_their_parts(ask: Ask, csv: str) -> None:
    for text, id in (
        ("L40S", "l40s"), ("h20", "h20-96g"), ("h100 pcie", "h100-pcie-80g"), ("l2", "l2"),
        ("Ascend 910B3", "ascend-910b3"), ("Ascend-910", "ascend-910"), ("RTX 4090", "rtx4090"),
        ("NVIDIA H100 80GB HBM3", "h100-sxm-80g"), ("xeon", "cpu-2s-xeon-8480"),
        ("DGX A100", "dgx-a100"),
    ):  # fmt: skip
        assert ask("list", "chips", text, "--json").document["id"] == id
    found = ask("project", csv, "--to", "H100 PCIe,L40S,h100_pcie", "--json").document
    assert list(dict.fromkeys(one["chip"] for one in found["projections"])) == [
        "h100-pcie-80g", "l40s",
    ]  # fmt: skip


HEAD = "op,num_gpus,message_bytes,latency_us\n"
# bw=1GB/s,latency=10us: 2 * 10 us + 1 ns a byte; the second row is twice that, the third half.
TABLE = HEAD + "alltoall,2,2000,11\nall_reduce,2,1000000,2040\nall_reduce,2,16000000,8010\n"
DAMAGED = {
    "op,num_gpus,latency_us\nsend,2,1\n": "no column 'message_bytes'",
    HEAD + "send,2,8,soon\n": "latency_us",
    HEAD + "fly,2,8,1\n": "'fly' is not one of",
    HEAD: "no rows",
    "": "no column",
}


def test_a_link_is_scored_by_a_table(tmp_path: Path, ask: Ask) -> None:
    path = tmp_path / "table.csv"
    path.write_text(TABLE, encoding="utf-8")
    words = ("list", "links", "bw=1GB/s,latency=10us", "--check", path)
    document = ask(*words, "--json").document
    scores = {(row["op"], row["size_class"]): row for row in document["scores"]}
    assert scores["all_to_all", "small"]["mean_abs_error"] == pytest.approx(0.0)
    assert scores["all_reduce", "medium"]["mean_error"] == pytest.approx(-0.5)
    assert scores["all_reduce", "large"]["mean_error"] == pytest.approx(1.0)
    assert scores["all_reduce", "all"]["mean_abs_error"] == pytest.approx(0.75)
    assert document["mean_abs_error"] == pytest.approx(0.5)
    assert document["methods"] == ["alpha-beta"]
    assert not document["leave_one_size_out"]
    assert "mean absolute error 50.0% by alpha-beta" in ask(*words).out
    assert "unrated" in ask("list", "links", "pcie4", "--check", path).out
    words = ("list", "links", "h100-nvlink", "--check", path)
    # A point of the curve itself: it is scored without the size in question.
    path.write_text(HEAD + "all_gather,2,1048576,11.29\n", encoding="utf-8")
    for method, more in {"curve": [], "tuner": ["--formula"]}.items():
        document = ask(*words, "--json", *more).document
        assert document["methods"] == [method]
        assert document["mean_abs_error"] > 0.01, method
    for content, said in DAMAGED.items():
        path.write_text(content, encoding="utf-8")
        assert said in ask(*words, code=2).one_line


def test_findings_are_told_in_order_with_what_to_do(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    for finding in ask("doctor", "--json").document["findings"]:  # of this machine
        assert finding["severity"] in ("error", "warning", "note")
        assert finding["what"] and finding["why"] and finding["fix"]
    monkeypatch.setattr(checks, "findings", list)
    assert ask("doctor").out == "nothing found\n"
    error = {"severity": "error", "what": "CUDA_LAUNCH_BLOCKING=1 is set"}
    error |= {"why": "[serial]", "fix": "unset it"}
    note = {"severity": "note", "what": "turbo is on", "why": "heat", "fix": "echo 1"}
    found = [Finding(**error), Finding(**note)]  # type: ignore[arg-type]
    monkeypatch.setattr(checks, "findings", lambda: found)
    table = ask("doctor").out
    assert "[serial]" in table and "unset it" in table
    assert table.index("error") < table.index("note")
    assert ask("doctor", "--json").document["findings"] == [error, note]


H800 = Device(
    type="cuda",
    index=0,
    name="NVIDIA H800",
    vendor="nvidia",
    stack="CUDA 13.0",
    memory_bytes=80 * 2**30,
    memory_free_bytes=79 * 2**30,
    uuid="GPU-secret",
    compute_units=132,
    telemetry=("power", "energy"),
)
MYSTERY = Device(
    type="novel", index=0, name="Mystery", vendor=None, stack="torch.novel", memory_bytes=None
)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put devices, problems and dtype states in the place of this machine's."""

    def put(*found: Device, problems: tuple[str, ...] = (), **states: str) -> None:
        survey = detect.Survey(devices=found, problems=problems)
        monkeypatch.setattr(detect, "survey", lambda: survey)
        monkeypatch.setattr(probe, "probe_dtypes", lambda label: {"fp32": "ok", **states})

    return put


def test_this_machine_s_cpu_is_shown_with_what_works(ask: Ask) -> None:
    found = ask("devices", "--json").document["devices"][-1]
    assert (found["label"], found["dtypes"]["fp32"]) == ("cpu", "ok")
    assert found["memory_bytes"] > 0
    text = ask("devices", "--no-probe").out
    assert "cpu" in text and "not tried" in text and "torch 2." in text
    assert ask("devices", "--json", "--no-probe").document["devices"][-1]["dtypes"] is None


def test_devices_are_named_with_catalogue_row_dtypes_links_problems_and_failed_packages(
    ask: Ask, install: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(H800)
    document = ask("devices", "--json").document
    (found,) = document["devices"]
    assert len(found["chips"]) == 1
    assert "secret" not in json.dumps(document) and len(found["uuid_hash"]) == 16
    assert "not in the catalogue" not in ask("devices").out
    install(MYSTERY, bf16="wrong", fp16="raises")
    text = " ".join(ask("devices").out.split())
    assert "not in the catalogue" in text and "unknown" in text
    assert "WRONG" in text and "bf16" in text and "fp16" not in text
    assert ask("devices", "--json").document["devices"][0]["chips"] == []
    two = chips.load_chips()[:2]
    monkeypatch.setattr(chips, "match_device", lambda name, memory_bytes, **_: list(two))
    (found,) = ask("devices", "--json").document["devices"]
    assert found["chips"] == [chip.id for chip in two]
    assert "ambiguous" in ask("devices").out

    install(H800, problems=("cuda:1 does not answer",))
    link = nvml.PhysicalLink(first="cuda:0", second="cuda:1", kind="nvlink", detail="8 links")
    monkeypatch.setattr(nvml, "device_links", lambda found: [link])
    failed = backends.PackageState(
        module="torch_npu", state="failed", reason="OSError: libascendcl.so"
    )
    monkeypatch.setattr(backends, "load_packages", lambda: (failed,))
    text = ask("devices").out
    assert "problem: cuda:1 does not answer" in text
    assert "link cuda:0 - cuda:1: nvlink 8 links" in text
    assert "torch_npu failed: OSError: libascendcl.so" in text
    assert ask("devices", "--json").document["links"][0]["second"] == "cuda:1"

    def refuse(label: str) -> None:
        raise MeasurementError(f"no memory is free on {label}")

    monkeypatch.setattr(probe, "probe_dtypes", refuse)
    found = ask("devices", "--json").document
    assert found["devices"][0]["dtypes"] is None, "one too full to try is still listed"
    assert found["problems"] == ["cuda:1 does not answer", "no memory is free on cuda:0"]
