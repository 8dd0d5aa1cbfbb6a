"""Write the generated parts of the README from committed rows: `python -m scripts.readme`.

The tables come from `results/reference`, the example workload stays where it is; a test holds the
README to what this prints.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
ROWS = ROOT / "results" / "reference" / "cpu-2core.csv"


def run_block() -> str:
    """The table that a run ends with, from the reference rows."""
    import io

    from rich.console import Console

    from bench.report.tables.run_table import reason_lines, run_grid
    from bench.report.tables.screen import print_tables
    from bench.results.reader import read_rows

    rows = read_rows(ROWS)
    console = Console(file=io.StringIO(), width=100, highlight=False)
    print_tables(console, [run_grid(rows)], lines=reason_lines(rows))
    output = console.file.getvalue()  # type: ignore[attr-defined]
    return "```\n" + "\n".join(line.rstrip() for line in output.strip("\n").splitlines()) + "\n```"


def gap_block() -> str:
    """What `bench gap` says of the reference rows, as Markdown."""
    done = subprocess.run(
        [sys.executable, "-m", "bench", "gap", str(ROWS.relative_to(ROOT)), "--format", "markdown"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def claims_block() -> str:
    """The verdicts on testable claims, from what is shipped alone."""
    from bench.analysis.claims_facts import make_facts, reference_rows, seeds_folder
    from bench.analysis.claims_file import find_claims, read_ledger
    from bench.analysis.claims_verdict import judge
    from bench.report.tables.claims_table import claims_grid
    from bench.report.tables.grid import markdown_table

    facts = make_facts(reference_rows(note=sys.stderr.write))
    chosen = [claim for claim in find_claims(read_ledger(seeds_folder()), []) if claim.number]
    grid = claims_grid([judge(claim, facts) for claim in chosen])
    return markdown_table(grid.without(["claim", "where"])).strip()


def with_blocks(text: str) -> str:
    """Return the README with its generated parts made anew."""
    blocks = {"run": run_block(), "gap": gap_block(), "claims": claims_block()}
    for name, block in blocks.items():
        begin, end = f"<!-- generated: {name} -->\n", "<!-- end -->"
        head, _, rest = text.partition(begin)
        _, _, tail = rest.partition(end)
        text = f"{head}{begin}\n{block}\n\n{end}{tail}"
    return text


if __name__ == "__main__":
    README.write_text(with_blocks(README.read_text(encoding="utf-8")), encoding="utf-8")
