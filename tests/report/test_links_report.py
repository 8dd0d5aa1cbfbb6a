"""Links and devices in the report and after a run: every figure beside its mode and its bracket."""

import csv
from pathlib import Path

from bench.cli import main
from bench.report.plots.plots_links import bytes_per_s_of
from bench.results.schema import NAMES, Row
from tests.report.conftest import MakePage
from tests.report.link_rows import device_sweep, link_run, odd_links, real_run, three_links
from tests.report.report_rows import write_run


def reported_of(path: Path) -> str:
    """The report of a file in Markdown, escapes taken off."""
    output = path.with_suffix(".md")
    assert main(["report", str(path), "-o", str(output)]) == 0
    return output.read_text(encoding="utf-8").replace("\\", "")


def markdown_of(folder: Path, rows: list[Row]) -> str:
    return reported_of(write_run(folder / "run.csv", rows))


def table_of(text: str, title: str) -> list[dict[str, str]]:
    """Lines of the table under a title, by head."""
    _, _, rest = text.partition(f"**{title}")
    lines = [line for line in rest.split("\n\n")[1].splitlines() if line.startswith("|")]
    heads, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return [dict(zip(heads, row, strict=True)) for row in rows]


def test_host_bound_steps_odd_simulations_and_two_settings_are_told(tmp_path: Path) -> None:
    off: Row = {"status": "WARN", "simulated_error_frac": -0.05}
    rows = [*link_run("pcie5", 9.0), *link_run("pcie4", 9.0, cells=off)]
    said = "where the device waits for the host, a link costs nothing until"
    text = markdown_of(tmp_path, rows)
    assert said not in text
    told = {row["link"]: row["simulation off by"] for row in table_of(text, "Behind the model")}
    assert told == {"pcie5": "+0.4 %", "pcie4": "-5.0 % disagrees"}
    parts = {row["link"]: row["compute"] for row in table_of(text, "Speed and efficiency")}
    assert parts == {"pcie5": "100 ms", "pcie4": "100 ms (simulated)"}
    assert "(simulated): the parts are of" in text
    # The mean of the trials that have it: a blank cell is no 0.
    lost = [rows[0] | {"compute_step_ms": None}, *rows[1:]]
    table = table_of(markdown_of(tmp_path, lost), "Speed and efficiency")
    assert {row["link"]: row["compute"] for row in table} == parts
    rows[-1]["reasons"] = "drift;host_bound"
    assert markdown_of(tmp_path, rows).count(said) == 1
    rows = [*three_links(), *three_links(params_json='{"batch": 2, "patch": 64}', config_hash="x")]
    for row in rows:
        row["config_hash"] = f"{row['config_hash']}{row['link']}"
    text = markdown_of(tmp_path, rows)
    for patch in (32, 64):
        assert len(table_of(text, f"Links: imaging-train tiny fp32 b2 patch={patch}, ddp")) == 3


def test_real_devices_scale_against_one_and_virtual_ones_have_no_energy(tmp_path: Path) -> None:
    text = markdown_of(tmp_path, [*real_run(), *real_run(25.0, devices=8)])
    one, eight = table_of(text, "Speed and efficiency")
    assert (one["devices"], one["of one device [95 %]"]) == ("1", "")
    assert eight["of one device [95 %]"].startswith("80 % [")
    assert eight["all devices [95 %]"].startswith("128 patch/s [")
    assert "**Links" in text and "slower [95 %]" not in text
    cells: Row = {"mem_alloc_peak_bytes": 2**30, "energy_per_item_j": 5.0, "loss_last": 0.123456}
    rows = [*link_run("pcie5", 9.0), *real_run(9.0, devices=8), *real_run()]
    text = markdown_of(tmp_path, [{**row, **cells} for row in rows])
    virtual, real, single = table_of(text, "All configurations")
    assert virtual["memory"] == real["memory"] == "1 GiB (one rank)"
    assert single["memory"] == "1 GiB"
    assert (virtual["energy"], real["energy"]) == ("", "5 J/patch")
    assert "0.123" not in text


def test_the_published_claim_is_drawn_and_no_curve_joins_two_modes(make_page: MakePage) -> None:
    page = make_page(three_links())
    drawn = [data for tag, data in page.texts if tag == "text"]
    assert "published for H800: 10-30 % longer" in drawn
    assert {"h100-nvlink", "h800-nvlink", "pcie5"} <= set(drawn)
    (words,) = [data for tag, data in page.texts if tag == "desc" and "over bandwidth" in data]
    assert "h800-nvlink at 200 GB/s +4.8 % (+3.9 to +5.7 %)" in words
    assert "Cryptopolitan after Reuters, 2023" in words
    page = make_page(device_sweep())
    (words,) = [data for tag, data in page.texts if tag == "desc" and "over bandwidth" in data]
    curves = words.removeprefix("Time against the fastest link over bandwidth. ").split("; ")
    assert len(curves) == 5
    assert sum("x8 ddp Test CPU [emulated]" in curve for curve in curves) == 1
    assert sum("x8 ddp Test CPU [throttled]" in curve for curve in curves) == 1
    scaling = [data for tag, data in page.texts if tag == "desc" and "over number of" in data]
    assert all("1 devices" not in words for words in scaling)
    page = make_page(odd_links())
    notes = " ".join(data for tag, data in page.texts if tag == "p")
    assert "Not drawn, for want of a finite bandwidth known here: infinite" in notes
    assert "x501" in page.text


def test_a_link_has_its_specified_rate_and_a_file_it_names_is_not_opened(tmp_path: Path) -> None:
    names = ("h800-nvlink", "bw=25GB/s,latency=5us", "h800-nvlink*8/ndr*4")
    assert [bytes_per_s_of(name) for name in names] == [200e9, 25e9, 50e9]
    secret = tmp_path / "secret.yaml"
    secret.write_text("not: {a link")
    for name in ("infinite", "no such link", "", "9" * 5000, str(secret), f"{secret}*8/ndr*4"):
        assert bytes_per_s_of(name) is None, name


def test_an_old_file_without_the_new_columns_still_reads(tmp_path: Path) -> None:
    old = [name for name in NAMES if not name.startswith(_NEW)]
    path = write_run(tmp_path / "old.csv", three_links(schema_version="1.0", grad_accum=None))
    rows = csv.DictReader(path.read_text().splitlines())
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, old, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    reported = reported_of(path)
    assert len(table_of(reported, "Links: ")) == 3
    assert "of compute [95 %]" not in reported


_NEW = (
    "layout", "schedule", "mitigation", "bucket", "grad_accum", "link_method", "overlap", "bubble",
    "comm_", "cont", "compute_step", "step_low", "step_high", "simulated", "straggler",
)  # fmt: skip
"""How the names of those columns begin."""
