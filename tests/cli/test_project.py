"""`bench project` through the command line: intervals, scores and sizes, always "projected"."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from bench.cli import main
from bench.results.operator_profiles import write_profile
from bench.results.schema import Row
from tests.analysis.synthetic_rows import trials, write_csv
from tests.analysis.test_projection_rows import PROFILE, ROOFS
from tests.analysis.test_projection_score import GOOD, HEADER

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    rows = trials(num=3, **ROOFS)  # type: ignore[arg-type]
    infer = trials(
        num=3, workload="imaging-infer", config_hash="1nfe7", items_unit="volume", items=100,
        **ROOFS,  # type: ignore[arg-type]
    )  # fmt: skip
    return write_csv(tmp_path / "run.csv", [*rows, *infer])


def document(capsys: Captured) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_table_says_projected_on_every_title(
    csv: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["project", str(csv), "--to", "h20,l4,ascend-910b3"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Projected (") and "projected to" in out
    assert re.search(r"h20-96g +[0-9.]+ [um]s \[[0-9.]+, [0-9.]+\]", out)
    assert "what would narrow imaging-" in out and "no operator profile" in out
    assert main(["project", str(csv), "--to", "tianjic"]) == 5
    out = capsys.readouterr().out
    assert out.startswith("imaging-train, imaging-infer: not projected to tianjic: its peak")
    assert "[" not in out


def test_one_document_with_every_figure_an_interval(csv: Path, capsys: Captured) -> None:
    assert main(["project", str(csv), "--to", "all", "--json"]) == 0
    found = document(capsys)
    assert found["kind"] == "projected"
    assert len(found["projections"]) + len(found["not_projected"]) == 2 * 51
    for one in found["projections"]:
        time_s = one["projected_time_s"]
        assert time_s["low"] < time_s["mid"] < time_s["high"]
        assert sum(one["shares"].values()) == pytest.approx(1.0)


def test_a_profile_beside_the_rows_is_used(csv: Path, capsys: Captured) -> None:
    write_profile(csv, config_hash="c0ffee", device="cpu", profile=PROFILE)
    assert main(["project", str(csv), "--to", "h20", "--json"]) == 0
    starts = [one["from"] for one in document(capsys)["projections"]]
    assert {one["workload"]: one["has_operator_profile"] for one in starts} == {
        "imaging-train": True, "imaging-infer": False,
    }  # fmt: skip


def test_devices_share_the_work_over_a_link(csv: Path, capsys: Captured) -> None:
    words = ["project", str(csv), "--to", "h20", "--devices", "8"]
    assert main([*words, "--json"]) == 0
    assert {one["link"] for one in document(capsys)["projections"]} == {"h20-nvlink"}
    assert main([*words, "--link", "infinite", "--format", "markdown"]) == 0
    assert "8 x h20-96g" in capsys.readouterr().out


def test_a_target_is_sized_over_the_catalogue(csv: Path, capsys: Captured) -> None:
    assert main(["project", str(csv), "--size-for", "imaging-infer < 30s"]) == 0
    out = capsys.readouterr().out
    assert "Projected: what would meet imaging-infer tiny fp32 within 30 s, from Test CPU" in out
    assert "nominal" in out and "restricted" in out
    assert main(["project", str(csv), "--size-for", "imaging-train 2e4 patches/s", "--to",
                 "h20,a100-sxm-80g", "--json"]) == 0  # fmt: skip
    choices = document(capsys)["choices"]
    assert [one["devices"] for one in choices] == sorted(one["devices"] for one in choices)
    assert all(one["nominal_w"] == 400 * one["devices"] for one in choices)


def test_a_size_that_was_passed_over_is_named(tmp_path: Path, capsys: Captured) -> None:
    rows = trials(num=2, **ROOFS)  # type: ignore[arg-type]
    base = trials(
        num=2, step_ms=900.0, size="base", config_hash="ba5e", batch=4,
        params_json='{"batch": 4}', **ROOFS,  # type: ignore[arg-type]
    )  # fmt: skip
    words = ["project", str(write_csv(tmp_path / "run.csv", [*base, *rows])), "--to", "l4"]
    assert main([*words, "--size-for", "imaging-train 20 patches/s"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "meet imaging-train tiny fp32 at 20 patches/s" in out
    assert "the fastest that was measured; the others: base fp32 b4 on Test CPU" in out


def test_export_rules_read_as_on_the_card_of_a_chip(csv: Path, capsys: Captured) -> None:
    chips = {"h100-sxm-80g": "restricted", "t4": "not restricted", "cloudblazer-t20": "not known"}
    for chip, said in chips.items():
        words = ["project", str(csv), "--to", chip, "--format", "markdown"]
        assert main([*words, "--size-for", "imaging-infer < 30s"]) == 0
        lines = capsys.readouterr().out.splitlines()
        line = next(one for one in lines if one.startswith(f"| {chip}"))
        assert line.split("|")[-2].strip().partition(":")[0] == said
        assert main(["list", "chips", chip]) == 0
        lines = [one for one in capsys.readouterr().out.splitlines() if "export: " in one]
        assert any(f"  {said}" in one for one in lines)


def test_a_file_of_ratios_is_scored_and_printed_whole(tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "ratios.csv"
    path.write_text(f"{HEADER}\n{GOOD}\n{GOOD.replace('2.0', '9.0')}\n")
    assert main(["project", "--score", str(path), "--format", "markdown"]) == 0
    out = capsys.readouterr().out
    assert out.count("| BERT train |") == 3, "two points, of which one is missed"
    assert "MISS" in out and "above every roof" in out and "median error" in out
    assert main(["project", "--score", str(path), "--json"]) == 0
    found = document(capsys)
    assert found["summaries"][0]["num_points"] == 2
    assert found["summaries"][0]["inside_frac"] == 0.5


MISTAKES = """
CSV => say where to
CSV --to , => --to needs chips
CSV --to h2000 => not in the catalogue
CSV --to h20 --devices 0 => --devices 0
CSV --to h20 --link ndr => give --devices
CSV --to h20 --devices 2 --link rope => rope
CSV --to h20 --format xml => --format
CSV --size-for soon => --size-for
CSV --size-for 'llm-train < 3s' => the files hold
CSV --size-for 'imaging-infer < 3s' --devices 3 => leave --devices out
CSV --score => first line must be
CSV --score --to h20 => no other choice
none.csv --to h20 => cannot be read
none.csv --score => cannot be read
"""


def test_a_mistake_is_one_line_and_exit_2(csv: Path, capsys: Captured) -> None:
    for mistake in MISTAKES.strip().splitlines():
        words, said = mistake.split(" => ")
        assert main(["project", *shlex.split(words.replace("CSV", str(csv)))]) == 2, mistake
        captured = capsys.readouterr()
        assert said in captured.err
        assert captured.err.count("\n") == 1 and captured.out == ""


LESS = "this device with 72 SMs (78 asked)"


def gpu(**cells: object) -> list[Row]:
    """Rows of a GPU, whole unless `chip_limit` says otherwise: then no roof is known."""
    roofs = {"roof_flops_per_s": None, "roof_bytes_per_s": None} if "chip_limit" in cells else {}
    where = {"device": "cuda:0", "device_type": "cuda", "device_name": "Big GPU", "dtype": "bf16"}
    return trials(num=3, **{**ROOFS, **where, **roofs, **cells})  # type: ignore[arg-type]


def test_less_of_the_device_stands_beside_the_projection(tmp_path: Path, capsys: Captured) -> None:
    rows = [*gpu(), *gpu(config_hash="1e55", step_ms=160.0, noise_frac=0.0, chip_limit=LESS)]
    path = write_csv(tmp_path / "run.csv", rows)
    assert main(["project", str(path), "--to", "h20,l4"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    # Two patches in 160 ms.
    assert f"measured on Big GPU, {LESS}: imaging-train 12.5 patch/s (3 trials)" in out
    assert out.count(LESS) == 1 and "upper bound" in out
    assert "is no start" not in out
    assert main(["project", str(path), "--to", "h20,l4", "--json"]) == 0
    found = document(capsys)
    assert not found["left_out"] and len(found["projections"]) == 2
    for one in found["projections"]:
        assert one["from"]["num_trials"] == 3
        assert [less["chip_limit"] for less in one["limited"]] == [LESS]
        assert one["limited"][0]["kind"] == "measured"
        assert one["limited"][0]["throughput_per_s"]["mid"] == pytest.approx(12.5)


def test_what_is_no_start_is_named_with_its_reason(tmp_path: Path, capsys: Captured) -> None:
    def refused(name: str, rows: list[Row], code: int) -> str:
        path = write_csv(tmp_path / f"{name}.csv", rows)
        assert main(["project", str(path), "--to", "h20", "--format", "markdown"]) == code
        return "".join(capsys.readouterr())

    assert "emulated" in refused("model", gpu(mode="emulated"), 5)
    alone = refused("alone", gpu(chip_limit=LESS), 5)
    assert LESS in alone and "no start of the same configuration on the whole" in alone
    assert "roof" not in alone
    small = {"chip_limit": "this device with 16.0 GB of memory", "config_hash": "16gb"}
    failed = gpu(**small, status="FAILED", reasons="oom")
    reason = f"no usable trial on {small['chip_limit']} (FAILED: oom)"
    assert reason in refused("failed", [*gpu(), *failed], 0)


def test_a_trial_that_was_made_good_leaves_nothing_out(tmp_path: Path, capsys: Captured) -> None:
    rows = gpu()
    lost = {**rows[0], "status": "INVALID", "reasons": "throttled"}
    again = {**rows[0], "attempt": 2}
    path = write_csv(tmp_path / "run.csv", [lost, again, *rows[1:]])
    assert main(["project", str(path), "--to", "h20", "--json"]) == 0
    assert document(capsys)["left_out"] == []
