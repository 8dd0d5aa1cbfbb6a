"""Published training against inference: the sums by hand, and the bracket beside our own ratio."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace as copy

from bench.analysis.claims.claim_cases import Bounds, PhaseWork, make_facts
from bench.analysis.claims.evaluators.gap_claims import FormulaGap, MeasuredGap, WideningGap
from bench.analysis.claims.ledger import AnyTest
from bench.analysis.gap.gap_documents import gap_document
from bench.analysis.gap.gap_result import Gap, measure_gap
from bench.analysis.gap.published_bracket import PublishedBracket, bracket
from bench.cli import main
from bench.cli.workload_formulas import work_of
from bench.core.errors import DataError
from bench.core.log_estimate import LogEstimate, exact
from bench.hardware.chips import load_chips
from bench.hardware.loader import decode
from bench.hardware.published import PublishedGap, load_published
from bench.report.plots.plots_gap import overview_plot
from bench.report.tables.gap_tables import gap_grid
from bench.results.schema import NAMES, Row, Value
from tests.analysis.synthetic_rows import trials, write_csv

CHIPS = {chip.id: chip for chip in load_chips()}
BY_HAND = {
    # 30.43 volumes/s of 32,944,795 voxels over 308.5 patches/s of 128^3.
    ("3D U-Net", "a100-sxm-80g", "Dell XE9680, v3.0"): 1.55,
    ("3D U-Net", "h100-sxm-80g", "Dell XE9680, v3.0"): 1.50,
    # The log counts one device: 8 x 126.3 and 8 x 276.3.
    ("RetinaNet", "a100-sxm-80g", "Dell XE9680, v3.0"): 5932 / (8 * 126.3),
    ("RetinaNet", "h100-sxm-80g", "Dell XE9680, v3.0"): 12341 / (8 * 276.3),
    ("BERT-large", "a100-sxm-80g", "Dell XE9680, v3.0"): 6.18,
    ("BERT-large", "h100-sxm-80g", "Dell XE9680, v3.0"): 8.33,
    ("ResNet-50", "a100-sxm-80g", "Dell XE9680, v3.0"): 11.62,
    ("ResNet-50", "h100-sxm-80g", "Dell XE9680, v3.0"): 12.61,
    ("RNN-T", "a100-sxm-80g", "Dell XE9680, v3.0"): 13.95,
    ("RNN-T", "h100-sxm-80g", "Dell XE9680, v3.0"): 12.75,
    ("RetinaNet", "h200-sxm", "Dell XE9680L, v5.1"): 5.88,
    ("R-GAT", "b200-sxm", "NVIDIA, v5.1"): 2.02,
    ("R-GAT", "b200-sxm", "Lenovo SR780a V3, v5.1"): 1.98,
    # 184,320 x 8,192 tokens in 5,367 s against 143,309 tokens/s: a generated one costs 1.96.
    ("Llama 3.1 8B", "b200-sxm", "Dell, v5.1"): 1 / 1.963,
    ("3D U-Net", "h200-sxm", "v4.0 and v4.1"): 1.41,
    ("3D U-Net", "h100-sxm-80g", "v4.0 and v4.1"): 1.41,
    ("3D U-Net", "h100-pcie-80g", "v4.0 and v4.1"): 1.63,
    ("3D U-Net", "l40s", "v4.0 and v4.1"): 2.08,
}


def test_every_published_gap_comes_to_what_its_rates_give_by_hand() -> None:
    found = {(gap.net, gap.chip, gap.round): gap for gap in load_published().gaps}
    assert found.keys() == BY_HAND.keys()
    for name, ratio in BY_HAND.items():
        assert found[name].time == pytest.approx(ratio, rel=4e-3), name
        assert found[name].chip in CHIPS
        assert all("https://" in source for source in found[name].sources)


def gap_of(**cells: Any) -> PublishedGap:
    known: dict[str, Any] = {
        "id": "g", "net": "n", "chip": "a100-sxm-80g", "per": "image", "round": "r",
        "train": {"items_per_s": 10.0, "dtype": "fp16"},
        "infer": {"items_per_s": 60.0, "dtype": "int8"}, "sources": ["s"],
    }  # fmt: skip
    return decode(known | cells, into=PublishedGap, what="gap")


def test_narrower_numbers_bound_the_ratio_in_one_precision_by_the_ratio_of_the_peaks() -> None:
    # An A100 has 312 T in fp16 and 624 T in int8.
    assert gap_of().in_one_precision(CHIPS) == pytest.approx((3.0, 6.0))
    alike = {"items_per_s": 60.0, "dtype": "fp16"}
    assert gap_of(infer=alike).in_one_precision(CHIPS) == pytest.approx((6.0, 6.0))
    assert gap_of(chip="nobody's").in_one_precision(CHIPS) is None
    odd = {"items_per_s": 60.0, "dtype": "fp4"}
    assert gap_of(infer=odd).in_one_precision(CHIPS) is None, "no peak of it is known"
    bare = {"dtype": "fp16"}
    assert gap_of(train=bare, infer=bare, ratio=2.0).time == 2.0
    for cells in ({"ratio": 2.0}, {"train": bare}):
        with pytest.raises(DataError, match="needs the rates of both phases, or their ratio"):
            gap_of(**cells)


INFER: dict[str, Value] = {"workload": "imaging-infer", "items_unit": "volume", "config_hash": "i"}


def pair(*, train_ms: float, **cells: Value) -> Gap:
    """Training and inference of equally many voxels, the latter in 100 ms, without noise."""
    rows = trials(noise_frac=0.0, step_ms=train_ms, **cells)
    (gap,) = measure_gap([*rows, *trials(noise_frac=0.0, **INFER | cells)]).gaps
    return gap


def test_the_bracket_is_printed_beside_the_ratio_of_the_same_net_and_nowhere_else() -> None:
    places = {60.0: "below", 140.0: "inside", 230.0: "above"}
    for train_ms, place in places.items():
        gap = pair(train_ms=train_ms)
        grid = gap_grid([gap])
        assert grid.rows[0][grid.heads.index("published")].text == "x0.705 to x2.08"  # type: ignore[union-attr]
        said, where = grid.notes[:2]
        assert "x1.41 to x2.08 per voxel, trained in fp16, inferred in int8" in said
        assert "l40s" in said and "no target" in said
        assert f" is {place} it; the published net is nearest to size large" in where
    assert "nearest" not in gap_grid([pair(train_ms=140.0, size="large")]).notes[1]
    like = bracket("imaging-infer", unit="voxel", published=load_published(), chips=CHIPS)
    assert isinstance(like, PublishedBracket)
    wide = LogEstimate(log=0.7, parts=((0.01, 4.0),), num=5)
    assert like.place_of(wide) == "across an end of" and like.place_of(exact(1.0)) == "inside"
    document = gap_document(measure_gap(rows_of(140.0)), commands=[])
    (found,) = document["gaps"]  # type: ignore[misc]
    assert found["published"]["in_one_precision"] == pytest.approx((0.705, 2.08), rel=1e-3)
    others = pair(train_ms=140.0, elements_unit=None), pair(train_ms=140.0, mode="emulated")
    assert [gap.published for gap in others] == [None, None], "not per voxel; not measured"
    assert bracket("speech-transcribe", unit="utterance", published=load_published(),
                   chips=CHIPS) is None, "a Whisper is no RNN-T"  # fmt: skip
    nothing = copy(load_published(), gaps=())
    assert bracket("imaging-infer", unit="voxel", published=nothing, chips=CHIPS) is None


def rows_of(train_ms: float) -> list[Row]:
    return trials(step_ms=train_ms) + trials(seed=1, **INFER)


def test_the_page_draws_all_pairs_in_one_plot_from_most_to_least(tmp_path: Path) -> None:
    rows = rows_of(140.0)
    for net, unit, train_ms in (("video", "clip", 8.0), ("speech", "utterance", 420.0)):
        cells: dict[str, Value] = {"items_unit": unit, "elements_unit": None}
        for phase, step_ms in (("train", train_ms), ("infer", 100.0)):
            hash = f"{net}{phase}"
            name = f"{net}-{phase}"
            rows += trials(step_ms=step_ms, workload=name, config_hash=hash, **cells)
    found = overview_plot(measure_gap(rows).gaps)
    assert found is not None
    (plot,) = found.panels
    labels = ("speech-infer, per utterance", "imaging-infer, per voxel", "video-infer, per clip")
    places = [plot.description.index(label) for label in labels]
    assert places == sorted(places)
    assert all(label in plot.svg for label in labels)
    assert "Test CPU" in plot.title and found.note.startswith("Grey: where published")
    assert overview_plot(measure_gap(rows_of(140.0)).gaps) is None, "one pair has its own panel"
    page = tmp_path / "page.html"
    assert main(["report", str(write_csv(tmp_path / "rows.csv", rows)), "-o", str(page)]) == 0
    assert "All pairs on Test CPU" in page.read_text(encoding="utf-8")


def work(
    phase: str, *, flops: float, unit: str = "clip", elements: float | None = None
) -> PhaseWork:
    return PhaseWork(
        net="video", domain="video", phase=phase, is_training=phase == "train", items_unit=unit,
        elements_unit="token", elements_per_item=elements, flops_per_item=flops,
    )  # fmt: skip


def judged(test: AnyTest, *works: PhaseWork, rows: Sequence[Row] = (), **known: Any) -> list[Any]:
    """Cases of a test, or what is missing, from these formulas, rows and published gaps."""
    full: list[Row] = [{**dict.fromkeys(NAMES), **row} for row in rows]
    facts = make_facts(full, work_of=lambda *_: works, **known)
    return test.judged_cases(facts, bounds=Bounds(low=1.0))


def test_formulas_say_which_phase_asks_more_item_for_item_or_element_for_element() -> None:
    test = FormulaGap(size="base")
    # 3 forwards to train on a clip, 2 x 20 to make one.
    (case,) = judged(test, work("train", flops=3.0), work("infer", flops=40.0))
    assert case.value.mid == pytest.approx(0.075) and case.holds is False
    patch = work("train", flops=6.0, unit="patch", elements=2.0)
    (case,) = judged(test, patch, work("infer", flops=9.0, unit="volume", elements=9.0))
    assert case.value.mid == pytest.approx(3.0) and case.holds is True
    assert "per token" in case.how and case.factors["workload"] == "video-infer"
    (case,) = judged(test, work("train", flops=1.02), work("infer", flops=1.0))
    assert case.holds is None, "nearer than what a formula leaves out"
    missing = ["FLOPs of workloads at base by formula"]
    for other in (work("infer", flops=1.0, unit="volume"), work("other", flops=0.0)):
        assert judged(test, work("train", flops=1.0), other) == missing, "nothing in common"
    with pytest.raises(ValueError, match="settings: needs the workload"):
        FormulaGap(size="base", settings={"steps": "1"})


def test_shipped_formulas_reach_the_ledger_with_their_settings() -> None:
    assert {one.net for one in work_of("base", None, {})} >= {"imaging", "llm"}
    assert all(one.domain for one in work_of("base", None, {}))
    train, infer = work_of("tiny", "imaging", {"classes": "5"})
    assert (train.items_unit, infer.items_unit, infer.elements_unit) == ("patch", "volume", "voxel")
    assert train.elements_per_item == 24 * 24 * 16
    assert (train.flops_per_item or 0) > (work_of("tiny", "imaging", {})[0].flops_per_item or 0)


def test_measured_time_counts_on_real_devices_alone() -> None:
    test = MeasuredGap(otherwise="bench run")
    (case,) = judged(test, rows=rows_of(140.0))
    assert case.holds is True and case.basis == "measured" and "per voxel" in case.how
    assert judged(test, rows=[{**row, "device_type": "fake"} for row in rows_of(140.0)]) == [
        "bench run"
    ]


def test_the_gap_widens_where_a_lesser_part_has_the_larger_ratio_in_the_same_precision() -> None:
    greater = gap_of(chip="h100-sxm-80g", id="h")
    lesser = gap_of(id="a", infer={"items_per_s": 90.0, "dtype": "int8"})
    later = copy(lesser, id="b", round="another")

    def cases(*gaps: PublishedGap) -> list[Any]:
        return judged(WideningGap(), published=copy(load_published(), gaps=gaps))

    (case,) = cases(greater, lesser, later)
    assert case.value.mid == pytest.approx(1.5) and case.holds is True and case.counts
    assert case.factors["parts"] == "a100-sxm-80g over h100-sxm-80g"
    other = copy(lesser, infer=copy(lesser.infer, dtype="fp16"))
    (case,) = cases(greater, other)
    assert not case.counts, "one of them inferred in other numbers"
    assert cases(greater) == ["published training and inference of one net on two parts"]
