"""The shipped ledger: every claim loads and is judged, and verdicts follow rows and figures."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

import pytest
from msgspec.structs import replace as copy

from bench.analysis.claims.claim_cases import ClaimFacts, make_facts
from bench.analysis.claims.claims_verdict import DECIDED, ClaimVerdict, judge
from bench.analysis.claims.ledger import Claim, find_claims, read_ledger, reference_rows
from bench.hardware.chips import load_chips
from bench.hardware.published import load_published
from bench.results.schema import Row, Value
from bench.run.recipes import RECIPES

CLAIMS = read_ledger()
BY_ID = {claim.id: claim for claim in CLAIMS}


def shipped_rows() -> list[Row]:
    return reference_rows(note=lambda text: pytest.fail(text))


@cache
def facts() -> ClaimFacts:
    return make_facts(shipped_rows())


def verdict(name: str, given: ClaimFacts | None = None) -> ClaimVerdict:
    return judge(BY_ID[name], given or facts())


def with_chip(name: str, *, field: str, **values: float) -> ClaimFacts:
    """Facts with other figures of one chip; `field` is facts or peak_per_s."""
    chips = [
        replace(chip, **{field: {**getattr(chip, field), **values}}) if chip.id == name else chip
        for chip in load_chips()
    ]
    return make_facts(shipped_rows(), chips=chips)


def with_ratio(name: str, ratio: float) -> ClaimFacts:
    known = load_published()
    ratios = tuple(copy(one, ratio=ratio) if one.id == name else one for one in known.ratios)
    assert ratios != known.ratios
    return make_facts(shipped_rows(), published=copy(known, ratios=ratios))


def with_cells(*, workload: str = "", **cells: Value) -> ClaimFacts:
    rows = shipped_rows()
    return make_facts([{**r, **cells} if workload in str(r["workload"]) else r for r in rows])


# The ledger ---------------------------------------------------------------------------------------


def test_all_forty_two_testable_claims_are_there_once() -> None:
    numbers = sorted(claim.number for claim in CLAIMS if claim.number is not None)
    assert numbers == list(range(1, 43))
    assert {claim.article.id for claim in CLAIMS} == {"F0", "F1", "F2", "F3", "F4"}
    assert sum(claim.number is None for claim in CLAIMS) >= 10, "the untestable ones are listed too"


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_every_claim_yields_a_verdict_with_its_evidence(claim: Claim) -> None:
    found = judge(claim, facts())
    assert found.reason
    for case in found.cases:
        assert case.how and case.source and case.factors
    if found.is_decided:
        assert found.counted
    if found.word == "UNDECIDED":
        assert found.missing or any(case.holds is None for case in found.cases)
    assert claim.experiment in {None, *(recipe.name for recipe in RECIPES)}
    assert claim.experiment or claim.kind not in ("measured", "emulated")


def test_thirty_of_the_forty_two_are_decided_without_an_accelerator() -> None:
    alone = make_facts([row for row in shipped_rows() if row["device_type"] == "cpu"])
    words = Counter(judge(c, alone).word for c in CLAIMS if c.number is not None)
    assert sum(words[word] for word in DECIDED) >= 30, words


def test_catalogue_claims_are_decided_without_any_row() -> None:
    nothing = make_facts([])
    assert verdict("thresholds", nothing).word == "HOLDS"
    assert verdict("cpu-and-gpu", nothing).word == "UNDECIDED"
    assert "bench run --workload imaging-train" in verdict("cpu-and-gpu", nothing).reason


def test_claims_are_found_by_id_number_and_article_and_come_by_number() -> None:
    found = find_claims(["h20-cores", "1", "F3"], ledger=CLAIMS)
    assert {claim.id for claim in found} >= {"h20-cores", "h800-slower", "shortage", "trillions"}
    numbers = [claim.number for claim in find_claims(ledger=CLAIMS) if claim.number]
    assert numbers == sorted(numbers)


# What is asked of some of them --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "word", "parts"),
    [
        ("genomics-7x", "HOLDS WHEN", ["DPX instructions"]),
        ("ascend-910-2x", "HOLDS WHEN", ["fp16_per_s"]),
        ("ascend-910b-20", "HOLDS WHEN", ["phase = operator"]),
        ("days-11-to-4", "HOLDS WHEN", ["chips over before"]),
        ("stacking", "HOLDS WHEN", ["chips"]),
        ("h800-slower", "HOLDS WHEN", ["ranks = 8"]),
        ("bigger-models", "HOLDS WHEN", ["ranks as memory needs"]),
        ("cpu-efficiency", "HOLDS WHEN", ["items per nominal joule"]),
        ("link-cut", "HOLDS WHEN", ["fp64"]),
        ("h20-28-percent", "REFUTED", ["imaging-train", "llm-train", "llm-decode", "bf16_per_s"]),
        ("share-price", "OUT OF SCOPE", ["wrong", "9.23 %"]),
        ("market-sum", "OUT OF SCOPE", ["right"]),
    ],
)
def test_reasons_name_the_condition_or_the_figures(name: str, word: str, parts: list[str]) -> None:
    found = verdict(name)
    assert found.word == word
    assert all(part in found.reason for part in parts), found.reason


def test_the_vendors_own_word_is_told_from_measurements() -> None:
    found = verdict("genomics-7x")
    assert found.rests_on.startswith("yes: vendor; no: published")
    assert found.claim.untested is not None and "DPX" in found.claim.untested


# Verdicts follow what they rest on ----------------------------------------------------------------

UNCUT = partial(with_chip, "a800-sxm-80g", field="facts", link_bytes_per_s=300e9)
DENSE = {chip.id: chip.peak_per_s for chip in load_chips()}


@pytest.mark.parametrize(
    ("name", "before", "change", "after"),
    [
        # more compute units
        ("h20-cores", "HOLDS", partial(with_chip, "h20-96g", field="facts", compute_units=100),
         "REFUTED"),
        # a link that was not cut
        ("special-editions", "HOLDS", UNCUT, "HOLDS WHEN"),
        ("thresholds", "HOLDS", UNCUT, "HOLDS WHEN"),
        # a sparse rate for a dense one
        ("special-editions", "HOLDS", partial(with_chip, "h20-96g", field="peak_per_s",
         fp8=2 * DENSE["h20-96g"]["fp8"]), "HOLDS WHEN"),
        ("special-editions", "HOLDS", partial(with_chip, "l20", field="peak_per_s",
         int8=2 * DENSE["l20"]["int8"]), "HOLDS WHEN"),
        # a slower BR104 makes domestic GPUs entry-level somewhere
        ("domestic-gpus", "REFUTED", partial(with_ratio, "i21-br104-a100-resnet", 0.3),
         "HOLDS WHEN"),
        # a loader that never makes a step wait
        ("cpu-and-gpu", "HOLDS WHEN", partial(with_cells, data_wait_frac=1e-6), "REFUTED"),
        # slow inference
        ("inference-parts", "HOLDS", partial(with_cells, workload="imaging-infer",
         step_median_ms=60_000.0), "HOLDS WHEN"),
        # a CPU so fast that a card is useless for tables
        ("chronic-disease", "HOLDS WHEN", partial(with_cells, roof_flops_per_s=8e12), "HOLDS"),
    ],
)  # fmt: skip
def test_a_changed_figure_changes_the_verdict(
    name: str, before: str, change: Callable[[], ClaimFacts], after: str
) -> None:
    assert verdict(name).word == before
    assert verdict(name, change()).word == after


def test_a_faster_910b_in_training_changes_the_condition() -> None:
    changed = with_ratio("flagperf-910b-a100-bert-bf16", 1.15)
    assert verdict("ascend-910b-20", changed).reason != verdict("ascend-910b-20").reason


def test_a_chip_as_fast_as_the_h100_would_hold_a_third_less() -> None:
    def middle(given: ClaimFacts) -> float:
        cases = {c.factors.get("workload"): c.value for c in verdict("h20-28-percent", given).cases}
        assert (value := cases["imaging-train"]) is not None
        return value.mid

    faster = with_chip("h20-96g", field="peak_per_s", bf16=989.4e12, fp16=989.4e12)
    assert middle(faster) > 1.5 * middle(facts())
