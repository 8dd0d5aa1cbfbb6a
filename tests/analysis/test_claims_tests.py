"""The tests that claims name: what each computes, and how the ledger's mistakes are reported."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.analysis.claims.claim_cases import Bounds, ClaimCase, make_facts
from bench.analysis.claims.evaluators import AnyTest
from bench.analysis.claims.ledger import read_ledger
from bench.core.errors import BenchError
from bench.hardware.loader import decode
from bench.results.schema import NAMES, Row, Value
from tests.analysis.synthetic_rows import trials

ARTICLE = "article: {id: F9, publisher: p, title: t, date: '2024', found: f}\n"


NO_BOUNDS = Bounds()


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


def test_a_grid_is_computed_at_every_point() -> None:
    over = {"price": [1, 2], "extra": [0.0, 0.5]}
    found, _ = cases("arithmetic", over=over, formula="price * (1 + extra)", bounds=Bounds(low=2.0))
    assert [case.value and case.value.mid for case in found] == [1.0, 1.5, 2.0, 3.0]
    assert [case.holds for case in found] == [False, False, True, True]
    assert found[3].factors == {"price": 2.0, "extra": 0.5}
    assert found[3].how.endswith("with price 2, extra 0.5; asked at least 2")


def test_a_sum_is_told_by_the_weakest_figure_in_it() -> None:
    figures = {
        "a": {"chip": "h100-sxm-80g", "field": "bf16_per_s"},
        "b": {"published": "hunyuan-network-gain"},
    }
    ((case,), _) = cases("arithmetic", figures=figures, formula="a * b / a")
    assert case.basis == "vendor" and case.value is not None
    assert case.value.mid == pytest.approx(1.2)


def test_an_unknown_catalogue_figure_is_missing_and_not_zero() -> None:
    figures = {"w": {"chip": "l2", "field": "tdp_w"}}
    assert cases("arithmetic", figures=figures, formula="w") == (
        [],
        ["tdp_w of l2 is not known"],
    )


def test_a_tests_own_bounds_and_unit_stand_in_place_of_the_claims() -> None:
    ((case,), _) = cases(
        "arithmetic", formula="3", high=2, unit="days", bounds=Bounds(low=1.0, unit="ratio")
    )
    assert case.holds is False and case.unit == "days"


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


def test_emulated_rows_over_both_links_give_a_slowdown() -> None:
    ((case,), _) = linked(100.0, 120.0)
    assert case.holds is True and case.counts and case.basis == "emulated"
    assert case.value is not None and case.value.mid == pytest.approx(0.2, abs=0.01)
    assert "[emulated]" in case.how and "run run1" in case.source
    ((of_cpu,), _) = linked(100.0, 120.0, device="cpu")
    assert not of_cpu.counts, "a processor's compute has no say"


def test_one_link_alone_is_missing_the_other() -> None:
    assert linked(100.0) == ([], ["bench run --workload llm-train"])


MEASURED: dict[str, object] = {"workload": "imaging-train", "otherwise": "x"}


def test_energy_of_two_kinds_of_device_is_compared_at_equal_size() -> None:
    rows = trials(energy_per_item_j=10.0)
    rows += trials(energy_per_item_j=2.0, device_type="cuda", device_name="Test GPU")
    rows += trials(energy_per_item_j=1.0, device_type="cuda", device_name="G", size="base")
    found = values(
        "measured-ratio", rows, column="energy_per_item_j", device="accelerator",
        over_device="cpu", **MEASURED,
    )  # fmt: skip
    assert found == pytest.approx([0.2])


def test_a_file_given_twice_is_no_more_certain() -> None:
    (once,), (twice,) = (
        cases("measured-ratio", trials() * number, column="step_median_ms", **MEASURED)[0]
        for number in (1, 2)
    )
    assert twice.value == once.value and "5 trials" in twice.how


def test_two_chips_are_compared_by_their_catalogue_names() -> None:
    rows = trials(noise_frac=0.0, chip="h100-sxm-80g", device_name="A", device_type="cuda")
    rows += trials(
        step_ms=180.0, noise_frac=0.0, chip="a100-sxm-80g", device_name="B", device_type="cuda"
    )
    ((case,), _) = cases(
        "measured-ratio", rows, column="throughput_per_s", device="h100-sxm-80g",
        over_device="a100-sxm-80g", **MEASURED,
    )  # fmt: skip
    assert case.value is not None and case.value.mid == pytest.approx(1.8)
    assert case.basis == "measured" and "on A over" in case.how


@pytest.mark.parametrize(
    "cells", [{"mode": "emulated"}, {"device_count": 8}, {"status": "INVALID"}]
)
def test_only_usable_rows_of_one_real_device_are_measured(cells: dict[str, Value]) -> None:
    rows = trials(noise_frac=0.0)
    assert values("measured-ratio", rows, column="step_median_ms", **MEASURED) == pytest.approx(
        [100.0]
    )
    rows = [{**row, **cells} for row in rows]
    assert cases("measured-ratio", rows, column="step_median_ms", **MEASURED) == ([], ["x"])


def test_the_slowdown_of_an_overlapped_imaging_step_is_small() -> None:
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


def test_a_chip_replaces_itself() -> None:
    found = values(
        "stacking", fast="h100-sxm-80g", slow=["h100-sxm-80g"], mixes=["llm-decode-large"]
    )
    assert found == [1.0]


def ledger(tmp_path: Path, claims: str, *, name: str = "F9") -> Path:
    text = ARTICLE.replace("F9", name) + "claims:\n" + claims
    (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    return tmp_path


GOOD = (
    "- {id: a, where: '1', claim: c, kind: arithmetic, tests: [{by: arithmetic, formula: '1'}]}\n"
)


@pytest.mark.parametrize(
    ("claims", "part"),
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
def test_a_mistake_in_the_ledger_is_one_line(tmp_path: Path, claims: str, part: str) -> None:
    with pytest.raises(BenchError) as caught:
        read_ledger(ledger(tmp_path, claims))
    assert part in str(caught.value) and "\n" not in str(caught.value)


def test_a_number_stands_for_one_claim_over_all_files(tmp_path: Path) -> None:
    numbered = GOOD.replace("id: a", "id: a, number: 7")
    ledger(tmp_path, numbered)
    ledger(tmp_path, numbered.replace("id: a", "id: b"), name="F8")
    with pytest.raises(BenchError, match="'7' stands twice"):
        read_ledger(tmp_path)


def test_an_empty_folder_is_no_ledger(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="holds no ledger file"):
        read_ledger(tmp_path)
