"""`bench project` through the command line: intervals, scores and sizes, always "projected"."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.cli import main
from bench.results.operator_profiles import write_profile
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


def test_a_table_says_projected_on_every_title(csv: Path, capsys: Captured) -> None:
    assert main(["project", str(csv), "--to", "h20,l4,ascend-910b3"]) == 0
    out = capsys.readouterr().out
    assert out.count("Projected:") == 2 and out.count("projected to") == 2
    assert "h20-96g" in out and " .. " in out
    assert "what would narrow it" in out
    assert "no operator profile" in out


def test_a_chip_without_peaks_is_one_line_and_no_number(csv: Path, capsys: Captured) -> None:
    assert main(["project", str(csv), "--to", "tianjic"]) == 5
    out = capsys.readouterr().out
    assert "imaging-train is not projected to tianjic: its peak" in " ".join(out.split())
    assert " .. " not in out


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
    has = {one["from"]["workload"]: one["from"]["has_operator_profile"]
           for one in document(capsys)["projections"]}  # fmt: skip
    assert has == {"imaging-train": True, "imaging-infer": False}


def test_devices_share_the_work_over_a_link(csv: Path, capsys: Captured) -> None:
    assert main(["project", str(csv), "--to", "h20", "--devices", "8", "--json"]) == 0
    assert {one["link"] for one in document(capsys)["projections"]} == {"h20-nvlink"}
    words = ["project", str(csv), "--to", "h20", "--devices", "8", "--link", "infinite"]
    assert main([*words, "--format", "markdown"]) == 0
    assert "8 x h20-96g" in capsys.readouterr().out


def test_a_target_is_sized_over_the_catalogue(csv: Path, capsys: Captured) -> None:
    assert main(["project", str(csv), "--size-for", "imaging-infer < 30s"]) == 0
    out = capsys.readouterr().out
    assert "Projected: what would meet imaging-infer within 30 s" in out
    assert "nominal" in out and "restricted" in out
    assert main(["project", str(csv), "--size-for", "imaging-train 2e4 patches/s", "--to",
                 "h20,a100-sxm-80g", "--json"]) == 0  # fmt: skip
    choices = document(capsys)["choices"]
    assert [one["devices"] for one in choices] == sorted(one["devices"] for one in choices)
    assert all(one["nominal_w"] == 400 * one["devices"] for one in choices)


def test_a_file_of_ratios_is_scored_and_printed_whole(tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "ratios.csv"
    path.write_text(f"{HEADER}\n{GOOD}\n{GOOD.replace('2.0', '9.0')}\n")
    assert main(["project", "--score", str(path), "--format", "markdown"]) == 0
    out = capsys.readouterr().out
    assert out.count("| BERT train | transformer |") == 2
    assert "MISS" in out and "above every roof" in out and "median error" in out
    assert main(["project", "--score", str(path), "--json"]) == 0
    found = document(capsys)
    assert found["summaries"][0]["num_points"] == 2
    assert found["summaries"][0]["inside_frac"] == 0.5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{csv}"], "say where to"),
        (["{csv}", "--to", ","], "--to needs chips"),
        (["{csv}", "--to", "h2000"], "not in the catalogue"),
        (["{csv}", "--to", "h20", "--devices", "0"], "--devices 0"),
        (["{csv}", "--to", "h20", "--link", "ndr"], "give --devices"),
        (["{csv}", "--to", "h20", "--devices", "2", "--link", "rope"], "rope"),
        (["{csv}", "--to", "h20", "--format", "xml"], "--format"),
        (["{csv}", "--size-for", "soon"], "--size-for"),
        (["{csv}", "--size-for", "llm-train < 3s"], "the files hold"),
        (["{csv}", "--size-for", "imaging-infer < 3s", "--devices", "3"], "leave --devices out"),
        (["{csv}", "--score"], "first line must be"),
        (["{csv}", "--score", "--to", "h20"], "no other choice"),
        (["none.csv", "--to", "h20"], "cannot be read"),
        (["none.csv", "--score"], "cannot be read"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(
    csv: Path, capsys: Captured, words: list[str], said: str
) -> None:
    assert main(["project", *(word.replace("{csv}", str(csv)) for word in words)]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1 and captured.out == ""


def test_rows_that_are_no_start_are_named(tmp_path: Path, capsys: Captured) -> None:
    rows = trials(num=1, mode="emulated", **ROOFS)  # type: ignore[arg-type]
    path = write_csv(tmp_path / "run.csv", rows)
    assert main(["project", str(path), "--to", "h20"]) == 5
    assert "emulated" in capsys.readouterr().err
