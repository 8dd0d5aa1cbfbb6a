"""Served runs in every verb that reads rows: who was in time, and where the knee lies."""

import json
import re
from pathlib import Path

import pytest

from bench.analysis.offered_load import law_of, used_by_hour
from bench.cli import main
from bench.cli.measuring.run import show_result
from bench.results.beside_rows import KEYS, append_samples
from bench.results.schema import Row
from bench.serve.run_report import LIVE
from tests.report.conftest import MakePage, PageReader
from tests.report.offered_rows import CAPACITY, live_run, served_rows
from tests.report.report_rows import configuration, write_run
from tests.report.test_report_page import check_whole, headings

TITLE = "When requests come by themselves"


def panels(page: PageReader) -> dict[str, str]:
    """Words of each panel of the section by its title."""
    titles = [data for tag, data in page.texts if tag == "title"][1:]
    words = [data for tag, data in page.texts if tag == "desc"]
    return dict(zip(titles, words, strict=True))


def test_a_page_draws_who_was_in_time_over_the_rate_and_the_knee_as_a_band(
    make_page: MakePage,
) -> None:
    page = make_page(served_rows())
    check_whole(page)
    assert TITLE in headings(page)
    assert not {"Throughput by device", "Training against inference"} & set(headings(page))
    (title,) = panels(page)
    assert title == "imaging-infer, limit 2min@p95"
    words = panels(page)[title]
    assert "from their scheduled arrival" in words
    assert "carries: 244 - 262 volume/h (confirmed by live runs)" in words
    assert "99.95 % [99.93, 99.96] in time at 120 volume/h holds" in words
    assert "95.8 % [94.75, 96.85] in time at 250 volume/h undecided" in words
    assert "61 % [51.25, 70.75] in time at 290 volume/h breaks" in words
    assert "what a user waits, queue included" in page.text
    assert "large fp32 b1 carries 244 - 262 volume/h at 2min@p95 (confirmed by" in page.text


@pytest.mark.parametrize(
    ("capacity_is", "words"),
    [("predicted", "only predicted"), ("refuted", "refuted by a live run")],
)
def test_a_knee_that_no_live_run_confirmed_is_called_so(
    capacity_is: str, words: str, make_page: MakePage
) -> None:
    rows = [live_run(60 / 3600, 0.99, **CAPACITY | {"capacity_is": capacity_is})]
    (found,) = panels(make_page(rows)).values()
    assert f"carries: 244 - 262 volume/h ({words})" in found


@pytest.mark.parametrize(("rate_per_s", "words"), [(0.07, "about 252 volume/h"), (0.0, "nothing")])
def test_a_capacity_without_an_interval_is_no_band(
    rate_per_s: float, words: str, make_page: MakePage
) -> None:
    cells: Row = {"capacity_per_s": rate_per_s, "capacity_is": "predicted"}
    (found,) = panels(make_page([live_run(60 / 3600, 0.99, **cells)])).values()
    assert f"carries: {words} (only predicted)" in found


def test_a_knee_without_any_live_run_is_drawn_too(make_page: MakePage) -> None:
    cells: Row = {"offered_per_s": None, "attainment_frac": None, **CAPACITY}
    page = make_page([live_run(0.1, 0.9, **cells | {"capacity_is": "predicted"})])
    check_whole(page)
    (found,) = panels(page).values()
    assert "244 - 262 volume/h (only predicted): no live run" in found


def test_without_a_capacity_the_knee_lies_between_what_held_and_what_broke(
    make_page: MakePage,
) -> None:
    rows = [live_run(rate, share) for rate, share in {10: 0.99, 20: 0.97, 40: 0.8}.items()]
    (found,) = panels(make_page(rows)).values()
    assert "carries: 20 - 40 volume/s (by live runs)" in found
    (found,) = panels(make_page(rows[:2])).values()
    assert "carries: at least 20 volume/s (by live runs)" in found
    (found,) = panels(make_page(rows[2:])).values()
    assert "carries: less than 40 volume/s (by live runs)" in found


def test_settings_share_a_panel_and_runs_of_another_limit_do_not(make_page: MakePage) -> None:
    rows = [live_run(rate, 0.99, max_batch=batch) for rate in (10, 20) for batch in (1, 8)]
    rows += [live_run(10, 0.99, slo="1s@p99")]
    found = panels(make_page(rows))
    assert len(found) == 2
    assert re.search(r"1 at once: .*8 at once: ", found["imaging-infer, limit 2min@p95"])


def test_damaged_cells_are_not_drawn(make_page: MakePage) -> None:
    rows = [live_run(10, 0.99), live_run(20, 7.0), live_run(30, 0.9, slo="soon")]
    rows += [live_run(40, 0.9, capacity_low_per_s=9.0, capacity_high_per_s=1.0)]
    page = make_page(rows)
    check_whole(page)
    (found,) = panels(page).values()
    assert "10 volume/s" in found and "20 volume/s" not in found


def test_hours_of_a_day_show_how_full_the_server_was(tmp_path: Path, make_page: MakePage) -> None:
    row = live_run(0.05, 0.99, seconds=240.0, **CAPACITY)
    row |= {"arrivals": "day:180/h:ct.txt#1a2b3c4d"}
    requests = [{"started_s": 93.0, "ended_s": 98.0, "status": "ok"}]
    record = {name: row[name] for name in KEYS} | {"requests": requests}
    append_samples(tmp_path / "before.requests.jsonl.gz", record)
    page = make_page([row])
    check_whole(page)
    words = panels(page)["imaging-infer large fp32 b1, day:180/h:ct.txt"]
    assert "carries 244 - 262 volume/h in the busiest hour at 2min@p95" in page.text
    assert "most at 9 h" in words and "9 h 50 %" in words and "10 h 0 %" in words


def test_runs_by_which_a_rate_was_looked_for_are_drawn_beside_that_of_the_row(
    tmp_path: Path, make_page: MakePage
) -> None:
    row, above = (live_run(per_h / 3600, share) for per_h, share in ((250, 0.958), (310, 0.4)))
    row |= {**CAPACITY, "arrivals": "auto"}
    for run in (row, above, {"offered_per_s": "much"}):
        kept = {name: run[name] for name in LIVE if name in run} | {"requests": []}
        record = {name: row[name] for name in KEYS} | kept
        append_samples(tmp_path / "before.requests.jsonl.gz", record)
    page = make_page([row])
    check_whole(page)
    (words,) = panels(page).values()
    assert words.count("in time at") == 2
    assert "40 % [39.8, 40.2] in time at 310 volume/h breaks" in words


def test_loadgen_s_verdict_is_no_submission(make_page: MakePage) -> None:
    cells: Row = {"scenario": "mlperf_server", "loadgen_valid": True}
    page = make_page([live_run(10, 0.99, **cells)])
    assert "VALID" in page.text and "measured with LoadGen; not a submission" in page.text


def test_the_screen_of_a_run_says_from_when_times_count(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # as without a terminal: 100 columns
    rows = [*served_rows(), *configuration("imaging-infer", "Accelerator 80 GB")]
    show_result(rows, path=Path("run.csv"))
    out = capsys.readouterr().out
    assert "limit: 2min@p95" in out and "from the scheduled arrival" in out
    assert re.search(r"imaging-infer .*poisson:265/h +93 % \[91.25, 94.75\] +BREAKS", out)
    assert re.search(r"imaging-infer .*auto +95.8 % \[94.75, 96.85\] +21 s", out), "the line says"
    assert "carries 244 - 262 volume/h at 2min@p95 (confirmed by live runs)" in out


def test_a_modelled_run_is_marked_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    cells: Row = {"mode": "emulated", "link": "h800-nvlink", "device_count": 8, "parallel": "tp"}
    show_result([live_run(10, 0.99, **cells)], path=Path("run.csv"))
    assert "[emulated" in capsys.readouterr().out


@pytest.fixture
def served(tmp_path: Path) -> str:
    return str(write_run(tmp_path / "served.csv", served_rows()))


def test_the_gap_leaves_served_rows_out(
    served: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gap", served]) == 5
    assert "6 rows in which requests came by themselves left out" in capsys.readouterr().err
    rows = [*configuration("imaging-train", "Accelerator 80 GB"), *served_rows()]
    rows += configuration("imaging-infer", "Accelerator 80 GB")
    both = str(write_run(tmp_path / "both.csv", rows))
    assert main(["gap", both, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["workload"] for one in found["demands"]] == ["imaging-train", "imaging-infer"]
    assert len(found["gaps"]) == 1 and not found["missing"]


def test_time_is_not_compared_where_a_schedule_sets_it_but_latency_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = []
    for name, latency_ms in {"a": 1000.0, "b": 1500.0}.items():
        rows = [
            live_run(10, 0.99) | {"trial": trial, "lat_p99_ms": latency_ms * (1 + 0.001 * trial)}
            for trial in range(3)
        ]
        paths.append(str(write_run(tmp_path / f"{name}.csv", rows)))
    assert main(["compare", *paths]) == 5
    assert "--metric latency" in capsys.readouterr().out
    assert main(["compare", *paths, "--metric", "latency"]) == 1
    assert "REGRESSION" in capsys.readouterr().out


def test_exports_name_the_rate_and_have_no_step(
    served: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bmf.json"
    assert main(["export", served, "--to", "bmf", "-o", str(out)]) == 0
    found = json.loads(out.read_text())
    (name,) = (name for name in found if "auto 2min@p95" in name)
    assert found[name]["attainment_frac"]["value"] == pytest.approx(0.958)
    assert found[name]["capacity_low_per_s"]["value"] == pytest.approx(244 / 3600)
    assert not any("step" in key or "throughput" in key for key in found[name])
    assert main(["export", served, "--to", "pytest-benchmark", "-o", str(out)]) == 0
    assert "has no step time and is left out" in capsys.readouterr().err


def test_a_projection_says_why_it_does_not_start_from_served_rows(
    served: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["project", served, "--to", "l4"]) == 5
    printed = capsys.readouterr()
    assert "requests came by themselves" in printed.out + printed.err


def test_laws_are_told_apart_without_their_rates() -> None:
    texts = ("auto", "poisson:800/day", "gamma:40/s:0.5", "day:800/day:ct.txt#1a2b", "day:ct#1a")
    assert [law_of(text) for text in texts] == [
        "poisson", "poisson", "gamma:0.5", "day:ct.txt#1a2b", "day:ct#1a",
    ]  # fmt: skip


def test_hours_count_a_batch_once_and_split_what_lies_over_an_hour() -> None:
    window_s = 240.0
    requests = [{"started_s": 5.0, "ended_s": 15.0}, {"started_s": 5.0, "ended_s": 15.0}]
    requests += [{"started_s": 230.0, "ended_s": 300.0}]
    found = used_by_hour([*requests, {"started_s": 50.0, "ended_s": 60.0, "status": "reset"}],
                         window_s=window_s)  # fmt: skip
    assert found[:2] == [0.5, 0.5] and found[23] == 1.0 and sum(found) == 2.0
