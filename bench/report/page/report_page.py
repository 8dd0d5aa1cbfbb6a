"""From evidence to a page on the disk: which sections there are, the lines on top, the template.

Written whole or not at all, and never over something that is no report: a report is known
by the line that each format begins with. The page allows its one script by its hash and nothing
else, so that even a cell that slipped through unescaped could not run.
"""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

from bench import __version__
from bench.analysis.claims.claims_verdict import ClaimVerdict
from bench.analysis.comparison.comparison import Strictness
from bench.analysis.gap.gap_result import Missing
from bench.core.errors import UsageError, one_of
from bench.core.units import counted
from bench.report.page import sections_analysis as analysis
from bench.report.page import sections_rows as rows
from bench.report.page.content import Part, Section, section
from bench.report.page.evidence import Evidence
from bench.report.page.sections_offered import offered
from bench.report.tables.cells import Cell
from bench.report.tables.grid import markdown_cell, markdown_table, plain
from bench.results.schema import SCHEMA_VERSION, USABLE
from bench.results.whole_files import write_document

MAX_LIST_ITEMS = 20
MAX_DEPTH = 6
MAX_TEXT_CHARACTERS = 400
_HEAD_BYTES = 1000
_GENERATORS = {
    "html": '<meta name="generator" content="bench report">',
    "md": "<!-- made by bench report -->",
}
"""By this line a file is known to be a report, which a later report may replace."""
_FORMATS = {".html": "html", ".htm": "html", ".md": "md"}


def check_output(path: Path) -> None:
    """Refuse, before any work, a name that cannot become a report."""
    if path.suffix.lower() not in _FORMATS:
        raise one_of("the suffix of -o,", path.suffix, list(_FORMATS))
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; name a file in it, such as {path / 'report.html'}")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}; make it first")
    if not path.exists():
        return
    try:
        head = path.read_bytes()[:_HEAD_BYTES]
    except OSError as error:
        raise UsageError(f"{path}: cannot be replaced: {error.strerror}") from error
    if head and _GENERATORS[_FORMATS[path.suffix.lower()]].encode() not in head:
        raise UsageError(
            f"{path}: exists and was not made by bench report, so it is not replaced; "
            "choose another name or delete it"
        )


def sections_of(
    evidence: Evidence,
    *,
    strictness: Strictness,
    command: Callable[[Missing], str],
    projections: Sequence[Part] = (),
    verdicts: Sequence[ClaimVerdict],
) -> list[Section]:
    """Sections that have something to rest on.

    `command` says how a missing half of a gap would be measured, '' where nobody asked for it.
    """
    gaps, num_hidden = analysis.settings_gap(evidence)
    num_files = len(evidence.sources)
    sections = (
        rows.overview(evidence),
        rows.validity(evidence),
        rows.results(evidence),
        analysis.gap(gaps, num_hidden=num_hidden, num_files=num_files, command=command),
        analysis.roofline(gaps),
        offered(evidence),
        rows.latency(evidence),
        rows.steps(evidence),
        rows.energy(evidence),
        analysis.sweeps(evidence),
        analysis.comparison(evidence, strictness=strictness),
        section("projection", "Projected to chips that are not here", *projections),
        analysis.claims(verdicts) if verdicts else None,
        rows.provenance(evidence),
    )
    return [section for section in sections if section is not None and section.parts]


def write_report(
    path: Path, evidence: Evidence, sections: Sequence[Section], *, made_utc: str
) -> None:
    """Write the format that the suffix names, html or md, by the template of that name."""
    import jinja2

    form, script = _FORMATS[path.suffix.lower()], _asset("report.js")
    environment = jinja2.Environment(
        autoescape=form == "html", undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    environment.filters |= {
        "text": _text,
        "cell": lambda value: value if isinstance(value, Cell) else Cell(text=value),
        "width": _width,
        "kind": lambda part: type(part).__name__,
        "md": markdown_cell,
        "table": markdown_table,
        "json": lambda facts: json.dumps(facts, indent=1, sort_keys=True, default=str),
    }
    modes = Counter(str(row["mode"]) for row in evidence.rows if row.get("mode"))
    del modes["real"]
    workloads = list(dict.fromkeys(str(row["workload"]) for row in evidence.rows))
    text = environment.from_string(_asset(f"report.{form}.j2")).render(
        title="Benchmark of " + ", ".join(workloads[:4]) + " and more" * (len(workloads) > 4),
        summary=_summary(evidence, modes),
        modes=sorted(modes),
        sections=sections,
        made_by=f"gapbench {__version__}, schema {SCHEMA_VERSION}, {made_utc}",
        generator=_GENERATORS[form],
        style=_asset("report.css"),
        script=script,
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        max_list_items=MAX_LIST_ITEMS,
        max_depth=MAX_DEPTH,
    )
    write_document(path, text)


def _summary(evidence: Evidence, modes: Counter[str]) -> list[str]:
    rows, configurations = evidence.rows, evidence.configurations
    usable = sum(row["status"] in USABLE for row in rows)
    devices = len({one.one_device for one in configurations})
    lines = [
        f"{counted(len(rows), 'trial')} of {counted(len(configurations), 'configuration')} on "
        f"{counted(devices, 'device')}, from {counted(len(evidence.sources), 'file')}.",
        f"Usable: {usable:,} of {len(rows):,}.",
    ]
    lines += [
        f"{counted(num, 'trial')} [{mode}]: not measured on the hardware as named."
        for mode, num in modes.most_common()
    ]
    shown = (
        f"{len(evidence.shown)} configurations are shown one by one, taking turns over workloads "
        f"and devices; {evidence.num_hidden:,} only counted."
    )
    return [*lines, shown] if evidence.num_hidden else lines


def _text(value: object) -> str:
    """Text on one line; control characters are replaced, and very long text is cut."""
    shown = plain(" ".join(str(value).split()))
    is_long = len(shown) > MAX_TEXT_CHARACTERS
    return shown[: MAX_TEXT_CHARACTERS - 1] + "…" if is_long else shown


def _width(cell: Cell) -> str:
    length = len(cell.text)
    return "long" if length > 40 else "medium" if length > 16 else ""


def _asset(name: str) -> str:
    return (resources.files("bench.report.page") / name).read_text(encoding="utf-8")
