"""Rows of two machines with a device of one name are kept apart and named, by every verb."""

from pathlib import Path

import pytest

from bench.analysis.trials.configuration import gather
from bench.cli.measuring.run import show_result
from bench.results.schema import Row
from tests.analysis.synthetic_rows import trials
from tests.analysis.test_gap import INFER
from tests.cli.conftest import Ask, Write

HOST = {"host_hash": "aaaa000011112222", "driver_version": "570.1", "run_id": "first"}
OTHER = {"host_hash": "bbbb000011112222", "driver_version": "570.1", "run_id": "second"}


def phases(*, step_ms: float, **cells: str) -> list[Row]:
    return [
        *trials(step_ms=step_ms, seed=1, **cells),
        *trials(step_ms=step_ms / 3, seed=2, **{**INFER, **cells}),
    ]


def two() -> list[Row]:
    return phases(step_ms=100.0, **HOST) + phases(step_ms=300.0, **OTHER)


def test_gap_and_report_show_each_machine_and_the_ratio_between_them(
    tmp_path: Path, write: Write, ask: Ask
) -> None:
    same_run = [{**row, "run_id": "first"} for row in two()]
    for rows in (two(), same_run):
        (merged,) = write(merged=rows)
        document = ask("gap", merged, "--json").document
        times = {
            one["machine"]: one["time_per_item_s"]["value"] for one in document["demands"][::2]
        }
        assert times == {
            "host aaaa0000": pytest.approx(0.05, rel=0.05),
            "host bbbb0000": pytest.approx(0.15, rel=0.05),
        }
        assert {one["machine"] for one in document["gaps"]} == set(times)
    (between,) = document["devices"]
    assert between["device_b"] == "Test CPU (host bbbb0000)"
    assert between["train_ratio"]["value"] == pytest.approx(3.0, rel=0.1)
    page = tmp_path / "page.md"
    ask("report", merged, "-o", page)
    (apart,) = write(apart=[*trials(**HOST), *trials(**{**INFER, **OTHER})])
    out = ask("gap", apart, code=5).out
    for host, lacks in (("aaaa0000", "inference"), ("bbbb0000", "training")):
        assert f"Test CPU (host {host})" in page.read_text()
        assert f"on Test CPU (host {host}) has no {lacks} beside it" in out


def test_compare_takes_the_same_machine_and_else_the_device_elsewhere(
    write: Write, ask: Ask
) -> None:
    here, there, merged = write(
        here=phases(step_ms=100.0, **HOST), there=phases(step_ms=300.0, **OTHER), merged=two()
    )
    document = ask("compare", here, merged, "--json").document
    assert [row["ratio"] for row in document["rows"]] == [pytest.approx(1.0)] * 2
    assert [row["b"]["machine"] for row in document["rows"]] == ["host aaaa0000"] * 2
    reasons = {one["reason"] for one in document["unmatched"]}
    assert reasons == {"here.csv has it, but not on Test CPU (host bbbb0000)"}
    out = ask("compare", here, merged).out
    assert "device: Test CPU (host aaaa0000);" in out and "machines" not in out
    # Two hosts on purpose: one device, with a word about the hosts.
    out = ask("compare", here, there, code=1).out
    assert "2 rows of two different machines" in out and "device: Test CPU;" in out
    third, both = write(third=phases(step_ms=100.0, host_hash="cccc", run_id="3"), both=[*two()])
    out = ask("compare", third, both, code=1).out
    assert "Test CPU -> host aaaa0000" in out and "Test CPU -> host bbbb0000" in out
    out = ask("compare", third, both, here, code=1).out
    assert "Test CPU (host aaaa0000):" in out and "Test CPU (host bbbb0000):" in out


def test_export_and_project_and_a_run_on_two_hosts_keep_them_apart(
    write: Write, ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    roofs = {"roof_flops_per_s": 1e12, "roof_bytes_per_s": 1e11, "flops_per_item": 1e9}
    rows = [row | roofs for row in two()]
    (merged,) = write(merged=rows)
    exported = ask("export", merged, "--to", "pytest-benchmark").document["benchmarks"]
    names = [one["name"] for one in exported]
    assert [name.rpartition(" host ")[2][:4] for name in names] == ["aaaa", "aaaa", "bbbb", "bbbb"]
    out = ask("project", merged, "--to", "h100-sxm").out
    assert "host aaaa0000" in out and "host bbbb0000" in out
    show_result(rows, path=Path("run.csv"))
    assert "Test CPU (host bbbb0000)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "column",
    ["host_hash", "torch_version", "driver_version", "runtime_version", "dnn_version"]
    + ["python_version", "cpu_cores_usable"],
)
def test_each_fact_of_host_and_software_keeps_rows_apart_and_names_them(column: str) -> None:
    rows = [*trials(**{column: "1.0"}), *trials(seed=1, **{column: "2.0"}), *trials(seed=2)]
    rows[-5:] = [{**row, column: None} for row in rows[-5:]]
    found = gather(rows)
    word = {"host_hash": "host", "cpu_cores_usable": "cores"}.get(
        column, column.removesuffix("_version")
    )
    assert [one.machine for one in found] == [f"{word} {v}" for v in ("1.0", "2.0", "unknown")]
    assert [len(one.used) for one in found] == [5, 5, 5]


def test_runs_again_on_one_machine_and_devices_of_other_names_are_as_before() -> None:
    again = [row | {"run_id": "2"} for row in trials(**HOST)]
    (one,) = gather([*trials(**HOST), *again])
    assert (len(one.used), one.machine, one.device) == (10, "", "Test CPU")
    gpu = trials(device_name="GPU X", device_type="cuda", **OTHER)
    assert [one.machine for one in gather([*trials(**HOST), *gpu])] == ["", ""]
    (old,) = gather([{**row, "host_hash": None} for row in trials()])
    assert (old.machine, len(old.used)) == ("", 5)
