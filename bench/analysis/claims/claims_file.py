"""Reading the ledger: one YAML file per article, strictly.

A key that nobody reads, an unknown evaluator, a wrong unit or an unknown kind is an error that
names file and claim, when the ledger is loaded and not when a verdict is wanted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from bench.analysis.claims.claim import Article, Bounds, Claim, Kind
from bench.analysis.claims.evaluators import AnyTest
from bench.core.errors import DataError, UsageError
from bench.hardware.loader import Count, Declared, Number, Text, read_document

Unit = Literal["ratio", "share", "s", "days", "minutes", "W", "usd", "flops_per_s", "chips"]


class _ClaimRow(Declared, frozen=True, kw_only=True):
    id: Text
    number: Count | None = None
    where: Text
    claim: Text
    kind: Kind
    experiment: Text | None = None
    metric: Text | None = None
    value: Number | None = None
    low: Number | None = None
    high: Number | None = None
    unit: Unit | None = None
    scope: Literal["every", "some"] = "every"
    untested: Text | None = None
    tests: tuple[AnyTest, ...] = ()

    def __post_init__(self) -> None:
        if not self.tests and self.kind != "out of scope":
            raise ValueError("tests: missing; only what is out of scope goes without")


class _LedgerFile(Declared, frozen=True, kw_only=True):
    article: Article
    claims: tuple[_ClaimRow, ...]


def read_ledger(folder: Path) -> list[Claim]:
    """Read every claim in `folder`, by article and then as written."""
    files = sorted(folder.glob("*.yaml"))
    if not files:
        raise DataError(f"{folder}: holds no ledger file (F0.yaml and so on)")
    claims = [claim for path in files for claim in _read_file(path)]
    seen: dict[str, Claim] = {}
    for claim in claims:
        for name in (claim.id, str(claim.number) if claim.number is not None else claim.id):
            if seen.setdefault(name, claim) is not claim:
                raise DataError(f"{claim.article.id}: claim {name!r} stands twice in the ledger")
    return claims


def _read_file(path: Path) -> list[Claim]:
    file = read_document(path, into=_LedgerFile)
    if file.article.id != path.stem:
        raise DataError(f"{path.name}: its article calls itself {file.article.id!r}")
    return [_claim(row, article=file.article) for row in file.claims]


def _claim(row: _ClaimRow, *, article: Article) -> Claim:
    bounds, unit = Bounds(low=row.low, high=row.high), row.unit or ""
    return Claim(
        id=row.id,
        article=article,
        number=row.number,
        where=f"{article.id}:{row.where}",
        text=row.claim,
        kind=row.kind,
        experiment=row.experiment,
        metric=row.metric or "",
        value=row.value,
        bounds=bounds,
        unit=unit,
        scope=row.scope,
        untested=row.untested,
        tests=tuple(test.of_claim(bounds=bounds, unit=unit) for test in row.tests),
    )


def find_claims(claims: list[Claim], names: list[str]) -> list[Claim]:
    """Claims by id, number or article (`F1`), by number; all without names.

    `UsageError` for one that is not there.
    """
    claims = sorted(claims, key=lambda claim: claim.number or len(claims) + 1)
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
    from difflib import get_close_matches

    near = get_close_matches(name, [claim.id for claim in claims], n=1)
    guess = f"; did you mean {near[0]!r}?" if near else "."
    articles = ", ".join(sorted({claim.article.id for claim in claims}))
    numbers = [claim.number for claim in claims if claim.number is not None]
    return (
        f"claim {name[:60]!r} is not in the ledger{guess} Allowed: an id, a number from 1 to "
        f"{max(numbers, default=0)}, or an article ({articles}); `bench claims` lists them"
    )
