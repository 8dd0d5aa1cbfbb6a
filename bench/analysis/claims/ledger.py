"""Published claims as data: one YAML file per article, read strictly; and the rows that ship.

A claim says what somebody printed, in our words, and which tests bear on it. A key that nobody
reads, an unknown test, a wrong unit or an unknown kind is an error that names file and claim, when
the ledger is loaded and not when a verdict is wanted. Ledger and reference rows come with a
checkout and with an installed wheel.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from importlib import metadata
from pathlib import Path
from typing import Literal

from msgspec import field, structs

from bench.analysis.claims.claim_cases import Bounds
from bench.analysis.claims.evaluators import (
    catalogue_claims,
    gap_claims,
    link_claims,
    measured_claims,
)
from bench.core.errors import DataError, UsageError
from bench.hardware.loader import Count, Declared, Number, Text, read_document

_DISTRIBUTION = "gapbench"
_INSTALLED = Path("share") / _DISTRIBUTION
AnyTest = (
    catalogue_claims.Arithmetic
    | catalogue_claims.Needs
    | catalogue_claims.CatalogueRatio
    | catalogue_claims.CatalogueWhere
    | catalogue_claims.ExportOutcome
    | catalogue_claims.PublishedFigureTest
    | catalogue_claims.PublishedRatioTest
    | gap_claims.FormulaGap
    | gap_claims.MeasuredGap
    | gap_claims.PublishedGapTest
    | gap_claims.WideningGap
    | link_claims.CommunicationShare
    | link_claims.LinkSlowdown
    | link_claims.MitigationShare
    | link_claims.Region
    | measured_claims.EmulatedSlowdown
    | measured_claims.MeasuredRatio
    | measured_claims.Crossover
    | measured_claims.ProjectedRatio
    | measured_claims.Stacking
)


class Article(Declared, frozen=True, kw_only=True):
    """Where claims were printed."""

    id: Text
    publisher: Text
    title: Text
    """What it is about, in our words."""
    date: Text
    found: Text


class _WrittenClaim(Bounds, frozen=True, kw_only=True):
    id: Text
    number: Count | None = None
    """In the list of testable claims; None for those that are only noted."""
    where: Text
    """Lines; of a claim that was read, article and lines."""
    text: Text = field(name="claim")
    kind: Literal["measured", "emulated", "projected", "specification", "arithmetic",
                  "out of scope"]  # fmt: skip
    experiment: Text | None = None
    """Recipe that would test it (`bench list recipes`); None where nothing needs to run."""
    metric: Text | None = None
    value: Number | None = None
    scope: Literal["every", "some"] = "every"
    """Whether it is said of every case, or of some ('can', 'up to', 'in some tests')."""
    untested: Text | None = None
    """The part of the claim that no test here bears on."""
    tests: tuple[AnyTest, ...] = ()

    def __post_init__(self) -> None:
        if not self.tests and self.kind != "out of scope":
            raise ValueError("tests: missing; only what is out of scope goes without")


class Claim(_WrittenClaim, frozen=True, kw_only=True):
    """One claim and the article that printed it."""

    article: Article


class _LedgerFile(Declared, frozen=True, kw_only=True):
    article: Article
    claims: tuple[_WrittenClaim, ...]


def shipped_folder(name: str, *, checkout: str) -> Path:
    """Folder of shipped data: in a checkout `checkout`, else where the installer put `name`."""
    root = Path(__file__).resolve().parents[3]
    # `pip install --target` puts data beside the packages, which its own list of files denies.
    for folder in (root / checkout, root / _INSTALLED / name, *_from_metadata(name)):
        if folder.is_dir():
            return folder
    raise DataError(f"the folder {name} of this installation is missing; install gapbench again")


def _from_metadata(name: str) -> list[Path]:
    """Where the installer says it put the files: the prefix, --user and --prefix differ."""
    try:
        files = metadata.distribution(_DISTRIBUTION).files or []
    except metadata.PackageNotFoundError:
        return []
    ending = (*_INSTALLED.parts, name)
    return [Path(str(file.locate())).parent for file in files if file.parent.parts[-3:] == ending]


def reference_files() -> list[Path]:
    """Result files measured on real hardware that ship with the harness."""
    return sorted(shipped_folder("reference", checkout="results/reference").glob("*.csv"))


def read_ledger(folder: Path | None = None) -> list[Claim]:
    """Read every claim in `folder`, else those that ship, by article and then as written."""
    folder = folder or shipped_folder("seeds", checkout="seeds")
    files = sorted(folder.glob("*.yaml"))
    if not files:
        raise DataError(f"{folder}: holds no ledger file (F0.yaml and so on)")
    claims = [claim for path in files for claim in _read_file(path)]
    seen: dict[str, Claim] = {}
    for claim in claims:
        for name in (claim.id, str(claim.number or claim.id)):
            if seen.setdefault(name, claim) is not claim:
                raise DataError(f"{claim.article.id}: claim {name!r} stands twice in the ledger")
    return claims


def _read_file(path: Path) -> list[Claim]:
    file = read_document(path, into=_LedgerFile)
    article = file.article
    if article.id != path.stem:
        raise DataError(f"{path.name}: its article calls itself {article.id!r}")
    return [
        Claim(article=article, **structs.asdict(one) | {"where": f"{article.id}:{one.where}"})
        for one in file.claims
    ]


def find_claims(names: Sequence[str] = (), *, ledger: Sequence[Claim]) -> list[Claim]:
    """Claims by id, number or article (`F1`), by number; all without names.

    `UsageError` for one that is not there.
    """
    claims = sorted(ledger, key=lambda claim: claim.number or len(ledger) + 1)
    if not names:
        return claims
    found: dict[str, Claim] = {}
    for name in names:
        chosen = [c for c in claims if name in (c.id, str(c.number), c.article.id)]
        if not chosen:
            raise UsageError(_unknown(name, claims))
        found |= {claim.id: claim for claim in chosen}
    return list(found.values())


def _unknown(name: str, claims: list[Claim]) -> str:
    near = get_close_matches(name, [claim.id for claim in claims], n=1)
    guess = f"; did you mean {near[0]!r}?" if near else "."
    articles = ", ".join(sorted({claim.article.id for claim in claims}))
    return (
        f"claim {name[:60]!r} is not in the ledger{guess} Allowed: an id, a number from 1 to "
        f"{max((claim.number or 0 for claim in claims), default=0)}, or an article ({articles}); "
        "`bench claims` lists them"
    )
