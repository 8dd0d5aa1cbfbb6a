"""The page: whole, self-contained, safe whatever the cells hold, and nothing in it made up."""

import base64
import hashlib
import random
import re

from tests.cli.test_compare_cli import absurd
from tests.report.conftest import MakePage, PageReader
from tests.report.report_rows import (
    HOSTILE,
    configuration,
    failed_rows,
    full_rows,
    hostile_rows,
    many_rows,
)

CARD = "Graphics card 24 GB"


def headings(page: PageReader) -> list[str]:
    return [data for tag, data in page.texts if tag == "h2"]


def check_whole(page: PageReader) -> None:
    """What every page must be."""
    assert page.repeated_ids == []
    assert page.outside_links == []
    (script,) = [data for tag, data in page.texts if tag == "script"]
    (policy,) = [a["content"] for a in page.all("meta") if "http-equiv" in a]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'")
    assert f"script-src 'sha256-{digest}'" in policy
    styles = " ".join(a["style"] for _, a in page.tags if "style" in a)
    assert re.findall(r"#0[0-9]{5}|#a1000[0-9]", styles) == [], "colours follow the page"
    assert ("var(--series-1)" in styles) == ("var(--ink)" in styles) == bool(page.all("svg"))
    assert not [a for _, a in page.tags if any(name.startswith("on") for name in a)]
    ids = {a["id"] for _, a in page.tags if "id" in a}
    for _, attributes in page.tags:
        assert set(attributes.get("aria-labelledby", "").split()) <= ids
        assert attributes.get("href", "#")[1:] in ids | {""}
    for svg in page.all("svg"):
        assert svg["role"] == "img" and len(svg["aria-labelledby"].split()) == 2
    drawn = [data for tag, data in page.texts if tag == "text" and data.strip()]
    assert bool(drawn) == bool(page.all("svg"))


def test_every_section_is_there_when_there_is_something_to_show(make_page: MakePage) -> None:
    page = make_page(full_rows(), full_rows(speed=0.85, run_id="run2"), steps=30)
    check_whole(page)
    assert headings(page) == [
        "What was run where",
        "How far it can be trusted",
        "Throughput by device",
        "Training against inference",
        "Under the roofline",
        "Latency and steps",
        "Warm-up and every step",
        "Energy",
        "Several devices and links",
        "Compared with the first file",
        "Where it comes from",
    ]
    assert "REGRESSION" in page.text
    assert "the device slowed itself down for heat" in page.text
    assert "tried to allocate 20.00 GiB" in page.text
    assert re.search(r"[0-9]+ patch/s\s+\[[0-9.]+, [0-9.]+\]", page.text)
    assert "Test CPU" in page.text  # from the environment beside the rows
    assert "h800-nvlink" in page.text
    assert "ddp pcie4 Accelerator 80 GB before.csv [emulated]" in page.text


def test_a_single_row_has_no_interval_and_failed_ones_no_plots(make_page: MakePage) -> None:
    page = make_page(configuration("imaging-train", CARD, num=1))
    check_whole(page)
    assert "Compared with the first file" not in headings(page)
    assert "Several devices and links" not in headings(page)
    assert "no inference beside it" in page.text
    throughput = re.search(r"[0-9.]+ patch/s( \[)?", page.text)
    assert throughput is not None and throughput[1] is None
    page = make_page(failed_rows())
    check_whole(page)
    assert page.all("svg") == []
    assert "No usable trial has a throughput." in page.text
    assert "out_of_memory" in page.text
    assert headings(page)[1] == "How far it can be trusted"


def test_hostile_text_is_shown_and_never_obeyed(make_page: MakePage) -> None:
    page = make_page(hostile_rows(), steps=20)
    check_whole(page)
    assert page.all("img") == []
    for text in HOSTILE:
        assert text in page.text
    (script,) = [data for tag, data in page.texts if tag == "script"]
    assert "broken" not in script


def test_absurd_cells_never_raise(make_page: MakePage) -> None:
    odd_json = ["[1]", '"x"', '{"a": {"b": [1]}}', '{"batch": null}', None]
    for seed in range(6):
        source = random.Random(seed)
        files = [absurd(source) for _ in range(1 + seed % 3)]
        for row in (row for rows in files for row in rows if source.random() < 0.2):
            row["params_json"] = source.choice(odd_json)
            row["device_count"] = source.choice([0, 2, 8, 2**62])
        check_whole(make_page(*files))


def test_thousands_of_rows_are_counted_and_a_readable_part_is_shown(make_page: MakePage) -> None:
    page = make_page(list(many_rows(500)))
    check_whole(page)
    assert "2,500 trials of 500 configurations on 3 devices" in page.text
    assert "200 only counted" in page.text
    assert "200 configurations not shown" in page.text
    assert "configurations are drawn; the table has more." in page.text
    assert len(page.all("svg")) < 40
    assert len(page.all("tr")) < 2500


def test_rows_not_real_are_badged_and_phases_without_traffic_named(make_page: MakePage) -> None:
    rows = configuration("imaging-train", CARD, mode="simulated")
    page = make_page(rows)
    badges = [a for a in page.all("span") if a.get("class") == "badge simulated"]
    tables = [data for tag, data in page.texts if tag == "caption"]
    assert len(badges) >= len(tables) // 2 + 2
    assert "[simulated]" in " ".join(data for tag, data in page.texts if tag == "text")
    rows = configuration("imaging-train", CARD)
    assert "no formula for its memory traffic" not in make_page(rows).text
    page = make_page([{**row, "bytes_per_item": None} for row in rows])
    assert "no formula for its memory traffic" in page.text
    other = configuration("imaging-infer", CARD, roof_bytes_per_s=5e11)
    roofs = [data for _, data in make_page([*rows, *other]).texts if re.match(r"\S+ roof ", data)]
    assert len(roofs) == 2 == 2 * len(set(roofs)), "of one peak and two bandwidths"
