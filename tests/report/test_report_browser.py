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
from tests.report.report_rows import configuration, failed_rows, full_rows, hostile_rows, write_run

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium")

PHONE, DESKTOP = 390, 1280
FLAGS = """
    --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-component-update
    --disable-background-networking --disable-sync --hide-scrollbars --virtual-time-budget=3000
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


def look(folder: Path, rows: list[Row], *, width: int, steps: int = 0) -> dict[str, object]:
    """What the probe sees in the report of these rows in a window of this width."""
    path = write_run(folder / "run.csv", rows, steps=steps)
    page = folder / "report.html"
    assert main(["report", str(path), "-o", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"script-src 'sha256-[^']*'", "script-src 'unsafe-inline'", text)
    # A headless window is at least 500 pixels wide, a frame in it is as wide as it is told.
    (folder / "probed.html").write_text(text.replace("</body>", PROBE), encoding="utf-8")
    frame = f'<iframe src="probed.html" width="{width}" height="900" style="border:0"></iframe>'
    collect = (
        "<script>addEventListener('load', () => { document.body.textContent = "
        "frames[0].document.getElementById('probe').textContent; })</script>"
    )
    (folder / "frame.html").write_text(f"<body>{frame}{collect}</body>", encoding="utf-8")
    answer = subprocess.run(
        [
            str(BROWSER),
            *FLAGS.split(),
            "--allow-file-access-from-files",
            f"--user-data-dir={folder / 'profile'}",
            "--dump-dom",
            (folder / "frame.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    body = re.search(r"<body>(\{.*\})</body>", answer.stdout, re.DOTALL)
    assert body is not None, answer.stdout[:500] + answer.stderr[-500:]
    found = json.loads(html.unescape(body[1]))
    assert isinstance(found, dict)
    return found


CASES = {
    "everything": full_rows,
    "single": lambda: configuration("imaging-train", "Graphics card 24 GB", num=1),
    "failed": failed_rows,
    "hostile": hostile_rows,
    "devices": device_sweep,
    "odd links": odd_links,
}


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
@pytest.mark.parametrize("case", CASES)
def test_nothing_sticks_out_and_no_label_is_cut(case: str, width: int, tmp_path: Path) -> None:
    found = look(tmp_path, CASES[case](), width=width, steps=40)
    assert found["width"] == found["scroll"] == width
    assert found["out"] == found["cut"] == []
    assert found["broken"] is None


def test_tables_sort_filter_and_turn_pages(tmp_path: Path) -> None:
    found = look(tmp_path, full_rows(), width=DESKTOP)
    keys = found["keys"]
    assert isinstance(keys, list) and found["shown"] == 20
    numbers = [float(key) for key in keys]
    assert numbers == sorted(numbers)
    filtered = found["filtered"]
    assert isinstance(filtered, list) and len(filtered) == 6
    assert all("imaging-infer" in name for name in filtered)
