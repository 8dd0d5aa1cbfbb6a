"""What verdicts rest on: rows, catalogue chips and published figures, handed to every test.

Tests read nothing else that could differ between two evaluations, so that a changed row or figure
changes what they say. Ledger and reference rows come with a checkout and with an installed wheel.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from bench.analysis.trials.configuration import Trials, gather
from bench.analysis.trials.identity import TERMS
from bench.core.errors import DataError
from bench.core.nouns import Chip
from bench.hardware.chips import load_chips
from bench.hardware.published import Published, load_published
from bench.results.reader import read_rows
from bench.results.schema import USABLE, Row

_DISTRIBUTION = "gapbench"
_INSTALLED = Path("share") / _DISTRIBUTION


@dataclass(frozen=True, kw_only=True)
class ClaimFacts:
    """Everything that verdicts are computed from."""

    chips: Mapping[str, Chip]
    published: Published
    configurations: Sequence[Trials]
    """Those with a usable trial."""


def make_facts(
    rows: Sequence[Row], *, chips: Sequence[Chip] | None = None, published: Published | None = None
) -> ClaimFacts:
    """Gather facts; catalogue and published figures are those that ship unless given."""
    return ClaimFacts(
        chips={chip.id: chip for chip in (load_chips() if chips is None else chips)},
        published=load_published() if published is None else published,
        configurations=gather((row for row in rows if row["status"] in USABLE), by=TERMS),
    )


def shipped_folder(name: str, *, checkout: str) -> Path:
    """Folder of shipped data: in a checkout `checkout`, else where the wheel put `name`."""
    root = Path(__file__).resolve().parents[3]
    # `pip install --target` puts data beside the packages, other schemes under the prefix.
    tried = [root / checkout, root / _INSTALLED / name,
             Path(sysconfig.get_path("data")) / _INSTALLED / name]  # fmt: skip
    for folder in (*tried, *_from_metadata(name)):
        if folder.is_dir():
            return folder
    raise DataError(f"the folder {name} of this installation is missing; install gapbench again")


def _from_metadata(name: str) -> list[Path]:
    """Where the installer says it put the files: --user, --target and --prefix differ."""
    try:
        files = metadata.distribution(_DISTRIBUTION).files or []
    except metadata.PackageNotFoundError:
        return []
    ending = (*_INSTALLED.parts, name)
    return [Path(str(file.locate())).parent for file in files if file.parent.parts[-3:] == ending]


def reference_rows(*, note: Callable[[str], None]) -> list[Row]:
    """Rows measured on real hardware that ship with the harness."""
    folder = shipped_folder("reference", checkout="results/reference")
    return [row for path in sorted(folder.glob("*.csv")) for row in read_rows(path, note=note)]
