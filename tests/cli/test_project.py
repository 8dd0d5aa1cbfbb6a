"""`bench project` through the command line: intervals, scores and sizes, always "projected"."""

import re
from pathlib import Path
from typing import Any

import pytest

from bench.results.beside_rows import write_profile
from bench.results.schema import Row
from tests.analysis.synthetic_rows import trials
from tests.analysis.test_projection_rows import GOOD, HEADER, PROFILE, ROOFS
from tests.cli.conftest import Ask, Write


def measured(**cells: object) -> list[Row]:
    return trials(num=3, **{**ROOFS, **cells})  # type: ignore[arg-type]


@pytest.fixture
def csv(write: Write) -> str:
    infer = {"workload": "imaging-infer", "config_hash": "1nfe7", "items_unit": "volume"}
    return write(run=[*measured(), *measured(**infer, items=100)])[0]


def test_titles_say_projected_documents_have_intervals_and_a_profile_and_a_link_are_used(
    csv: str, ask: Ask
) -> None:
    out = ask("project", csv, "--to", "h20,l4,ascend-910b3").out
    assert out.startswith("Projected (") and "projected to" in out
    assert re.search(r"h20-96g +[0-9.]+ [um]s \[[0-9.]+, [0-9.]+\]", out)
    assert out.count("what would narrow it most: an operator profile") == 1
    assert "80 % interval" in out and out.count("nobody profiled its operators") == 1
    out = ask("project", csv, "--to", "tianjic", code=5).out
    assert out.startswith("imaging-train, imaging-infer: not projected to tianjic: its peak")
    assert "[" not in out
    found = ask("project", csv, "--to", "all", "--json").document
    assert found["kind"] == "projected"
    assert len(found["projections"]) + len(found["not_projected"]) == 2 * 51
    for one in found["projections"]:
        time_s = one["projected_time_s"]
        assert time_s["low"] < time_s["mid"] < time_s["high"]
        assert sum(one["shares"].values()) == pytest.approx(1.0)
    write_profile(Path(csv), config_hash="c0ffee", device="cpu", profile=PROFILE)
    words = ["project", csv, "--to", "h20"]
    starts = [one["from"] for one in ask(*words, "--json").document["projections"]]
    found = {one["workload"]: one["has_operator_profile"] for one in starts}
    assert found == {"imaging-train": True, "imaging-infer": False}
    words += ["--devices", "8"]
    projections = ask(*words, "--json").document["projections"]
    assert [one["link"] for one in projections] == ["h20-nvlink", None], "inference sends nothing"
    assert "8 x h20-96g" in ask(*words, "--link", "infinite", "--format", "markdown").out


def test_a_training_of_so_many_steps_has_its_time(csv: str, ask: Ask) -> None:
    words = ("project", csv, "--to", "h20")
    document = ask(*words, "--steps", "250000", "--json").document
    train, infer = document["projections"]
    assert (document["steps"], infer["projected_total_s"]) == (250_000, None)
    total_s = train["projected_total_s"]
    for name, time_s in train["projected_time_s"].items():
        assert total_s[name] == pytest.approx(250_000 * time_s)
    ends = (f"{total_s[name] / 3600:.3g}" for name in ("mid", "low", "high"))
    out = ask(*words, "--steps", "250000").out
    # As --size-for has it: the same steps, divided over the devices.
    target = ("--size-for", f"imaging-train 250000 steps in {total_s['mid'] / 4:.9g} s")
    (choice,) = ask("project", csv, "--to", "h20", *target, "--json").document["choices"]
    several = ask(*words, "--steps", "25e4", "--devices", choice["devices"], "--json").document
    assert several["projections"][0]["projected_total_s"] == choice["projected_total_s"]
    assert choice["devices"] > 3
    assert "250,000 steps" in out and "{} h [{}, {}]".format(*ends) in out
    refused = ask(*words, "--steps", "0", code=2).one_line
    assert "--steps 0 goes with --to and is over 0, such as 250000" in refused


def test_workloads_of_the_files_are_chosen_as_run_names_them(
    csv: str, write: Write, tmp_path: Path, ask: Ask
) -> None:
    both = ["imaging-train", "imaging-infer"]
    for text, expected in (("imaging", both), ("all", both), ("imaging:train", both[:1]),
                           ("*-infer", both[1:]), ("./imaging.py:infer", both[1:]),
                           ("imaging-train, imaging:infer", both), ("medical", both),
                           ("everything", both), ("medical:infer", both[1:])):  # fmt: skip
        found = ask("project", csv, "--to", "l4", "-w", text, "--json").document["projections"]
        assert [one["from"]["workload"] for one in found] == expected, text
    (mine,) = write(mine=measured(workload="my_net-train"))
    (found,) = ask("gap", mine, "-w", "my-net.py:train", "--steps", 1, "--json").document["demands"]
    assert found["workload"] == "my_net-train", "as the run of my-net.py named it"
    err = ask("gap", csv, "-w", "language", code=2).one_line
    assert "--workload 'language' is not one of imaging-train, imaging-infer" in err
    output = tmp_path / "report.md"
    for verb, *words in (("gap",), ("project", "--to", "l4"), ("report", "-o", str(output))):
        err = ask(verb, csv, *words, "-w", "imaging:decode", code=2).one_line
        assert "--workload 'imaging:decode' is not one of imaging-train, imaging-infer" in err
    found = ask("gap", csv, "--workload", "imaging:train", "--items", "5", "--json").document
    assert [one["workload"] for one in found["demands"]] == both[:1]
    answer = ask("report", csv, "-w", "imaging:train", "-o", output, "--json")
    assert answer.document["rows"] == 3 and "imaging-infer" in answer.err
    assert "left out by --workload: imaging-infer" in output.read_text()


def test_another_dtype_starts_from_what_ran_in_it(csv: str, write: Write, ask: Ask) -> None:
    words = ("--to", "h20,l4", "-w", "imaging:train")
    (file,) = write(two=[*measured(), *measured(dtype="bf16", config_hash="bf16")])
    for path, starts in ((csv, ["fp32"] * 2), (file, ["bf16"] * 2)):
        found = ask("project", path, *words, "--dtype", "bf16", "--json").document["projections"]
        assert [one["from"]["dtype"] for one in found] == starts
        assert [one["dtype"] for one in found] == ["bf16"] * 2
        is_recast = [any("bf16 of a run in fp32" in note for note in one["notes"]) for one in found]
        assert is_recast == [starts[0] == "fp32"] * 2
    target = ("--size-for", "imaging-train 250000 steps in 7 days", "--dtype", "bf16")
    assert "bf16 of a run in fp32" in ask("project", csv, *target).out
    assert "not one of fp32" in ask("project", csv, *words, "--dtype", "fp4", code=2).err


def test_a_report_has_the_tables_of_projection_and_sizing(
    csv: str, tmp_path: Path, ask: Ask
) -> None:
    words = ("--to", "h20,l4", "-w", "imaging:train")
    target = ("--size-for", "imaging-train 250000 steps in 7 days")
    output = tmp_path / "report.md"
    document = ask("report", csv, *words, *target, "-o", output, "--json").document
    assert document["sections"][-2:] == ["projection", "provenance"]
    page = output.read_text().splitlines()
    for more in ((), target):
        lines = ask("project", csv, *words, *more, "--format", "markdown").out.splitlines()
        assert len(lines) > 8 and [line for line in lines if line and line not in page] == []
    assert "projection" not in ask("report", csv, "-o", output, "--json").document["sections"]


def test_a_target_is_sized_over_the_catalogue_with_its_export_rules(
    csv: str, write: Write, ask: Ask
) -> None:
    out = ask("project", csv, "--size-for", "imaging-infer < 30s").out
    assert "Projected: what would meet imaging-infer tiny fp32 within 30s, from Test CPU" in out
    assert "nominal" in out and "restricted" in out
    chips = ("--to", "h20,a100-sxm-80g", "--json")
    choices = ask("project", csv, "--size-for", "imaging-train 2e4 patches/s", *chips).document
    devices = [one["devices"] for one in choices["choices"]]
    assert devices == sorted(devices)
    assert [one["nominal_w"] for one in choices["choices"]] == [400 * num for num in devices]
    cells = {"step_ms": 900.0, "size": "base", "config_hash": "ba5e", "batch": 4}
    (file,) = write(two=[*measured(**cells, params_json='{"batch": 4}'), *measured()])
    out = ask("project", file, "--to", "l4", "--size-for", "imaging-train 20 patches/s").out
    out = " ".join(out.split())
    assert "meet imaging-train tiny fp32 at 20 patches/s" in out
    assert "the fastest that was measured; the others: base fp32 b4 on Test CPU" in out
    # 250,000 steps of 2 patches in a week are 500,000 / 7 patches a day, to whatever chip.
    sized = [
        ask("project", csv, "--size-for", f"imaging-train {target}", *chips).document
        for target in ("250000 steps in 7 days", f"{5e5 / 7} patches/day", "5e5 patches in 1e4 min")
    ]
    for one, by_rate in zip(sized[0]["choices"], sized[1]["choices"], strict=True):
        assert one["devices_range"] == by_rate["devices_range"]
        total_s, per_s = one["projected_total_s"], one["projected_throughput_per_s"]
        assert total_s["mid"] * per_s["mid"] == pytest.approx(5e5)
        assert by_rate["projected_total_s"] is None
    assert sized[2]["target"]["items_per_s"] == pytest.approx(5e5 / 6e5)
    for target, column in (("25000000 steps in 7 days", "in all"), ("5 patches/day", "patch/day")):
        out = ask("project", csv, "--size-for", f"imaging-train {target}").out
        assert target in out.splitlines()[0] and column in out.splitlines()[1]
        assert (" days [" in out and "a step is 2 patches" in out) == (column == "in all")
    # 5,000 steps of 100 ms; under a hundredth of a day it is minutes.
    minutes = r"8\.[34]\d min"
    for within, time in (("7d", minutes), ("1e4 min", minutes), ("1e1h", r"0\.1[34]\d? h")):
        words = ("-w", "imaging:train", "--steps", 5000, "--within", within, "--format", "markdown")
        assert re.search(rf"\| {time} ", ask("gap", csv, *words).out), within
    rules = {"h100-sxm-80g": "restricted", "t4": "not restricted", "cloudblazer-t20": "not known"}
    for chip, said in rules.items():
        words = ["project", csv, "--to", chip, "--format", "markdown"]
        lines = ask(*words, "--size-for", "imaging-infer < 30s").out.splitlines()
        line = next(one for one in lines if one.startswith(f"| {chip}"))
        assert line.split("|")[-2].strip().partition(":")[0] == said
        lines = ask("list", "chips", chip).out.splitlines()
        assert any(f"  {said}" in one for one in lines if "export: " in one), chip


REFERENCE = str(Path(__file__).parents[2] / "results" / "reference" / "cpu-2core-small.csv")


def test_eight_l40s_train_over_their_measured_link(ask: Ask) -> None:
    """5.8 M gradients of 4 bytes take eight 26.8 ms, on the line between the measured 16 MiB (19.4)
    and 32 MiB (38.9). One alone works for 4.83 ms, of which two thirds may hide a part: 23.6 to
    26.8 ms stay, 25.2 in the middle. Nobody counted the operators: 293 to 38,820, in the middle
    3,373, each of which takes the host 6 us. 8 x 1024 tokens in 25.2 + 20.2 ms are 180,000 a s.
    """
    words = ("project", REFERENCE, "--to", "l40s", "--devices", "8", "--json")

    def train(*more: str) -> dict[str, Any]:
        found = ask(*words, *more).document["projections"]
        return next(one for one in found if one["from"]["workload"] == "llm-train")

    usual, named, root = train(), train("--link", "l40s-pcie"), train("--link", "pcie4")
    assert usual == named and usual["link"] == "l40s-pcie"
    speed = usual["projected_throughput_per_s"]
    assert speed["mid"] == pytest.approx(180e3, rel=0.02)
    assert speed["high"] < 8 * 1024 / 0.0236 < root["projected_throughput_per_s"]["mid"]


def test_more_than_a_server_holds_is_projected_in_full_nodes_and_each_row_says_so(
    ask: Ask,
) -> None:
    words = ("project", REFERENCE, "--to", "h20-96g,ascend-910b3")
    found = ask(*words, "--devices", "176", "--json").document["projections"]
    links = {one["link"] for one in found if one["from"]["workload"].endswith("-train")}
    assert links == {"h20-nvlink*8/ndr", "ascend910b-hccs*8/hdr"}
    words += ("--size-for", "llm-train 5e6 tokens/s")
    out = ask(*words).out
    assert "h20-nvlink*8/ndr" in out and "ascend910b-hccs*8/hdr" in out
    for one in ask(*words, "--json").document["choices"]:
        assert all(count % 8 == 0 for count in one["devices_range"]), one["chip"]
    found = ask(*words, "--link", "h20-nvlink", "--json", code=5).document["not_met"]
    assert {one["reason"] for one in found} == {
        "not met by 8 of them in the middle over h20-nvlink"
    }


def test_a_file_of_ratios_is_scored_and_printed_whole(tmp_path: Path, ask: Ask) -> None:
    path = tmp_path / "ratios.csv"
    path.write_text(f"{HEADER}\n{GOOD}\n{GOOD.replace('2.0', '9.0')}\n")
    out = ask("project", "--score", path, "--format", "markdown").out
    assert out.count("| BERT train |") == 3, "two points, of which one is missed"
    assert "MISS" in out and "above every roof" in out and "median error" in out
    (summary,) = ask("project", "--score", path, "--json").document["summaries"][:1]
    assert (summary["num_points"], summary["inside_frac"]) == (2, 0.5)


LESS = "this device with 72 SMs (78 asked)"


def gpu(**cells: object) -> list[Row]:
    """Rows of a GPU, whole unless `chip_limit` says otherwise: then no roof is known."""
    roofs = {"roof_flops_per_s": None, "roof_bytes_per_s": None} if "chip_limit" in cells else {}
    where = {"device": "cuda:0", "device_type": "cuda", "device_name": "Big GPU", "dtype": "bf16"}
    return measured(**{**where, **roofs, **cells})


def test_less_of_the_device_stands_beside_the_projection(write: Write, ask: Ask) -> None:
    less = gpu(config_hash="1e55", step_ms=160.0, noise_frac=0.0, chip_limit=LESS)
    words = ["project", *write(run=[*gpu(), *less]), "--to", "h20,l4"]
    out = " ".join(ask(*words).out.split())
    # Two patches in 160 ms.
    assert f"measured on Big GPU, {LESS}: imaging-train 12.5 patch/s (3 trials)" in out
    assert out.count(LESS) == 1 and "upper bound" in out
    assert "is no start" not in out
    found = ask(*words, "--json").document
    assert not found["left_out"] and len(found["projections"]) == 2
    for one in found["projections"]:
        assert one["from"]["num_trials"] == 3
        (limited,) = one["limited"]
        assert (limited["chip_limit"], limited["kind"]) == (LESS, "measured")
        assert limited["throughput_per_s"]["mid"] == pytest.approx(12.5)


def test_what_is_no_start_is_named_with_its_reason(write: Write, ask: Ask) -> None:
    small = {"chip_limit": "this device with 16.0 GB of memory", "config_hash": "16gb"}
    failed = [*gpu(), *gpu(**small, status="FAILED", reasons="oom")]
    for rows, code, reason in (
        (gpu(mode="emulated"), 5, "emulated"),
        (gpu(dtype="fp4"), 5, "its dtype 'fp4' is none of fp32"),
        (gpu(chip_limit=LESS), 5, "no start of the same configuration on the whole"),
        (failed, 0, f"no usable trial on {small['chip_limit']} (FAILED: oom)"),
    ):
        words = ["project", *write(run=rows), "--to", "h20", "--format", "markdown"]
        said = "".join(ask(*words, code=code))
        assert reason in said
        assert "on the whole" not in reason or (LESS in said and "roof" not in said)
    first, *rest = gpu()
    lost = {**first, "status": "INVALID", "reasons": "throttled"}
    made_good = write(run=[lost, {**first, "attempt": 2}, *rest])
    assert ask("project", *made_good, "--to", "h20", "--json").document["left_out"] == []


def test_a_score_without_a_miss_has_no_empty_table_and_a_phase_is_one_of_two(
    ask: Ask, tmp_path: Path
) -> None:
    path = tmp_path / "ratios.csv"
    head = "chip_a,chip_b,phase,net,kind,num_devices,throughput_ratio_b_over_a,note,point_id"
    line = "a100-sxm-80g,a100-sxm-80g,{},BERT-large,transformer,8,1,,one"
    path.write_text(f"{head}\n{line.format('train')}\n", encoding="utf-8")
    out = ask("project", "--score", path).out
    assert "inside" in out and "Misses" not in out
    path.write_text(f"{head}\n{line.format('trian')}\n", encoding="utf-8")
    said = ask("project", "--score", path, code=2).one_line
    assert "line 2: phase: 'trian' is not one of train, infer" in said
