"""What the tests that claims name compute, conditions and bounds, and mistakes in the ledger."""

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.analysis.claims.claim_cases import Bounds, ClaimCase, Factors, make_facts, span_of
from bench.analysis.claims.claims_verdict import (
    _cover,
    _rules,
    condition_of,
    span_words,
    value_words,
)
from bench.analysis.claims.evaluators.catalogue_claims import compute, names_in
from bench.analysis.claims.ledger import AnyTest, read_ledger
from bench.core.errors import BenchError, DataError
from bench.hardware.loader import decode
from bench.results.schema import NAMES, Row
from tests.analysis.synthetic_rows import trials

ARTICLE = "article: {id: F9, publisher: p, title: t, date: '2024', found: f}\n"
NO_BOUNDS = Bounds()
MEASURED: dict[str, object] = {"workload": "imaging-train", "otherwise": "x"}


def cases(
    by: str, rows: Sequence[Row] = (), /, *, bounds: Bounds = NO_BOUNDS, **block: object
) -> tuple[list[ClaimCase], list[str]]:
    """Cases of one test of the ledger, and what is missing."""
    test = decode({"by": by, **block}, into=AnyTest, what="test")
    full: list[Row] = [{**dict.fromkeys(NAMES), **row} for row in rows]
    found = test.judged_cases(make_facts(full), bounds=bounds)
    return (
        [one for one in found if isinstance(one, ClaimCase)],
        [one for one in found if isinstance(one, str)],
    )


def values(by: str, rows: Sequence[Row] = (), /, **block: object) -> list[float]:
    return [case.value.mid for case in cases(by, rows, **block)[0] if case.value is not None]


def test_formulas_are_arithmetic_alone_with_a_grid_figures_bounds_and_units_of_their_own() -> None:
    over = {"price": [1, 2], "extra": [0.0, 0.5]}
    found, _ = cases("arithmetic", over=over, formula="price * (1 + extra)", bounds=Bounds(low=2.0))
    assert [case.value and case.value.mid for case in found] == [1.0, 1.5, 2.0, 3.0]
    assert [case.holds for case in found] == [False, False, True, True]
    assert found[3].factors == {"price": 2.0, "extra": 0.5}
    assert found[3].how.endswith("with price 2, extra 0.5; asked at least 2")
    rate = {"chip": "h100-sxm-80g", "field": "bf16_per_s"}
    figures = {"a": rate, "b": {"published": "hunyuan-network-gain"}}
    ((case,), _) = cases("arithmetic", figures=figures, formula="a * b / a")
    assert case.basis == "vendor", "a sum is told by the weakest figure in it"
    assert case.value is not None and case.value.mid == pytest.approx(1.2)
    unknown = cases("arithmetic", figures={"w": {"chip": "l2", "field": "tdp_w"}}, formula="w")
    assert unknown == ([], ["tdp_w of l2 is not known"]), "missing and not zero"
    asked = Bounds(low=1.0, unit="ratio")
    ((case,), _) = cases("arithmetic", formula="3", high=2, unit="days", bounds=asked)
    assert case.holds is False and case.unit == "days", "in place of the claim's"
    assert compute("(a - b) / a * 100", {"a": 179.13, "b": 162.6}) == pytest.approx(9.228, abs=1e-3)
    assert compute("2 * 3 + a", {"a": 5.0}) == 11.0
    assert names_in("(a - b) / c") == {"a", "b", "c"}
    for formula in (
        "__import__('os')", "a.b", "[1]", "a if a else b", "lambda: 1", "(", "a ** b", "min(a, b)",
        "-a", "'x'", "a < b", "a / zero", "unknown",
    ):  # fmt: skip
        with pytest.raises(DataError, match="formula"):
            pytest.fail(f"{formula} gave {compute(formula, {'a': 1.0, 'b': 2.0, 'zero': 0.0})}")


def linked(*steps_ms: float, device: str = "cuda") -> tuple[list[ClaimCase], list[str]]:
    """Emulated slowdown from rows over the full link, and over the cut one."""
    rows = []
    for link, step_ms in zip(("h100-nvlink", "h800-nvlink"), steps_ms, strict=False):
        rows += trials(
            step_ms=step_ms, noise_frac=0.001, link=link, mode="emulated", device_type=device,
            device_name="Test", layout="dp8", parallel="ddp", overlap="yes", device_count=8,
        )  # fmt: skip
    return cases(
        "emulated-slowdown", rows, wide="h100-nvlink", narrow="h800-nvlink",
        otherwise="bench run --workload llm-train", bounds=Bounds(low=0.1, high=0.3),
    )  # fmt: skip


def test_emulated_rows_need_both_links_and_give_a_slowdown() -> None:
    ((case,), _) = linked(100.0, 120.0)
    assert case.holds is True and case.counts and case.basis == "emulated"
    assert case.value is not None and case.value.mid == pytest.approx(0.2, abs=0.01)
    assert "[emulated]" in case.how and "run run1" in case.source
    ((of_cpu,), _) = linked(100.0, 120.0, device="cpu")
    assert not of_cpu.counts, "a processor's compute has no say"
    assert linked(100.0) == ([], ["bench run --workload llm-train"]), "the other link is missing"


def test_what_is_measured_is_the_ratio_of_usable_rows_of_one_real_device() -> None:
    rows = trials(energy_per_item_j=10.0)
    rows += trials(energy_per_item_j=2.0, device_type="cuda", device_name="Test GPU")
    rows += trials(energy_per_item_j=1.0, device_type="cuda", device_name="G", size="base")
    asked = {"column": "energy_per_item_j", "device": "accelerator", "over_device": "cpu"}
    found = values("measured-ratio", rows, **asked, **MEASURED)
    assert found == pytest.approx([0.2]), "at equal size"
    (once,), (twice,) = (
        cases("measured-ratio", trials() * number, column="step_median_ms", **MEASURED)[0]
        for number in (1, 2)
    )
    assert twice.value == once.value and "5 trials" in twice.how, "a file given twice"
    rows = trials(noise_frac=0.0)
    found = values("measured-ratio", rows, column="step_median_ms", **MEASURED)
    assert found == pytest.approx([100.0])
    for cells in ({"mode": "emulated"}, {"device_count": 8}, {"status": "INVALID"}):
        others = [{**row, **cells} for row in rows]
        missing = cases("measured-ratio", others, column="step_median_ms", **MEASURED)
        assert missing == ([], ["x"]), cells
    chips = {"h100-sxm-80g": ("A", 100.0), "a100-sxm-80g": ("B", 180.0)}
    rows = []
    for chip, (name, step_ms) in chips.items():
        cuda: Row = {"chip": chip, "device_name": name, "device_type": "cuda"}
        rows += trials(step_ms=step_ms, noise_frac=0.0, **cuda)
    fast, slow = chips
    asked = {"column": "throughput_per_s", "device": fast, "over_device": slow}
    ((case,), _) = cases("measured-ratio", rows, **asked, **MEASURED)
    assert case.value is not None and case.value.mid == pytest.approx(1.8), "by catalogue names"
    assert case.basis == "measured" and "on A over" in case.how


def test_an_overlapped_imaging_step_slows_little_and_a_chip_replaces_itself() -> None:
    found, _ = cases(
        "link-slowdown", wide="h100-nvlink", narrow="h800-nvlink", chip="h100-sxm-80g",
        mixes=["imaging-train-large"], hidden=[8192], tensor=[2, 8],
    )  # fmt: skip
    spans = {
        (case.factors["net"], case.factors["ranks"], case.factors["overlap"]): case.value
        for case in found
        if case.value is not None
    }
    assert all(span.low <= span.mid <= span.high for span in spans.values())
    imaging = spans["imaging", 8, "yes"].mid
    narrow, wide = spans["transformer", 2, "no"].mid, spans["transformer", 8, "no"].mid
    assert 0.0 <= imaging < 0.05 and imaging < narrow + 0.05 < wide + 0.05
    itself = {"fast": "h100-sxm-80g", "slow": ["h100-sxm-80g"], "mixes": ["llm-decode-large"]}
    assert values("stacking", **itself) == [1.0]


def ledger(tmp_path: Path, claims: str, *, name: str = "F9") -> Path:
    text = ARTICLE.replace("F9", name) + "claims:\n" + claims
    (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    return tmp_path


GOOD = (
    "- {id: a, where: '1', claim: c, kind: arithmetic, tests: [{by: arithmetic, formula: '1'}]}\n"
)
REGION = "by: region, links: [pciex], parameters: [1], steps_per_exchange: [1], step_s: 1"
LEDGER_MISTAKES = (
    ("where: '1', ", "", "where: missing"),
    ("kind: arithmetic", "kind: guess", "not one of measured"),
    ("by: arithmetic", "by: magic", "'magic' is not one of arithmetic"),
    ("claim: c", "claim: c, verdict: HOLDS", "unknown key 'verdict'"),
    ("claim: c", "claim: c, unit: parsec", "'parsec' is not one of ratio"),
    ("claim: c", "claim: c, scope: none", "'none' is not one of every, some"),
    ("formula: '1'", "formula: x", "'x' is given nowhere"),
    (", tests: [{by: arithmetic, formula: '1'}]", "", "tests: missing"),
    ("formula: '1'", "formula: a, over: {b: [1], a: [1, x]}",
     "F9.yaml: a: tests row 1: over: a row 2: expected a number, found 'x'"),
    ("formula: '1'", "formula: a, figures: {a: {chip: l2}}", "figures: a: is"),
    ("formula: '1'", "formula: a, given: {3: 1}", "given: a key is not text"),
    ("by: arithmetic, ", "", "tests row 1: by: missing"),
    ("by: arithmetic", "by: [1]", "by: expected text, found [1]"),
    ("by: arithmetic, formula: '1'", REGION,
     "F9.yaml: a: tests row 1: link 'pciex' is not one of"),
    (GOOD, GOOD + GOOD, "stands twice"),
)  # fmt: skip


def test_a_mistake_in_the_ledger_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="holds no ledger file"):
        read_ledger(tmp_path)
    for old, new, part in LEDGER_MISTAKES:
        assert old in GOOD
        with pytest.raises(BenchError) as caught:
            read_ledger(ledger(tmp_path, GOOD.replace(old, new)))
        assert part in str(caught.value) and "\n" not in str(caught.value), part
    numbered = GOOD.replace("id: a", "id: a, number: 7")
    ledger(tmp_path, numbered)
    ledger(tmp_path, numbered.replace("id: a", "id: b"), name="F8")
    with pytest.raises(BenchError, match="'7' stands twice"):
        read_ledger(tmp_path)


def grid(**factors: tuple[str | float, ...]) -> list[Factors]:
    return [dict(zip(factors, values, strict=True)) for values in product(*factors.values())]


RANKS = (2.0, 4.0, 8.0)
RANKS_AND_OVERLAP = grid(ranks=RANKS, overlap=("yes", "no"))
CONDITIONS: tuple[tuple[list[Factors], Callable[[Factors], bool | None], str], ...] = (
    (RANKS_AND_OVERLAP, lambda c: c["ranks"] >= 4, "ranks >= 4"),
    (RANKS_AND_OVERLAP, lambda c: c["ranks"] == 8.0 and c["overlap"] == "no",
     "ranks = 8 and overlap = no"),
    (grid(net=("a", "b", "c", "d")), lambda c: c["net"] in ("a", "c"), "net = a or c"),
    (grid(n=(1.0, 2.0, 3.0), net=("a", "b")),
     lambda c: c["n"] == 1.0 or (c["n"] == 3.0 and c["net"] == "a"),
     "n = 1 or (n = 3 and net = a)"),
    # A case too close to tell is not covered.
    (grid(ranks=RANKS), lambda c: {2: False, 4: None, 8: True}[c["ranks"]], "ranks = 8"),
    # Kinds of cases have their own conditions.
    ([*grid(work=("a",), n=(1.0, 2.0)), *grid(net=("x",))], lambda c: c.get("n") != 2.0,
     "work a: n = 1; or net x"),
)  # fmt: skip


def test_the_shortest_condition_is_found_and_what_nothing_tells_apart_is_said() -> None:
    for given_cases, is_true, expected in CONDITIONS:
        assert condition_of([(case, is_true(case)) for case in given_cases]) == expected
    found = condition_of([({"net": "x"}, True), ({"net": "x"}, False)])
    assert found == "1 of 2 cases, which nothing that was varied separates"


@given(
    st.dictionaries(st.tuples(st.sampled_from([1.0, 2.0, 3.0]), st.sampled_from("xyz")),
                    st.booleans(), min_size=1)
)  # fmt: skip
def test_no_rule_is_contradicted_and_every_yes_is_covered(
    drawn: dict[tuple[float, str], bool],
) -> None:
    factors: list[Factors] = [{"n": number, "net": net} for number, net in drawn]
    yes = frozenset(index for index, holds in enumerate(drawn.values()) if holds)
    chosen = _cover(_rules(factors, yes=yes), yes=yes)
    for one, holds in zip(factors, drawn.values(), strict=True):
        is_covered = any(all(atom.is_true(one) for atom in rule) for rule in chosen)
        assert is_covered == holds or len(yes) == len(drawn)


def test_an_interval_over_a_bound_is_too_close_to_tell_and_figures_print_theirs() -> None:
    for span, expected in (
        (span_of(0.1), True),
        (span_of(0.3), True),
        (span_of(0.31), False),
        (span_of(0.2, 0.05, 0.25), None),
        (span_of(0.4, 0.31, 0.5), False),
        (span_of(0.2, 0.12, 0.28), True),
    ):
        assert Bounds(low=0.1, high=0.3).holds(span) is expected, span
    assert span_words(span_of(0.0923), "share") == "9.23 %"
    assert span_words(span_of(2.0, 1.0, 3.0), "ratio") == "2 (1 to 3) x"
    assert [value_words(n) for n in (8.0, 1.3e10, 3.1e7, 0.25)] == ["8", "13 bn", "31 M", "0.25"]
