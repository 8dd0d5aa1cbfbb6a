"""The shipped ledger: every claim loads and is judged, and verdicts follow rows and figures."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
from msgspec.structs import replace as copy

from bench.analysis.claims.claim import DECIDED, Case, Claim, Verdict
from bench.analysis.claims.claims_facts import ClaimFacts, make_facts, reference_rows, seeds_folder
from bench.analysis.claims.claims_file import find_claims, read_ledger
from bench.analysis.claims.claims_verdict import judge
from bench.core.nouns import Chip
from bench.hardware.chips import load_chips
from bench.hardware.published import load_published
from bench.results.schema import Row
from bench.run.recipes import RECIPES

CLAIMS = read_ledger(seeds_folder())
BY_ID = {claim.id: claim for claim in CLAIMS}


def shipped_rows() -> list[Row]:
    return reference_rows(note=lambda text: pytest.fail(text))


@cache
def facts() -> ClaimFacts:
    return make_facts(shipped_rows())


def verdict(name: str, given: ClaimFacts | None = None) -> Verdict:
    return judge(BY_ID[name], given or facts())


def with_chip(name: str, change: Callable[[Chip], Chip]) -> ClaimFacts:
    chips = [change(chip) if chip.id == name else chip for chip in load_chips()]
    return make_facts(shipped_rows(), chips=chips)


def with_fact(name: str, **values: float) -> ClaimFacts:
    return with_chip(name, lambda chip: replace(chip, facts={**chip.facts, **values}))


def with_peak(name: str, **peaks: float) -> ClaimFacts:
    return with_chip(name, lambda chip: replace(chip, peak_per_s={**chip.peak_per_s, **peaks}))


def with_ratio(name: str, ratio: float) -> ClaimFacts:
    known = load_published()
    ratios = tuple(copy(one, ratio=ratio) if one.id == name else one for one in known.ratios)
    assert ratios != known.ratios
    return make_facts(shipped_rows(), published=copy(known, ratios=ratios))


def with_rows(workload: str, **cells: float) -> ClaimFacts:
    rows = [{**row, **cells} if row["workload"] == workload else row for row in shipped_rows()]
    return make_facts(rows)


# The ledger ---------------------------------------------------------------------------------------


def test_all_forty_two_testable_claims_are_there_once() -> None:
    numbers = sorted(claim.number for claim in CLAIMS if claim.number is not None)
    assert numbers == list(range(1, 43))
    assert {claim.article.id for claim in CLAIMS} == {"F0", "F1", "F2", "F3", "F4"}
    assert sum(claim.number is None for claim in CLAIMS) >= 10, "the untestable ones are listed too"


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_every_claim_yields_a_verdict_with_its_evidence(claim: Claim) -> None:
    told = judge(claim, facts())
    assert told.reason
    for case in told.cases:
        assert case.how and case.source and case.factors
    if told.is_decided:
        assert any(case.counts for case in told.cases)
    if told.word == "UNDECIDED":
        assert told.missing or any(case.holds is None for case in told.cases)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_every_experiment_is_a_recipe(claim: Claim) -> None:
    assert claim.experiment in {None, *(recipe.name for recipe in RECIPES)}
    assert claim.experiment or claim.kind in (
        "out of scope",
        "specification",
        "projected",
        "arithmetic",
    )


def test_no_verdict_is_written_in_the_ledger() -> None:
    for path in seeds_folder().glob("*.yaml"):
        for line in path.read_text(encoding="utf-8").splitlines():
            code = line.partition("#")[0]
            assert not any(word in code for word in ("HOLDS", "REFUTED", "UNDECIDED", "verdict"))


def test_thirty_of_the_forty_two_are_decided_without_an_accelerator() -> None:
    alone = make_facts([row for row in shipped_rows() if row["device_type"] == "cpu"])
    words = Counter(judge(c, alone).word for c in CLAIMS if c.number is not None)
    assert sum(words[word] for word in DECIDED) >= 30, words


def test_catalogue_claims_are_decided_without_any_row() -> None:
    nothing = make_facts([])
    assert verdict("thresholds", nothing).word == "HOLDS"
    assert verdict("cpu-and-gpu", nothing).word == "UNDECIDED"
    assert "bench run --workload imaging-train" in verdict("cpu-and-gpu", nothing).reason


# What is asked of some of them --------------------------------------------------------------------


def test_h20_has_41_percent_fewer_cores_and_no_single_speed() -> None:
    assert verdict("h20-cores").word == "HOLDS"
    told = verdict("h20-28-percent")
    assert told.word == "REFUTED"
    for workload in ("imaging-train", "llm-train", "llm-decode", "bf16_per_s"):
        assert workload in told.reason


@pytest.mark.parametrize(
    ("name", "condition"),
    [
        ("genomics-7x", "DPX instructions"),
        ("ascend-910-2x", "fp16_per_s"),
        ("ascend-910b-20", "phase = operator"),
        ("days-11-to-4", "chips over before"),
        ("stacking", "chips"),
        ("h800-slower", "ranks = 8"),
        ("bigger-models", "ranks as memory needs"),
        ("cpu-efficiency", "items per nominal joule"),
        ("link-cut", "fp64"),
    ],
)
def test_conditional_claims_name_their_condition(name: str, condition: str) -> None:
    told = verdict(name)
    assert told.word == "HOLDS WHEN"
    assert condition in told.reason


def test_the_vendors_own_word_is_told_from_measurements() -> None:
    told = verdict("genomics-7x")
    assert told.rests_on.startswith("yes: vendor; no: published")
    assert told.claim.untested is not None and "DPX" in told.claim.untested


def test_wrong_arithmetic_of_an_untestable_claim_is_told() -> None:
    told = verdict("share-price")
    assert told.word == "OUT OF SCOPE"
    assert "wrong" in told.reason and "9.23 %" in told.reason
    assert "right" in verdict("market-sum").reason


# Verdicts follow what they rest on ----------------------------------------------------------------


def test_more_compute_units_refute_the_claim_about_cores() -> None:
    assert verdict("h20-cores", with_fact("h20-96g", compute_units=100)).word == "REFUTED"


def test_an_uncut_link_is_no_special_edition() -> None:
    uncut = with_fact("a800-sxm-80g", link_bytes_per_s=300e9)
    assert verdict("special-editions", uncut).word == "HOLDS WHEN"
    assert verdict("thresholds", uncut).word == "HOLDS WHEN"


@pytest.mark.parametrize(
    ("chip", "dtype", "name"),
    [("h20-96g", "fp8", "special-editions"), ("l20", "int8", "special-editions")],
)
def test_a_sparse_rate_for_a_dense_one_is_seen(chip: str, dtype: str, name: str) -> None:
    dense = next(row for row in load_chips() if row.id == chip).peak_per_s[dtype]
    assert verdict(name, with_peak(chip, **{dtype: 2 * dense})).word == "HOLDS WHEN"


def test_a_slower_br104_makes_domestic_gpus_entry_level_somewhere() -> None:
    assert verdict("domestic-gpus").word == "REFUTED"
    assert verdict("domestic-gpus", with_ratio("i21-br104-a100-resnet", 0.3)).word == "HOLDS WHEN"


def test_a_faster_910b_in_training_changes_the_condition() -> None:
    changed = with_ratio("flagperf-910b-a100-bert-bf16", 1.15)
    assert verdict("ascend-910b-20", changed).reason != verdict("ascend-910b-20").reason


def test_a_loader_that_never_makes_a_step_wait_refutes_that_both_are_needed() -> None:
    assert verdict("cpu-and-gpu").word == "HOLDS WHEN"
    idle = make_facts([{**row, "data_wait_frac": 1e-6} for row in shipped_rows()])
    assert verdict("cpu-and-gpu", idle).word == "REFUTED"


def test_slow_inference_rows_change_what_inference_needs() -> None:
    assert verdict("inference-parts").word == "HOLDS"
    slow = with_rows("imaging-infer", step_median_ms=60_000.0)
    assert verdict("inference-parts", slow).word == "HOLDS WHEN"


def test_a_faster_measured_cpu_makes_a_card_useless_for_tables() -> None:
    assert verdict("chronic-disease").word == "HOLDS WHEN"
    fast = make_facts([{**row, "roof_flops_per_s": 8e12} for row in shipped_rows()])
    assert verdict("chronic-disease", fast).word != "HOLDS WHEN"


def test_a_chip_as_fast_as_the_h100_would_hold_a_third_less() -> None:
    slower = with_peak("h20-96g", bf16=989.4e12, fp16=989.4e12)
    values = {c.factors.get("workload"): c.value for c in verdict("h20-28-percent").cases}
    changed = {c.factors.get("workload"): c.value for c in verdict("h20-28-percent", slower).cases}
    before, after = values["imaging-train"], changed["imaging-train"]
    assert before is not None and after is not None and after.mid > 1.5 * before.mid


# Choosing -----------------------------------------------------------------------------------------


def test_claims_are_found_by_id_number_and_article_and_come_by_number() -> None:
    found = find_claims(CLAIMS, ["h20-cores", "1", "F3"])
    assert {claim.id for claim in found} >= {"h20-cores", "h800-slower", "shortage", "trillions"}
    numbers = [claim.number for claim in find_claims(CLAIMS, []) if claim.number]
    assert numbers == sorted(numbers)


def test_factors_of_a_case_are_words_or_numbers() -> None:
    cases: list[Case] = [case for claim in CLAIMS for case in judge(claim, facts()).cases]
    assert len(cases) > 200
    assert all(isinstance(v, str | int | float) for case in cases for v in case.factors.values())
