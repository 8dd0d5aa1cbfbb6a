"""Verdicts as tables: all claims in a line each, and one claim with every case it rests on.

The words of a verdict come from the analysis; here they are only laid out. What a verdict rests on
stands beside it, so that what is projected, modelled or emulated is never taken for measured.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from bench.analysis.claims import WORDS, Case, Verdict, Word
from bench.analysis.claims_condition import number_words
from bench.analysis.claims_facts import make_facts, reference_rows, seeds_folder
from bench.analysis.claims_file import find_claims, read_ledger
from bench.analysis.claims_verdict import judge, span_words
from bench.report.page.content import Prose, Section
from bench.report.tables.grid import Grid, markdown_table

_LOG = logging.getLogger(__name__)
_LEADS: dict[Word, str] = {
    "HOLDS": "Found",
    "HOLDS WHEN": "When",
    "REFUTED": "Found",
    "UNDECIDED": "Open",
    "OUT OF SCOPE": "Noted",
}
_HOLDS = {True: "yes", False: "no", None: "too close"}


def claims_grid(verdicts: Sequence[Verdict], *, title: str = "") -> Grid:
    """One line a claim: number, place, what is claimed, verdict, when or why, what it rests on."""
    rows = [
        (
            "" if verdict.claim.number is None else str(verdict.claim.number),
            verdict.claim.id,
            verdict.claim.where,
            verdict.claim.text,
            verdict.word,
            verdict.reason,
            verdict.rests_on,
        )
        for verdict in verdicts
    ]
    return Grid(
        title=title,
        heads=("no.>", "claim", "where", "what is claimed", "verdict", "when, or why", "rests on"),
        rows=rows,
        notes=(summary(verdicts),),
    )


def short_grid(verdicts: Sequence[Verdict]) -> Grid:
    """Table for the terminal: without the place and what the figures rest on in words."""
    rows = [
        (
            "" if verdict.claim.number is None else str(verdict.claim.number),
            verdict.claim.id,
            verdict.word,
            f"{verdict.claim.text}. {_LEADS[verdict.word]}: {verdict.reason}",
            verdict.rests_on,
        )
        for verdict in verdicts
    ]
    heads = ("no.>", "claim", "verdict", "what is claimed; when it holds, or why not", "rests on")
    return Grid(heads=heads, rows=rows, notes=(summary(verdicts),))


def summary(verdicts: Sequence[Verdict]) -> str:
    """`38 of 42 testable claims decided: 25 HOLDS WHEN, ...`; the rest counted apart."""
    testable = [verdict for verdict in verdicts if verdict.claim.number is not None]
    counted = Counter(verdict.word for verdict in testable)
    words = ", ".join(f"{counted[word]} {word}" for word in WORDS if counted[word])
    decided = sum(verdict.is_decided for verdict in testable)
    others = len(verdicts) - len(testable)
    noted = f"; {others} more only noted" if others else ""
    return f"{decided} of {len(testable)} testable claims decided: {words}{noted}"


def case_grids(verdict: Verdict) -> list[Grid]:
    """All cases of one claim: those that have a say, and those shown beside."""
    counted = [case for case in verdict.cases if case.counts]
    beside = [case for case in verdict.cases if not case.counts]
    grids = [_case_grid(counted, title="Cases")] if counted else []
    return grids + ([_case_grid(beside, title="Beside, without a say")] if beside else [])


def _case_grid(cases: Sequence[Case], *, title: str) -> Grid:
    rows = [
        (
            _HOLDS[case.holds],
            ", ".join(
                f"{name} {value if isinstance(value, str) else number_words(value)}"
                for name, value in case.factors.items()
            ),
            "" if case.value is None else span_words(case.value, case.unit),
            case.basis,
            case.how,
        )
        for case in cases
    ]
    return Grid(title=title, heads=("holds", "circumstances", "figure", "basis", "how"), rows=rows)


def why_lines(verdict: Verdict, *, command: str | None) -> tuple[list[str], list[str]]:
    """Lines above and below the cases of one claim; `command` measures what would test it."""
    claim = verdict.claim
    head = [
        f"{claim.id}: {claim.text}",
        f"said in {claim.where}, {claim.article.publisher} ({claim.article.date}): "
        f"{claim.article.title}",
        f"kind: {claim.kind}",
    ]
    if claim.metric:
        asked = "" if claim.bounds.words == "any" else f"; asked {claim.bounds.words} {claim.unit}"
        head.append(f"metric: {claim.metric}{asked}".rstrip())
    head.append(f"verdict: {verdict.word}" + (f": {verdict.reason}" if verdict.reason else ""))
    sources = dict.fromkeys(case.source for case in verdict.cases)
    tail = [f"source: {source}" for source in sources]
    tail += [f"missing: {text}" for text in verdict.missing]
    tail += [f"not tested: {claim.untested}"] if claim.untested else []
    tail += [f"to test it: {command}"] if command else []
    return head, tail


def claims_section(verdicts: Sequence[Verdict]) -> Section:
    """Section of a report: the table, with a line on what the words mean."""
    meaning = Prose(
        lines=(
            "Computed from measured rows, the catalogue, the link model and published figures; "
            "HOLDS WHEN names the circumstances found among the cases computed. "
            "What a verdict rests on is in the last column.",
        )
    )
    return Section(name="claims", title="Published claims", parts=(meaning, claims_grid(verdicts)))


def claims_markdown(verdicts: Sequence[Verdict]) -> str:
    """Markdown table of the verdicts."""
    return markdown_table(claims_grid(verdicts))


def claims_block() -> str:
    """Markdown table of the testable claims from shipped data alone, for the README."""
    facts = make_facts(reference_rows(note=_LOG.warning))
    chosen = [claim for claim in find_claims(read_ledger(seeds_folder()), []) if claim.number]
    verdicts = [judge(claim, facts) for claim in chosen]
    rows = [
        (str(one.claim.number), one.claim.text, one.word, one.reason, one.rests_on)
        for one in verdicts
    ]
    heads = ("no.>", "what is claimed", "verdict", "when, or why", "rests on")
    return markdown_table(Grid(heads=heads, rows=rows, notes=(summary(verdicts),)))
