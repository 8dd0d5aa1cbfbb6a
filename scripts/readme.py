"""Write the generated parts of the README and of docs/: `python -m scripts.readme`.

They come from committed rows. Each stands between `<!-- generated: NAME -->` and `<!-- end -->`; a
test holds the documents to what this prints. Screens are those of the commands, at 100 columns.
"""

import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from scripts.workloads_page import workloads_block

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "results" / "reference"
GAP_COLUMNS = ("train/infer", "per", "time", "FLOPs")
WAITING_COLUMNS = ("inference", "used", "p95 done in", "carries", "devices")


def run_block() -> str:
    """The table that `bench run` ends with, from the reference rows of a CPU."""
    from bench.analysis.trials.configuration import gather
    from bench.report.tables.run_table import run_grid
    from bench.results.reader import read_rows

    return _table(run_grid(gather(read_rows(REFERENCE / "cpu-2core.csv"))))


def links_block() -> str:
    """The first table of a sweep of links, from rows of a CPU."""
    return _table(_links_grid("cpu-2core-links.csv"))


def link_columns_block() -> str:
    """The table of the example under `bench wrap`, cut to what the README has room for."""
    from bench.report.tables.grid import markdown_table

    short = _links_grid("cpu-2core-wrap.csv").without(
        ["bracket", "its bracket", "devices", "trials"]
    )
    return markdown_table(replace(short, title="", notes=()))


def _links_grid(name: str) -> Any:
    from bench.analysis.trials.configuration import gather
    from bench.report.tables.links_tables import link_grids
    from bench.results.reader import read_rows

    rows = read_rows(REFERENCE.parent / "validation" / name)
    return link_grids(gather(rows), has_model=False)[0]


def _table(grid: Any) -> str:
    from rich.console import Console

    from bench.report.tables.grid import print_tables

    stream = io.StringIO()
    print_tables(Console(file=stream, width=100, highlight=False), [grid])
    return _fenced(stream.getvalue().strip("\n").partition("\n\n")[0])


def gap_block() -> str:
    """The first table of `bench gap` with every domain, cut to what the README has room for."""
    names = ("cpu-2core.csv", "cpu-2core-domains.csv", "cpu-2core-driving.csv")
    files = [f"results/reference/{name}" for name in names]
    printed = _bench("gap", *files, "--format", "markdown")
    table = _cut([line for line in printed.splitlines() if line.startswith("|")], GAP_COLUMNS)
    for long, short in ((" tiny fp32 |", " |"), ("-train/", " "), ("\\[", "["), ("\\]", "]")):
        table = table.replace(long, short)
    return table


_SMALL = "results/reference/cpu-2core-small.csv"
_DAY = ("--load", "800/day", "--busy-hour", "12%", "--latency", "1min")


def served_block() -> str:
    """The first table of `bench gap --load`, for a hospital's day."""
    printed = _bench("gap", _SMALL, "-w", "imaging", *_DAY, "--urgent", "5%:10s")
    return _fenced(printed.partition("\n\n")[0])


def waiting_block() -> str:
    """The same, cut to what the README has room for."""
    printed = _bench("gap", _SMALL, "-w", "imaging", *_DAY, "--format", "markdown")
    return _cut([line for line in printed.splitlines() if line.startswith("|")], WAITING_COLUMNS)


def project_block() -> str:
    """The table of `bench project` from a row of an H100."""
    rows = "results/reference/h100-sxm-80g-imaging-train-large.csv"
    printed = _bench("project", rows, "--to", "a100-sxm-80g,h20-96g")
    return _fenced(printed.partition("\n\n")[0])


def claims_block() -> str:
    """The verdicts on testable claims, from what is shipped alone."""
    from bench.analysis.claims.ledger import find_claims, read_ledger
    from bench.cli.claims import judged
    from bench.report.tables.claims_table import claims_grid, plain_sentence
    from bench.report.tables.grid import markdown_table

    chosen = [claim for claim in find_claims(ledger=read_ledger()) if claim.number]
    verdicts = judged(chosen, (), with_reference=True)
    grid = claims_grid(verdicts, reason=plain_sentence, reason_head="in plain words")
    return markdown_table(grid.without(["claim", "where"])).strip()


def _cut(lines: list[str], columns: Sequence[str]) -> str:
    """The first table of these lines, without other columns."""
    table = [_cells(line) for line in [*lines[:2], *_body(lines)]]
    keep = [table[0].index(name) for name in columns]
    return "\n".join("| " + " | ".join(row[index] for index in keep) + " |" for row in table)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _body(lines: list[str]) -> list[str]:
    width = len(_cells(lines[0]))
    body = []
    for line in lines[2:]:
        if len(_cells(line)) != width or _cells(line)[0] in ("phase", "train/infer"):
            break
        body.append(line)
    return body


def _fenced(output: str) -> str:
    output = output.replace("─", "-")  # a third of the bytes, of which the README has few
    return "```\n" + "\n".join(line.rstrip() for line in output.strip("\n").splitlines()) + "\n```"


def _bench(*arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


BLOCKS: Mapping[str, Callable[[], str]] = {
    "run": run_block,
    "links": links_block,
    "link_columns": link_columns_block,
    "gap": gap_block,
    "project": project_block,
    "served": served_block,
    "waiting": waiting_block,
    "claims": claims_block,
    "workloads": workloads_block,
}
DOCUMENTS = ("README.md", "docs/claims.md", "docs/links.md", "docs/serving.md", "docs/workloads.md")


def with_blocks(text: str) -> str:
    """Return a document with its generated parts made anew."""

    def made(match: re.Match[str]) -> str:
        return f"<!-- generated: {match[1]} -->\n\n{BLOCKS[match[1]]()}\n\n<!-- end -->"

    return re.sub(r"<!-- generated: (\w+) -->\n.*?<!-- end -->", made, text, flags=re.DOTALL)


if __name__ == "__main__":
    for name in DOCUMENTS:
        path = ROOT / name
        path.write_text(with_blocks(path.read_text(encoding="utf-8")), encoding="utf-8")
