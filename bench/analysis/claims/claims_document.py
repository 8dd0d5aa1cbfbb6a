"""What `bench claims --json` prints: every claim, its verdict and every case, unrounded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from msgspec import to_builtins

from bench.analysis.claims.claim import Case, Verdict


def claims_document(verdicts: Sequence[Verdict]) -> dict[str, object]:
    """One document."""
    testable = [verdict for verdict in verdicts if verdict.claim.number is not None]
    return {
        "kind": "claims",
        "num_testable": len(testable),
        "num_decided": sum(verdict.is_decided for verdict in testable),
        "verdicts": dict(Counter(verdict.word for verdict in testable)),
        "claims": [_claim(verdict) for verdict in verdicts],
    }


def _claim(verdict: Verdict) -> dict[str, object]:
    claim = verdict.claim
    return {
        "id": claim.id,
        "number": claim.number,
        "article": to_builtins(claim.article),
        "where": claim.where,
        "claim": claim.text,
        "kind": claim.kind,
        "experiment": claim.experiment,
        "metric": claim.metric or None,
        "value": claim.value,
        "low": claim.bounds.low,
        "high": claim.bounds.high,
        "unit": claim.unit or None,
        "scope": claim.scope,
        "untested": claim.untested,
        "verdict": verdict.word,
        "reason": verdict.reason,
        "rests_on": list(verdict.bases),
        "missing": list(verdict.missing),
        "cases": [_case(case) for case in verdict.cases],
    }


def _case(case: Case) -> dict[str, object]:
    return {
        "circumstances": dict(case.factors),
        "holds": case.holds,
        "figure": None if case.value is None else vars(case.value),
        "unit": case.unit or None,
        "how": case.how,
        "basis": case.basis,
        "source": case.source,
        "has_a_say": case.counts,
    }
