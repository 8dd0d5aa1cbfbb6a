"""Reading the ledger: one YAML file per article, strictly.

A key that nobody reads, an unknown evaluator, a wrong unit or an unknown kind is an error that
names file and claim, when the ledger is loaded and not when a verdict is wanted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

from bench.analysis.claims import KINDS, Article, Bounds, Claim, Evaluate, Kind
from bench.analysis.evaluators import EVALUATORS
from bench.core.errors import DataError, UsageError
from bench.hardware.loader import Row, load_rows, read_document

UNITS = ("ratio", "share", "s", "days", "minutes", "W", "usd", "flops_per_s", "chips", "")
"""What a claim's figure may be in; '' for a claim without one."""


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
    document = read_document(path)
    article = _article(document.child("article", required=True))
    if article.id != path.stem:
        raise DataError(f"{path.name}: its article calls itself {article.id!r}")
    claims = load_rows(document.rows("claims"), build=lambda row: _claim(row, article=article))
    document.finish()
    return list(claims)


def _article(row: Row) -> Article:
    article = Article(
        id=row.need_text("id"),
        publisher=row.need_text("publisher"),
        title=row.need_text("title"),
        date=row.need_text("date"),
        found=row.need_text("found"),
    )
    row.finish()
    return article


def _claim(row: Row, *, article: Article) -> Claim:
    unit = row.text("unit") or ""
    if unit not in UNITS:
        raise row.complain("unit", f"{unit!r} is not one of {', '.join(UNITS)}")
    bounds = Bounds(low=row.number("low"), high=row.number("high"))
    kind = cast(Kind, row.choice("kind", allowed=KINDS))
    tests = tuple(read_test(test, bounds=bounds, unit=unit) for test in row.mappings("tests"))
    if not tests and kind != "out of scope":
        raise row.complain("tests", "missing; only what is out of scope goes without")
    return Claim(
        id=row.need_text("id"),
        article=article,
        number=row.count("number"),
        where=f"{article.id}:{row.need_text('where')}",
        text=row.need_text("claim"),
        kind=kind,
        experiment=row.text("experiment"),
        metric=row.text("metric") or "",
        value=row.number("value"),
        bounds=bounds,
        unit=unit,
        scope="some" if row.text("scope") == "some" else _every(row),
        untested=row.text("untested"),
        tests=tests,
    )


def _every(row: Row) -> Literal["every"]:
    if row.text("scope") not in (None, "every"):
        raise row.complain("scope", "is 'every' (the default) or 'some'")
    return "every"


def read_test(row: Row, *, bounds: Bounds, unit: str) -> Evaluate:
    """Read one test; bounds and unit of the claim stand unless it gives its own."""
    name = row.choice("by", allowed=tuple(EVALUATORS))
    own = Bounds(low=row.number("low"), high=row.number("high"))
    chosen = bounds if own == Bounds() else own
    evaluate = EVALUATORS[name](row, chosen, row.text("unit") or unit)
    row.finish()
    return evaluate


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
