"""Rows of several devices and links in `bench compare`, `bench gap` and `bench export`."""

import json
from typing import Any

import pytest

from bench.cli import main
from bench.results.schema import Row, Value
from tests.report.link_rows import link_run, real_run, three_links

Captured = pytest.CaptureFixture[str]


def compared(files: list[str], capsys: Captured) -> dict[str, Any]:
    main(["compare", *files, "--json"])
    document = json.loads(capsys.readouterr().out)
    assert isinstance(document, dict)
    return document


def same_hash(rows: list[Row]) -> list[Row]:
    return [{**row, "config_hash": "c0ffee"} for row in rows]


UNLIKE: dict[str, dict[str, Value]] = {
    "mode is emulated, in after.csv throttled": {"mode": "throttled"},
    "link is pcie5, in after.csv h800-nvlink": {"link": "h800-nvlink"},
    "layout is dp8, in after.csv tp4 x dp2": {"layout": "tp4 x dp2"},
    "mitigation is blank, in after.csv fp16": {"mitigation": "fp16"},
    "grad_accum is 1, in after.csv 4": {"grad_accum": 4},
    "bucket_bytes is 26214400, in after.csv 1048576": {"bucket_bytes": 2**20},
}


def test_unlike_rows_are_listed_with_the_reason_and_never_matched(
    write: Any, capsys: Captured
) -> None:
    before = same_hash(link_run("pcie5", 60.0))
    for reason, changed in UNLIKE.items():
        after = same_hash(link_run("pcie5", 60.0, cells=changed))
        document = compared(write(before=before, after=after), capsys)
        assert document["rows"] == [] and document["exit_code"] == 5
        assert reason in [one["reason"] for one in document["unmatched"]]
        assert "[emulated]" in document["unmatched"][0]["name"]


def test_like_rows_are_compared_link_by_link_and_with_old_files(
    write: Any, capsys: Captured
) -> None:
    document = compared(write(before=three_links(), after=three_links()), capsys)
    assert len(document["rows"]) == 3 and document["unmatched"] == []
    row = next(row for row in document["rows"] if row["link"] == "pcie5")
    assert (row["layout"], row["grad_accum"], row["mitigation"]) == ("dp8", 1, "")
    assert row["ratio"] == pytest.approx(1.0)
    old = [{**row, "schema_version": "1.0"} for row in real_run()]
    document = compared(write(before=old, after=real_run()), capsys)
    assert [row["verdict"] for row in document["rows"]] == ["SAME"]


def test_the_gap_is_of_one_device_unless_asked(write: Any, capsys: Captured) -> None:
    infer: dict[str, Value] = {"workload": "imaging-infer"}
    fsdp: dict[str, Value] = {"parallel": "fsdp"}
    rows = [
        *real_run(100.0),
        *real_run(cells=infer),
        *link_run("pcie5", 60.0, cells=fsdp),
        *link_run("pcie5", 10.0, cells=fsdp | infer),
    ]
    (file,) = write(rows=rows)
    assert main(["gap", file, "--json"]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert [gap["time_ratio"]["value"] for gap in document["gaps"]] == [pytest.approx(2.0)]
    assert document["num_other_layouts"] == 2
    assert "2 configurations over several devices or modelled links are left out" in captured.err
    assert main(["gap", file, "--json", "--all-layouts"]) == 0
    found = json.loads(capsys.readouterr().out)["gaps"]
    ratios = {gap["link"]: gap["time_ratio"]["value"] for gap in found}
    assert ratios == {None: pytest.approx(2.0), "pcie5": pytest.approx(160.0 / 110.0)}


def test_a_file_of_links_alone_is_not_empty_and_mixes_nothing(write: Any, capsys: Captured) -> None:
    rows = [
        *link_run("pcie5", 60.0, cells={"parallel": "fsdp"}),
        *link_run("pcie4", 60.0, cells={"parallel": "fsdp", "workload": "imaging-infer"}),
    ]
    (file,) = write(rows=rows)
    assert main(["gap", file, "--json"]) == 5
    document = json.loads(capsys.readouterr().out)
    assert document["gaps"] == [] and len(document["missing"]) == 2


def test_the_command_for_a_missing_half_names_link_layout_and_mitigation(
    write: Any, capsys: Captured
) -> None:
    def command(rows: list[Row]) -> str:
        main(["gap", *write(rows=rows), "--json"])
        (missing,) = json.loads(capsys.readouterr().out)["missing"]
        return str(missing["command"])

    cells: dict[str, Value] = {
        "workload": "llm-prefill",
        "parallel": "tp",
        "layout": "tp4 x dp2",
        "bucket_bytes": None,
    }
    assert command(link_run("bw=25GB/s,latency=5us", 9.0, cells=cells)).endswith(
        "--device cpu --devices 8 --parallel tp --tp 4 --dp 2 "
        "--link bw=25GB/s,latency=5us --mode emulated"
    )
    cells = {
        "workload": "imaging-infer",
        "mitigation": "powersgd-2",
        "grad_accum": 4,
        "bucket_bytes": 5 * 2**20,
    }
    assert command(link_run("pcie5", 9.0, devices=65536, cells=cells)).endswith(
        "--devices 65536 --parallel ddp --link pcie5 --mode emulated --bucket-mib 5 --grad-accum 4 "
        "--mitigate powersgd-2"
    )


def test_inference_over_copies_is_said_to_be_of_one_device(write: Any, capsys: Captured) -> None:
    (file,) = write(rows=link_run("pcie5", 60.0))
    assert main(["gap", file]) == 5
    out = capsys.readouterr().out
    assert "copies of a net send nothing in inference" in out
    assert "bench run" not in out


def test_exports_name_layouts_apart_and_leave_out_losses_of_virtual_ranks(
    write: Any, capsys: Captured
) -> None:
    cells: dict[str, Value] = {"loss_last": 0.123456789, "loss_first": 0.987654321}
    rows = [
        *link_run("pcie5", 60.0, cells=cells),
        *link_run("pcie5", 60.0, cells={"mitigation": "fp16"}),
        *link_run("pcie5", 60.0, cells={"parallel": "tp", "layout": "tp4 x dp2"}),
        *real_run(cells={"loss_last": 0.5}),
    ]
    (file,) = write(rows=rows)
    assert main(["export", file, "--to", "json"]) == 0
    out = capsys.readouterr().out
    assert "0.123456789" not in out and "0.987654321" not in out
    assert "loss_last" in out and "comm_exposed_ms" in out
    *names, _ = [one["name"] for one in json.loads(out)["configurations"]]
    assert [name.split("[emulated] ")[1].split(" on ")[0] for name in names] == [
        "x8 ddp over pcie5",
        "x8 ddp over pcie5 with fp16",
        "x8 tp tp4 x dp2 over pcie5",
    ]
