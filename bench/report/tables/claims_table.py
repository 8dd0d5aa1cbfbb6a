"""Verdicts as tables: by article, a claim in a line each, and one claim with all its cases.

The words of a verdict come from the analysis; here they are only laid out. What a verdict rests on
stands beside it, so that what is projected, modelled or emulated is never taken for measured.
"""

from collections import Counter
from collections.abc import Callable, Sequence

from bench.analysis.claims.claim_cases import ClaimCase, span_of
from bench.analysis.claims.claims_verdict import WORDS, ClaimVerdict, span_words, value_words
from bench.core.units import format_ranges
from bench.report.tables.cells import AnyCell, Cell, quantity
from bench.report.tables.grid import Grid

_HOLDS = {True: "yes", False: "no", None: "too close"}
_MOST_CHARACTERS = 62
_MOST_BASES = 17
_MORE = "bench claims F1 lists an article's claims, bench claims 1 --why explains one"


def claims_grid(
    verdicts: Sequence[ClaimVerdict],
    *,
    reason: Callable[[ClaimVerdict], str] = lambda one: one.reason,
    reason_head: str = "when, or why",
) -> Grid:
    """One line a claim: number, place, what is claimed, verdict, when or why, what it rests on."""
    columns: dict[str, Callable[[ClaimVerdict], AnyCell]] = {
        "no.": lambda one: quantity(one.claim.number),
        "claim": lambda one: one.claim.id,
        "where": lambda one: one.claim.where,
        "what is claimed": lambda one: one.claim.text,
        "verdict": lambda one: Cell(word=one.word),
        reason_head: reason,
        "rests on": lambda one: one.rests_on,
    }
    return Grid.of(verdicts, columns, notes=(summary(verdicts),))


def listed(verdicts: Sequence[ClaimVerdict]) -> Grid:
    """One short line a claim; conditions are behind --why, claims only noted in a line of names."""
    chosen = [one for one in verdicts if one.claim.number is not None] or verdicts
    noted = ", ".join(one.claim.id for one in verdicts if one not in chosen)
    return Grid.of(
        chosen,
        {
            "no.": lambda one: quantity(one.claim.number) or one.claim.id,
            "verdict": lambda one: Cell(word=one.word),
            "what is claimed": lambda one: _cut(one.claim.text),
            "rests on": _short_bases,
        },
        notes=(
            summary(verdicts),
            *([f"only noted: {noted}"] if noted else []),
            "bench claims NUMBER --why shows when a claim holds, its cases and sources",
        ),
    )


def _cut(text: str) -> str:
    if len(text) <= _MOST_CHARACTERS:
        return text
    return text[: _MOST_CHARACTERS - 1].rsplit(" ", 1)[0] + "…"


def _short_bases(one: ClaimVerdict) -> str:
    reported = ", ".join(one.bases)
    return reported if len(reported) <= _MOST_BASES else f"{one.bases[0]} +{len(one.bases) - 1}"


def overview(verdicts: Sequence[ClaimVerdict]) -> Grid:
    """Numbers of claims by article and verdict; below, in words, what is refuted or undecided."""
    articles = {one.claim.article.id: one.claim.article for one in verdicts}

    def numbers(name: str, word: str) -> str:
        chosen = [one.claim for one in verdicts if one.word == word and one.claim.number]
        found = [claim.number or 0 for claim in chosen if claim.article.id == name]
        return format_ranges(found).replace(",", ", ")

    about = sorted(articles.items())
    notes = [f"{name}: {one.title} ({one.publisher}, {one.date})" for name, one in about]
    notes.append(summary(verdicts))
    for one in sorted(verdicts, key=lambda one: WORDS.index(one.word)):
        if one.word in ("REFUTED", "UNDECIDED") and one.claim.number:
            notes.append(f"{one.claim.number} {one.word}: {one.claim.text}")
            notes.append(f"  {plain_sentence(one)}")
    num_noted = sum(one.claim.number is None for one in verdicts)
    notes.append(f"{num_noted} more are only noted; {_MORE}")
    return Grid(
        heads=("article", *WORDS),
        rows=[(name, *(numbers(name, word) for word in WORDS)) for name in sorted(articles)],
        title="Published claims by number",
        notes=tuple(notes),
    )


def summary(verdicts: Sequence[ClaimVerdict]) -> str:
    """`38 of 42 testable claims decided: 25 HOLDS WHEN, ...`."""
    testable = [one for one in verdicts if one.claim.number is not None]
    counted = Counter(one.word for one in testable)
    words = ", ".join(f"{counted[word]} {word}" for word in WORDS if counted[word])
    decided = sum(one.is_decided for one in testable)
    return f"{decided} of {len(testable)} testable claims decided: {words}"


def case_grids(found: ClaimVerdict) -> list[Grid]:
    """All cases of one claim: those that have a say, and those shown beside."""
    grids = [
        Grid.of([case for case in found.cases if case.counts is counts], _CASE_COLUMNS, title=name)
        for name, counts in (("Cases", True), ("Beside, without a say", False))
    ]
    return [grid for grid in grids if grid.rows]


_CASE_COLUMNS: dict[str, Callable[[ClaimCase], AnyCell]] = {
    "holds": lambda case: _HOLDS[case.holds],
    "circumstances": lambda case: ", ".join(
        f"{name} {value_words(value)}" for name, value in case.factors.items()
    ),
    "figure": lambda case: "" if case.value is None else span_words(case.value, case.unit),
    "basis": lambda case: case.basis,
    "how": lambda case: case.how,
}


def why_lines(found: ClaimVerdict, *, command: str | None) -> tuple[list[str], list[str]]:
    """Lines above and below the cases of one claim; `command` measures what would test it."""
    claim = found.claim
    head = [
        f"{claim.id}: {claim.text}",
        f"said in {claim.where}, {claim.article.publisher} ({claim.article.date}): "
        f"{claim.article.title}",
        f"kind: {claim.kind}",
    ]
    if claim.metric:
        asked = "" if claim.words == "any" else f"; asked {claim.words} {claim.unit or ''}"
        head.append(f"metric: {claim.metric}{asked}".rstrip())
    head.append(f"verdict: {found.word}" + (f": {found.reason}" if found.reason else ""))
    sources = dict.fromkeys(case.source for case in found.cases)
    tail = [f"source: {source}" for source in sources]
    tail += [f"missing: {text}" for text in found.missing]
    tail += [f"not tested: {claim.untested}"] if claim.untested else []
    tail += [f"to test it: {command}"] if command else []
    return head, tail


def plain_sentence(one: ClaimVerdict) -> str:
    """Return a verdict as one sentence for a reader who knows the article and not this program."""
    counted = one.counted
    holds, num = Counter(case.holds for case in counted), len(counted)
    tail = (f", {holds[None]} too close to tell" if holds[None] else "") + _figures(counted)
    if one.word == "OUT OF SCOPE":
        return "Nothing here can be run or computed."
    if one.word == "UNDECIDED":
        return f"Open: {one.reason}."
    if one.word == "HOLDS":
        return f"True in {_of_all(num, of=num)}{tail}."
    if one.word == "REFUTED":
        return f"False in {_of_all(holds[False], of=num)}{tail}."
    return f"True in {holds[True]} of {num} cases, false in {holds[False]}{tail}."


def _of_all(number: int, *, of: int) -> str:
    if number < of:
        return f"{number} of {of} cases"
    return {1: "the one case there is", 2: "both cases"}.get(number, f"all {number} cases")


def _figures(cases: Sequence[ClaimCase]) -> str:
    """Lowest and highest figure, where all cases are in one unit."""
    spans = [(case.value, case.unit) for case in cases if case.value is not None]
    if len(spans) < max(2, len(cases)) or len({unit for _, unit in spans}) > 1:
        return ""
    values = sorted((span for span, _ in spans), key=lambda span: span.mid)
    low, high = (span_words(span_of(mid), spans[0][1]) for mid in (values[0].mid, values[-1].mid))
    return f"; figures from {low} to {high}" if low != high else f"; the figure is {low}"
