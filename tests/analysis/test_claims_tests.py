"""The tests that claims name: what each computes, and how the ledger's mistakes are told."""

from pathlib import Path

import pytest

from bench.analysis.claims.claim import Bounds, ClaimCases
from bench.analysis.claims.claims_facts import make_facts
from bench.analysis.claims.claims_file import read_ledger
from bench.analysis.claims.evaluators import AnyTest
from bench.core.errors import BenchError
from bench.hardware.loader import decode
from bench.results.schema import NAMES, Row
from tests.analysis.synthetic_rows import trials

ARTICLE = "article: {id: F9, publisher: p, title: t, date: '2024', found: f}\n"


def outcome(block: dict[str, object], rows: list[Row] | None = None, **bounds: float) -> ClaimCases:
    test = decode(block, into=AnyTest, what="test").of_claim(bounds=Bounds(**bounds), unit="ratio")
    full: list[Row] = [{**dict.fromkeys(NAMES), **row} for row in rows or []]
    return test(make_facts(full))


def values(told: ClaimCases) -> list[float]:
    return [case.value.mid for case in told.cases if case.value is not None]


def test_a_grid_is_computed_at_every_point() -> None:
    block = {
        "by": "arithmetic",
        "over": {"price": [1, 2], "extra": [0.0, 0.5]},
        "formula": "price * (1 + extra)",
    }
    told = outcome(block, low=2.0)
    assert values(told) == [1.0, 1.5, 2.0, 3.0]
    assert [case.holds for case in told.cases] == [False, False, True, True]
    assert told.cases[3].factors == {"price": 2.0, "extra": 0.5}


def test_a_sum_is_told_by_the_weakest_figure_in_it() -> None:
    block: dict[str, object] = {
        "by": "arithmetic",
        "figures": {
            "a": {"chip": "h100-sxm-80g", "field": "bf16_per_s"},
            "b": {"published": "hunyuan-network-gain"},
        },
        "formula": "a * b / a",
    }
    (case,) = outcome(block).cases
    assert case.basis == "vendor" and case.value is not None
    assert case.value.mid == pytest.approx(1.2)


def test_an_unknown_catalogue_figure_is_missing_and_not_zero() -> None:
    block: dict[str, object] = {
        "by": "arithmetic",
        "figures": {"w": {"chip": "l2", "field": "tdp_w"}},
        "formula": "w",
    }
    told = outcome(block)
    assert told.cases == () and told.missing == ("tdp_w of l2 is not known",)


def link_rows(link: str, *, step_ms: float, device: str = "cuda") -> list[Row]:
    return trials(
        step_ms=step_ms, noise_frac=0.001, link=link, mode="emulated", device_type=device,
        device_name="Test", layout="dp8", parallel="ddp", overlap="yes", device_count=8,
    )  # fmt: skip


EMULATED: dict[str, object] = {
    "by": "emulated-slowdown",
    "wide": "h100-nvlink",
    "narrow": "h800-nvlink",
    "otherwise": "bench run --workload llm-train",
}


def test_emulated_rows_over_both_links_give_a_slowdown() -> None:
    rows = link_rows("h100-nvlink", step_ms=100.0) + link_rows("h800-nvlink", step_ms=120.0)
    (case,) = outcome(dict(EMULATED), rows, low=0.1, high=0.3).cases
    assert case.holds is True and case.counts and case.basis == "emulated"
    assert case.value is not None and case.value.mid == pytest.approx(0.2, abs=0.01)
    assert "[emulated]" in case.how and "run run1" in case.source


def test_emulated_rows_of_a_processor_have_no_say() -> None:
    rows = link_rows("h100-nvlink", step_ms=100.0, device="cpu")
    rows += link_rows("h800-nvlink", step_ms=120.0, device="cpu")
    (case,) = outcome(dict(EMULATED), rows).cases
    assert not case.counts


def test_one_link_alone_is_missing_the_other() -> None:
    told = outcome(dict(EMULATED), link_rows("h100-nvlink", step_ms=100.0))
    assert told.cases == () and told.missing == ("bench run --workload llm-train",)


def test_energy_of_two_kinds_of_device_is_compared_at_equal_size() -> None:
    rows = trials(energy_per_item_j=10.0)
    rows += trials(energy_per_item_j=2.0, device_type="cuda", device_name="Test GPU")
    rows += trials(energy_per_item_j=1.0, device_type="cuda", device_name="G", size="base")
    block: dict[str, object] = {
        "by": "measured-ratio",
        "column": "energy_per_item_j",
        "workload": "imaging-train",
        "device": "accelerator",
        "over_device": "cpu",
        "otherwise": "x",
    }
    assert values(outcome(block, rows)) == pytest.approx([0.2])


def test_a_file_given_twice_is_no_more_certain() -> None:
    block: dict[str, object] = {"by": "measured-ratio", "column": "step_median_ms",
                                "workload": "imaging-train", "otherwise": "x"}  # fmt: skip
    once, twice = (outcome(block, trials() * number).cases[0] for number in (1, 2))
    assert twice.value == once.value and "5 trials" in twice.how


def test_two_chips_are_compared_by_their_catalogue_names() -> None:
    rows = trials(noise_frac=0.0, chip="h100-sxm-80g", device_name="A", device_type="cuda")
    rows += trials(
        step_ms=180.0, noise_frac=0.0, chip="a100-sxm-80g", device_name="B", device_type="cuda"
    )
    block: dict[str, object] = {
        "by": "measured-ratio",
        "column": "throughput_per_s",
        "workload": "imaging-train",
        "device": "h100-sxm-80g",
        "over_device": "a100-sxm-80g",
        "otherwise": "x",
    }
    (case,) = outcome(block, rows).cases
    assert case.value is not None and case.value.mid == pytest.approx(1.8)
    assert case.basis == "measured" and "on A over" in case.how


@pytest.mark.parametrize("cells", [{"mode": "emulated"}, {"device_count": 8}])
def test_only_rows_of_one_real_device_are_measured(cells: dict[str, str | int]) -> None:
    block: dict[str, object] = {
        "by": "measured-ratio",
        "column": "step_median_ms",
        "workload": "imaging-train",
        "otherwise": "bench run -w imaging-train",
    }
    assert values(outcome(dict(block), trials(noise_frac=0.0))) == pytest.approx([100.0])
    assert outcome(dict(block), trials(**cells)).cases == ()  # type: ignore[arg-type]


def test_failed_rows_are_not_used() -> None:
    block: dict[str, object] = {
        "by": "measured-ratio",
        "column": "step_median_ms",
        "workload": "imaging-train",
        "otherwise": "x",
    }
    assert outcome(block, trials(status="INVALID")).missing == ("x",)


def test_the_slowdown_of_an_overlapped_imaging_step_is_small() -> None:
    block: dict[str, object] = {
        "by": "link-slowdown",
        "wide": "h100-nvlink",
        "narrow": "h800-nvlink",
        "chip": "h100-sxm-80g",
        "mixes": ["imaging-train-large"],
        "hidden": [8192],
        "tensor": [2, 8],
    }
    told = {
        str(case.factors["net"]) + str(case.factors["ranks"]) + str(case.factors["overlap"]): case
        for case in outcome(block).cases
    }
    imaging, narrow, wide = (
        told[k].value for k in ("imaging8yes", "transformer2no", "transformer8no")
    )
    assert imaging is not None and narrow is not None and wide is not None
    assert 0.0 <= imaging.mid < 0.05 < narrow.mid + 0.05 < wide.mid + 0.05
    assert all(
        case.value.low <= case.value.mid <= case.value.high for case in told.values() if case.value
    )


def test_twice_as_many_half_as_fast_chips_are_counted_with_their_watts() -> None:
    block: dict[str, object] = {
        "by": "stacking",
        "fast": "h100-sxm-80g",
        "slow": ["h100-sxm-80g"],
        "mixes": ["llm-decode-large"],
    }
    (case,) = outcome(block).cases
    assert case.value is not None and case.value.mid == 1.0, "a chip replaces itself"


def ledger(tmp_path: Path, claims: str, *, name: str = "F9") -> Path:
    (tmp_path / f"{name}.yaml").write_text(ARTICLE + "claims:\n" + claims, encoding="utf-8")
    return tmp_path


GOOD = (
    "- {id: a, where: '1', claim: c, kind: arithmetic, tests: [{by: arithmetic, formula: '1'}]}\n"
)


@pytest.mark.parametrize(
    ("claims", "told"),
    [
        (GOOD.replace("where: '1', ", ""), "where: missing"),
        (GOOD.replace("kind: arithmetic", "kind: guess"), "not one of measured"),
        (GOOD.replace("by: arithmetic", "by: magic"), "'magic' is not one of arithmetic"),
        (GOOD.replace("claim: c", "claim: c, verdict: HOLDS"), "unknown key 'verdict'"),
        (GOOD.replace("claim: c", "claim: c, unit: parsec"), "'parsec' is not one of ratio"),
        (
            GOOD.replace("claim: c", "claim: c, scope: none"),
            "'none' is not one of every, some",
        ),
        (GOOD.replace("formula: '1'", "formula: x"), "'x' is given nowhere"),
        (GOOD.replace(", tests: [{by: arithmetic, formula: '1'}]", ""), "tests: missing"),
        (
            GOOD.replace("formula: '1'", "formula: a, over: {b: [1], a: [1, x]}"),
            "F9.yaml: a: tests row 1: over: a row 2: expected a number, found 'x'",
        ),
        (GOOD.replace("formula: '1'", "formula: a, figures: {a: {chip: l2}}"), "figures: a: is"),
        (GOOD.replace("formula: '1'", "formula: a, given: {3: 1}"), "given: a key is not text"),
        (GOOD.replace("by: arithmetic, ", ""), "tests row 1: by: missing"),
        (GOOD.replace("by: arithmetic", "by: [1]"), "by: expected text, found [1]"),
        (
            GOOD.replace(
                "by: arithmetic, formula: '1'",
                "by: region, links: [pciex], parameters: [1], steps_per_exchange: [1], step_s: 1",
            ),
            "F9.yaml: a: tests row 1: link 'pciex' is not one of",
        ),
        (GOOD + GOOD, "stands twice"),
    ],
)
def test_a_mistake_in_the_ledger_is_one_line(tmp_path: Path, claims: str, told: str) -> None:
    with pytest.raises(BenchError) as caught:
        read_ledger(ledger(tmp_path, claims))
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_a_number_stands_for_one_claim_over_all_files(tmp_path: Path) -> None:
    numbered = GOOD.replace("id: a", "id: a, number: 7")
    ledger(tmp_path, numbered)
    text = ARTICLE.replace("F9", "F8") + "claims:\n" + numbered.replace("id: a", "id: b")
    (tmp_path / "F8.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(BenchError, match="'7' stands twice"):
        read_ledger(tmp_path)


def test_an_empty_folder_is_no_ledger(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="holds no ledger file"):
        read_ledger(tmp_path)
