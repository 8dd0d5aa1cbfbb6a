"""`bench list`: the workloads with their sizes and costs, by formula."""

import json
from pathlib import Path

import pytest

from bench.cli import main

WORKLOADS = Path(__file__).resolve().parents[1] / "workload_files"


def test_help_shows_the_verbs_in_four_groups(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--help"]) == 0
    groups: dict[str, list[str]] = {}
    for line in capsys.readouterr().out.splitlines():
        if line and not line.startswith(" "):
            verbs = groups.setdefault(line.rstrip(":"), [])
        elif line.startswith("  ") and line[2] not in " -":
            verbs.append(line.split()[0])
    assert {name: groups[name] for name in ("Measure", "Look", "Judge", "Study")} == {
        "Measure": ["run", "ab", "calibrate", "measure-link"],
        "Look": ["list", "devices", "doctor", "data"],
        "Judge": ["compare", "gap", "report", "export"],
        "Study": ["project", "claims"],
    }


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, object]]:
    assert main(["list", *arguments, "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert isinstance(entries, list)
    return entries


def test_every_shipped_phase_and_size_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    entries = listed(capsys)
    names = {str(entry["workload"]) for entry in entries}
    assert names == {
        *("imaging-train", "imaging-infer", "llm-train", "llm-prefill", "llm-decode"),
        *("sleep-train", "sleep-infer"),
        *("align-infer", "tabular-train", "tabular-infer"),
    }
    for name in names:
        sizes = [entry["size"] for entry in entries if entry["workload"] == name]
        assert sizes == ["tiny", "small", "base", "large"]
    for entry in entries:
        assert int(str(entry["num_parameters"])) > 0
        assert float(str(entry["flops_per_item"])) > 0
        assert int(str(entry["memory_bytes"])) > 0
        assert str(entry["runs_here"]).partition(":")[0] in ("yes", "no", "CPU")


def test_sizes_grow(capsys: pytest.CaptureFixture[str]) -> None:
    entries = listed(capsys)
    for name in ("imaging-train", "llm-train"):
        of_name = [entry for entry in entries if entry["workload"] == name]
        for column in ("num_parameters", "flops_per_item", "memory_bytes"):
            values = [float(str(entry[column])) for entry in of_name]
            assert values == sorted(values) and values[0] < values[-1], column


def test_table_names_items_and_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    for word in ("imaging-infer", "volume", "token", "parameters", "FLOP/item", "runs here"):
        assert word in captured.out
    assert "--data: a Medical Segmentation Decathlon folder" in captured.out


def test_one_workload_or_phase_is_listed_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert {entry["workload"] for entry in listed(capsys, "workloads", "sleep")} == {
        "sleep-train",
        "sleep-infer",
    }
    assert {entry["workload"] for entry in listed(capsys, "workloads", "llm-decode")} == {
        "llm-decode"
    }


def test_workload_file_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    entries = listed(capsys, "-w", str(WORKLOADS / "timed.py"))
    assert [entry["workload"] for entry in entries] == ["timed-train", "timed-infer"]
    assert entries[0]["size"] == ""
    assert entries[0]["params"] == {
        "batch": 1,
        "seconds": 0.1,
        "width": 1,
        "shape": "1x2",
        "note": None,
        "is_wide": False,
    }
