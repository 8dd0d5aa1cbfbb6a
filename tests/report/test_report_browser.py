"""The page in a real browser: nothing sticks out at phone width, tables sort, nothing is run.

Skipped where no Chromium is installed. The browser loads a copy with a probe script at its end and
a policy that lets it run; the page itself is as it was written.
"""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bench.cli import main
from bench.results.schema import Row
from tests.report.link_rows import device_sweep, odd_links
from tests.report.offered_rows import served_rows
from tests.report.report_rows import configuration, failed_rows, full_rows, hostile_rows, write_run

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium")

WIDTHS = (390, 1280)
"""A phone and a desk, in pixels."""
FLAGS = """
    --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-component-update
    --disable-background-networking --disable-sync --hide-scrollbars --virtual-time-budget=3000
    --allow-file-access-from-files --dump-dom
"""
PROBE = """<script>
const found = { width: innerWidth, scroll: document.documentElement.scrollWidth, out: [], cut: [] };
for (const one of document.querySelectorAll("body *")) {
  if (one.closest(".table") !== null && !one.matches(".table")) continue;
  if (one.closest("svg") !== null || one.matches(".skip, script, style")) continue;
  const box = one.getBoundingClientRect();
  if (box.right > innerWidth + 1 || box.left < -1) found.out.push(one.outerHTML.slice(0, 120));
}
for (const svg of document.querySelectorAll("svg")) {
  const frame = svg.getBoundingClientRect();
  for (const text of svg.querySelectorAll("text")) {
    const box = text.getBoundingClientRect();
    if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.bottom > frame.bottom + 1)
      found.cut.push(text.textContent);
  }
}
found.broken = document.body.dataset.broken ?? null;
const table = [...document.querySelectorAll("table")].find((one) =>
  one.caption?.textContent.startsWith("All configurations"));
const column = [...table.tHead.rows[0].cells].findIndex((one) =>
  one.textContent.startsWith("throughput"));
const shown = () => [...table.tBodies[0].rows].filter((row) => !row.hidden);
if (column >= 0 && table.tBodies[0].rows.length > 1) {
  table.tHead.rows[0].cells[column].querySelector("button").click();
  found.keys = shown().map((row) => row.cells[column].dataset.key ?? null);
}
found.shown = shown().length;
const filter = table.parentElement.previousElementSibling?.querySelector("input");
if (filter) {
  filter.value = "imaging-infer";
  filter.dispatchEvent(new Event("input"));
  found.filtered = shown().map((row) => row.cells[0].textContent);
}
const answer = { id: "probe", textContent: JSON.stringify(found) };
document.body.replaceChildren(Object.assign(document.createElement("pre"), answer));
</script>
</body>"""


def look(folder: Path, rows: list[Row]) -> list[dict[str, object]]:
    """What the probe sees in the report of these rows in a window of each width."""
    path = write_run(folder / "run.csv", rows, steps=40)
    page = folder / "report.html"
    assert main(["report", str(path), "-o", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"script-src 'sha256-[^']*'", "script-src 'unsafe-inline'", text)
    # A headless window is at least 500 pixels wide, a frame in it is as wide as it is told.
    (folder / "probed.html").write_text(text.replace("</body>", PROBE), encoding="utf-8")
    shown = "".join(
        f'<iframe src="probed.html" width="{width}" height="900" style="border:0"></iframe>'
        for width in WIDTHS
    )
    collect = (
        "<script>addEventListener('load', () => { document.body.textContent = '[' + [0, 1].map("
        "(one) => frames[one].document.getElementById('probe').textContent) + ']'; })</script>"
    )
    (folder / "frame.html").write_text(f"<body>{shown}{collect}</body>", encoding="utf-8")
    command = [str(BROWSER), *FLAGS.split(), f"--user-data-dir={folder / 'profile'}"]
    command.append((folder / "frame.html").as_uri())
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    body = re.search(r"<body>(\[.*\])</body>", answer.stdout, re.DOTALL)
    assert body is not None, answer.stdout[:500] + answer.stderr[-500:]
    found: list[dict[str, object]] = json.loads(html.unescape(body[1]))
    return found


CASES = {
    "everything": full_rows,
    "single": lambda: configuration("imaging-train", "Graphics card 24 GB", num=1),
    "failed": failed_rows,
    "hostile": hostile_rows,
    "devices": device_sweep,
    "odd links": odd_links,
    "served": lambda: [*served_rows(), *configuration("imaging-infer", "Graphics card 24 GB")],
}


@pytest.mark.parametrize("case", CASES)
def test_nothing_sticks_out_no_label_is_cut_and_tables_sort(case: str, tmp_path: Path) -> None:
    pages = look(tmp_path, CASES[case]())
    for width, page in zip(WIDTHS, pages, strict=True):
        assert page["width"] == page["scroll"] == width
        assert page["out"] == page["cut"] == [], width
        assert page["broken"] is None
    if case == "everything":
        keys, filtered = pages[1]["keys"], pages[1]["filtered"]
        assert isinstance(keys, list) and isinstance(filtered, list)
        numbers = [float(key) for key in keys]
        assert numbers == sorted(numbers) and pages[1]["shown"] == 20, "a page of the table"
        assert len(filtered) == 6 and all("imaging-infer" in name for name in filtered)
