"""Verbs that judge, compare and gap: exit codes, formats, and files nobody should trust."""

import json
import random
import re
import shlex
from pathlib import Path

import pytest

from bench import discovery
from bench.analysis.comparison.noise_floors import default_noise_path, save_floors
from bench.analysis.gap.gap_result import measure_gap
from bench.cli import main
from bench.report.plots.plots_gap import gap_plots
from bench.report.tables import gap_tables
from bench.results.schema import COLUMNS, REQUIRED, SIGNED, Row, Value
from tests.analysis.synthetic_rows import trials, write_csv
from tests.analysis.test_compare import a_floor
from tests.analysis.test_gap import INFER
from tests.analysis.test_projection_rows import ROOFS
from tests.cli.conftest import Ask, Write


def test_every_format_carries_the_verdict_and_flag_or_noise_floor_set_the_threshold(
    write: Write, ask: Ask
) -> None:
    before = [*trials(seed=1), *trials(config_hash="gone", batch=9)]
    a, b = write(before=before, after=trials(seed=2, step_ms=120.0))
    assert "REGRESSION" in ask("compare", a, b, code=1).out
    assert "IMPROVED" in ask("compare", b, a).out
    document = ask("compare", a, b, "--json", code=1).document
    assert (document["files"], document["exit_code"]) == (["before.csv", "after.csv"], 1)
    (row,) = document["rows"]
    assert (row["verdict"], row["workload"], row["a"]["num"]) == ("REGRESSION", "imaging-train", 5)
    assert row["low"] < row["ratio"] < row["high"]
    (unmatched,) = document["unmatched"]
    assert unmatched["verdict"] == "NOT COMPARED"
    assert unmatched["reason"] == "batch is 9, in after.csv 2"
    out = ask("compare", a, b, "--format", "markdown", code=1).out
    assert "| imaging-train |" in out and "REGRESSION" in out
    out = ask("compare", a, b, "--format", "github", code=1).out
    assert out.startswith("## bench compare (time): 1 REGRESSION")
    assert "<details><summary>All rows</summary>" in out
    assert "SAME" in ask("compare", a, b, "--fail-on", "50%").out
    save_floors(default_noise_path(), floors=[a_floor(0.2)])
    ask("compare", a, b)


def test_undecided_exits_3_only_under_strict_and_nothing_to_compare_4_or_5(
    write: Write, ask: Ask
) -> None:
    a, b, bad, lost, other, new = write(
        before=trials(seed=1, noise_frac=0.03),
        after=trials(seed=2, noise_frac=0.03, step_ms=107.0),
        bad=trials(status="INVALID", reasons="drift"),
        lost=trials(status="FAILED", reasons="crashed"),
        other=trials(workload="llm-train", config_hash="x"),
        new=trials(schema_version="99.0"),
    )
    out = ask("compare", a, b, "--fail-on", "3%", "--format", "markdown").out
    assert re.search(r"INCONCLUSIVE \| about \d+ more trials? \|", out)
    ask("compare", a, b, "--fail-on", "3%", "--strict", code=3)
    ask("compare", a, bad, code=4)
    ask("compare", a, other, code=5)
    err = ask("compare", a, new, code=4).err
    assert "99.0" in err and err.count("\n") == 1
    said = "bench: no usable trial (OK or WARN) in the files given\n"
    assert ask("gap", lost, code=5).err == said


def test_a_gate_does_not_pass_what_was_not_judged(write: Write, ask: Ask) -> None:
    a, few, many, other = write(
        a=trials(seed=1),
        few=trials(seed=2, num=2),
        many=trials(seed=3),
        other=trials(seed=4, device_name="Another CPU"),
    )
    ask("compare", a, few)
    answer = ask("compare", a, few, "--fail-on", "5%", "--json", code=3).document
    assert (answer["rows"][0]["verdict"], answer["exit_code"]) == ("NOT COMPARED", 3)
    ask("compare", a, many, "--fail-on", "50%")
    ask("compare", a, other)
    ask("compare", a, other, "--fail-on", "50%", code=3)
    ask("compare", a, other, "--fail-on", "50%", "--force-gate")


def test_smoke_rows_stand_beside_no_measured_ones(tmp_path: Path, write: Write, ask: Ask) -> None:
    smoke: dict[str, Value] = {"status": "WARN", "reasons": "smoke;input_bound", "run_id": "run2"}
    slow = trials(num=3, step_ms=900.0, **smoke)
    measured, quick, both = write(
        measured=trials(seed=1, **ROOFS),  # type: ignore[arg-type]
        quick=slow,
        both=[*trials(seed=1, **ROOFS), *slow, *trials(seed=2, **INFER)],  # type: ignore[arg-type]
    )
    note = "left out: 3 smoke rows (imaging-train), too short to stand beside measured ones"
    answer = ask("compare", measured, quick, "--json", code=4)
    (row,) = answer.document["rows"]
    assert (row["verdict"], row["b"]["num_usable"]) == ("NOT COMPARED", 0)
    assert "quick.csv: 0 usable trials, needs 3 (3 invalid or failed: smoke)" in row["reason"]
    assert answer.err.splitlines() == [note]
    (row,) = ask("compare", measured, both, "--json").document["rows"]
    assert (row["verdict"], row["b"]["num"], row["ratio"]) == ("SAME", 5, pytest.approx(1.0))
    for words in (("gap",), ("project", "--to", "l4"), ("export", "--to", "json"), ("claims",)):
        assert note in ask(*words, both).err.splitlines(), words
    ask("report", both, "-o", tmp_path / "page.md")
    assert note in (tmp_path / "page.md").read_text(encoding="utf-8")
    (gap,) = ask("gap", both, "--json").document["gaps"]
    assert gap["time_ratio"]["value"] == pytest.approx(4.0, rel=0.1)
    only = "only smoke rows: they show that it runs, and measure nothing"
    assert ask("compare", quick, quick).err.splitlines() == [only]


def test_different_devices_are_ratios_and_three_files_a_matrix(
    tmp_path: Path, write: Write, ask: Ask
) -> None:
    a, b = write(a=trials(), b=trials(step_ms=5.0, device_type="cuda", device_name="GPU X"))
    out = ask("compare", a, b).out
    assert all(words in out for words in ("Different devices", "x0.05", "ratio only"))
    files = write(a=trials(), b=trials(seed=2, step_ms=130.0), c=trials(seed=3, step_ms=70.0))
    out = ask("compare", *files, "--format", "markdown", code=1).out
    assert all(words in out for words in ("| a.csv | b.csv | c.csv |", "IMPROVED", "REGRESSION"))
    # Files of one name are told apart.
    (tmp_path / "y").mkdir()
    files = [files[0], str(write_csv(tmp_path / "y" / "a.csv", trials()))]
    assert ask("compare", *files, "--json").document["files"] == files
    labels = ask("compare", files[0], files[0], "--json").document["files"]
    assert labels == [f"{files[0]} (1)", f"{files[0]} (2)"]


def test_hostile_cells_are_shown_and_not_obeyed(write: Write, ask: Ask) -> None:
    hostile = "=cmd()|`x`[red]<script>\x1b[31m"
    a, b = write(a=trials(workload=hostile), b=trials(seed=2, workload=hostile))
    assert "\x1b" not in ask("compare", a, b).out
    out = ask("compare", a, b, "--format", "github").out
    assert "<script>" not in out and "\x1b" not in out
    assert "\\|\\`x\\`\\[red\\]&lt;script&gt;" in out
    (file,) = write(a=trials(workload="<script>[red]\x1b[31m|-train", params_json="{}"))
    out = ask("gap", file, "--format", "markdown", code=5).out
    assert "<script>" not in out and "\x1b" not in out


def test_thousands_of_rows_are_cut_on_screen_and_whole_in_json(write: Write, ask: Ask) -> None:
    def many(seed: int) -> list[Row]:
        return [
            row for i in range(210) for row in trials(seed=seed + i, num=3, config_hash=f"h{i}")
        ]

    files = write(a=many(0), b=many(1000))
    assert "10 further rows not shown" in ask("compare", *files).out
    assert len(ask("compare", *files, "--json").document["rows"]) == 210


def test_halves_in_one_file_or_two_make_one_gap_with_every_table(write: Write, ask: Ask) -> None:
    train, infer = trials(seed=1, step_ms=300.0), trials(seed=2, **INFER)
    both, *files = write(both=[*train, *infer], train=train, infer=infer)
    asked = ["--items", "1000", "--epochs", "5", "--load", "200/day", "--latency", "30s"]
    document = ask("gap", both, "--json", *asked).document
    (gap,) = document["gaps"]
    assert gap["time_ratio"]["value"] == pytest.approx(12.0, rel=0.1)
    assert document["trainings"][0]["items"] == 5000.0
    (served,) = document["served"]
    assert served["used_frac"] == pytest.approx(200 * 0.1 / 86400.0, rel=0.1)
    assert served["devices"] == 1 and served["basis"].endswith("their spread assumed: 0.3")
    out = ask("gap", *files).out
    assert "Training over inference" in out and "compared per voxel" in out
    # A loader of --data takes a core from training alone, and the roof is that of the threads.
    for threads in (1, 2):
        cells: dict[str, Value] = {"roof_frac": 0.2, "threads": threads}
        parts = [*trials(**cells), *trials(**{**INFER, **cells, "threads": 2})]
        said = ask("gap", *write(threads=parts)).out
        words = "ran on 1 and 2 threads, each share is of that roof, so utilisation is not"
        assert (words in said) == (threads == 1)
    # Two patches, or a volume, in 100 ms: 7,200 patches in 6 minutes, 36,000 volumes an hour.
    still = write(still=[*trials(noise_frac=0.0), *trials(noise_frac=0.0, **INFER)])
    asked = ["--load", "5/h", "--latency", "30000ms", "--steps", "3600", "--within", "5min"]
    out = ask("gap", *still, "--format", "markdown", *asked).out
    assert out.count("| --- |") >= 3
    assert (
        "**With waiting: imaging-infer tiny fp32, 5/h, p95 within 30000ms, one device \\[95 %\\]**"
        in out
    )
    assert "| 7,200 patches | 6 min | 2 |" in out and "| 35.9 kvolume/h |" in out


def parameters(name: str, **overrides: object) -> str:
    asked = discovery.instance(discovery.load(name), size="tiny", overrides=overrides)
    return json.dumps(discovery.parameters(asked))


def test_missing_half_is_named_with_a_command_that_measures_it(write: Write, ask: Ask) -> None:
    cells: dict[str, Value] = {
        "params_json": parameters("imaging", batch=3, schedule_steps=99),
        "compile": True,
        "compile_mode": "max-autotune",
        "dtype": "bf16",
        "workload_version": discovery.load("imaging").version,
    }
    reported = ask("gap", *write(train=trials(**cells)), code=5).out
    command = shlex.split(reported[reported.index("bench run") :].splitlines()[0])
    expected = "bench run --workload imaging-infer --size tiny --batch 3 --dtype bf16 --compile"
    flags = ["--compile-mode", "max-autotune", "--set", "schedule_steps=99", "--device", "cpu"]
    assert command == [*expected.split(), *flags]

    llm = trials(workload="llm-train", params_json=parameters("llm"))
    mine = trials(workload="mine-infer", params_json='{"batch": 2, "width": 7}', size=None)
    for half, lacks, command in (
        (llm, "inference", "--workload llm-prefill --workload llm-decode"),
        # All parameters of a workload that is not at hand.
        (mine, "training", "bench run --workload mine-train --batch 2 --dtype fp32 --set width=7"),
    ):
        (missing,) = ask("gap", *write(half=half), "--json", code=5).document["missing"]
        assert missing["lacks"] == lacks and command in missing["command"]
    assert missing["command"].endswith("--set width=7 --device cpu")


def both_phases(number: int, params: dict[str, object], **cells: Value) -> list[Row]:
    return [
        row
        for phase in ("train", "infer")
        for row in trials(
            num=3,
            workload=f"imaging-{phase}",
            config_hash=f"{phase}{number}",
            params_json=json.dumps(params),
            **cells,
        )
    ]


DIFFER: list[tuple[list[dict[str, Value]], list[str]]] = [
    ([{}], [""]),
    ([{"batch": 2, "patch": 32}, {"batch": 4, "patch": 64}], [" b2 patch=32", " b4 patch=64"]),
    ([{"channels_last": False}, {"channels_last": True}], ["", " channels-last"]),
    ([{"data": "generated"}, {"data": "resident"}], [" data generated", " data resident"]),
    ([{"workload_version": "1-a"}, {"workload_version": "2-b"}], [" version 1-a", " version 2-b"]),
    # Other sizes have other parameters without telling them.
    ([{"patch": 32}, {"patch": 64, "size": "small"}], ["", ""]),
]


def test_settings_say_that_in_which_they_differ() -> None:
    for settings, words in DIFFER:
        rows, names = [], []
        for number, (cells, word) in enumerate(zip(settings, words, strict=True)):
            params = {"patch": cells.get("patch", 32), "filters": 8, "batch": cells.get("batch", 2)}
            stored = {name: value for name, value in cells.items() if name != "patch"}
            rows += both_phases(number, params, **stored)
            names.append(f"imaging-train/infer {cells.get('size', 'tiny')} fp32{word}")
        gaps = measure_gap(rows).gaps
        assert [row[0] for row in gap_tables.gap_grid(gaps).rows] == names


def test_no_two_lines_of_any_table_and_no_two_panels_look_alike() -> None:
    rows = [
        row
        for number, device in ((10, "Test CPU"), (20, "Other CPU"))
        for batch in (2, 4)
        for row in both_phases(number + batch, {"batch": batch}, batch=batch, device_name=device)
    ]
    result = measure_gap(rows)
    for grid in gap_tables.grids(result):
        named = [row[:3] for row in grid.rows]
        assert len(set(named)) == len(named), grid.title
    plots = gap_plots(result.gaps)
    assert plots is not None
    titles = [panel.title for panel in plots.panels]
    assert len(set(titles)) == len(titles) == 4


CELLS: dict[str, list[Value]] = {
    "float": [None, 0.0, -1.0, 1e300, 1e-300, 5e-324, 1.0, 2.5, 1e59, 1e-59],
    "int": [None, 0, 1, -5, 2**62, 7],
    "bool": [None, True, False],
    "json": [None, "{}", "[1]", '{"batch": null}', '{"a": {"b": [1]}}', '"x"'],
    "utc": ["2026-01-02T03:04:05Z"],
    "str": [None, "x", "=1+1", "a-b-c", "-", "|", "\u202e", "ünï", "a;b", "[bold]", "-train"],
}


def absurd(source: random.Random) -> list[Row]:
    rows = []
    for config in ("h0", "h1", "h2"):
        workload = source.choice(["im-train", "im-infer"])
        num = source.choice([1, 3, 5])
        for row in trials(seed=len(rows), num=num, config_hash=config, workload=workload):
            for column in source.sample(COLUMNS, source.choice([0, 3, 20, 60])):
                is_kept = column.group in ("identity", "what ran") and source.random() < 0.9
                if column.name not in REQUIRED and not is_kept:
                    cell = source.choice(CELLS[column.kind])
                    # Below zero where nothing can be, the reader refuses the file.
                    is_size = column.kind in ("int", "float") and column.name not in SIGNED
                    row[column.name] = abs(cell) if is_size and cell else cell  # type: ignore[arg-type]
            row["status"] = source.choice(["OK", "OK", "WARN", "INVALID", "FAILED", "SKIPPED"])
            rows.append(row)
    return rows


def test_absurd_cells_never_raise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(12):
        source = random.Random(seed)
        files = [str(write_csv(tmp_path / f"{n}.csv", absurd(source))) for n in range(2 + seed % 2)]
        metric = source.choice(["time", "energy", "memory", "ttft", "latency"])
        compare = ["compare", *files, "--metric", metric, "--force-gate", "--format"]
        for style in ("table", "markdown", "github", "json"):
            assert main([*compare, style]) in (0, 1, 4, 5), seed
        json.loads(capsys.readouterr().out.partition("</details>")[2])
        asked = ["--items", "5", "--load", "3/h", "--latency", "2s"]
        for style in ("table", "markdown", "json"):
            assert main(["gap", *files, "--format", style, *asked]) in (0, 5), seed
