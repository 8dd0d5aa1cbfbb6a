"""The shipped ledger: every claim loads and is judged, and verdicts follow rows and figures."""

import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import pytest
from msgspec.structs import replace as copy

from bench.analysis.claims.claim_cases import ClaimFacts, make_facts
from bench.analysis.claims.claims_verdict import DECIDED, ClaimVerdict, judge
from bench.analysis.claims.ledger import find_claims, read_ledger, reference_files, shipped_folder
from bench.cli.workload_formulas import work_of
from bench.core.errors import DataError
from bench.core.nouns import Reach
from bench.hardware.chips import chip, load_chips
from bench.hardware.published import load_published
from bench.results.reader import read_all
from bench.results.schema import Row, Value
from bench.run.recipes import RECIPES

ROOT = Path(__file__).resolve().parents[2]
CLAIMS = read_ledger()
BY_ID = {claim.id: claim for claim in CLAIMS}


def shipped_rows() -> list[Row]:
    return read_all(reference_files(), note=lambda text: pytest.fail(text))


@cache
def facts() -> ClaimFacts:
    return make_facts(shipped_rows(), work_of=work_of)


def verdict(name: str, given: ClaimFacts | None = None) -> ClaimVerdict:
    return judge(BY_ID[name], given or facts())


def with_chip(name: str, *, field: str, **values: float | Reach) -> ClaimFacts:
    """Facts with other figures of one chip; `field` is facts or reaches."""
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


def test_every_claim_is_there_once_is_found_and_yields_a_verdict_with_its_evidence() -> None:
    numbers = [claim.number for claim in find_claims(ledger=CLAIMS) if claim.number is not None]
    assert numbers == list(range(1, 45)), "by number"
    assert {claim.article.id for claim in CLAIMS} == {"F0", "F1", "F2", "F3", "F4"}
    assert sum(claim.number is None for claim in CLAIMS) >= 10, "the untestable ones are listed too"
    found = {claim.id for claim in find_claims(["h20-cores", "1", "F3"], ledger=CLAIMS)}
    assert found >= {"h20-cores", "h800-slower", "shortage", "trillions"}
    for claim in CLAIMS:
        found = judge(claim, facts())
        assert found.reason, claim.id
        assert all(case.how and case.source and case.factors for case in found.cases), claim.id
        assert found.counted or not found.is_decided, claim.id
        is_open = found.missing or any(case.holds is None for case in found.cases)
        assert is_open or found.word != "UNDECIDED", claim.id
        assert claim.experiment in {None, *(recipe.name for recipe in RECIPES)}, claim.id
        assert claim.experiment or claim.kind not in ("measured", "emulated"), claim.id


def test_what_is_decided_without_an_accelerator_and_without_any_row() -> None:
    alone = make_facts([row for row in shipped_rows() if row["device_type"] == "cpu"])
    words = Counter(judge(c, alone).word for c in CLAIMS if c.number is not None)
    assert sum(words[word] for word in DECIDED) >= 30, words
    nothing = make_facts([])
    assert verdict("thresholds", nothing).word == "HOLDS", "out of the catalogue"
    assert verdict("cpu-and-gpu", nothing).word == "UNDECIDED"
    assert "bench run --workload imaging-train" in verdict("cpu-and-gpu", nothing).reason


def test_reasons_name_the_condition_or_the_figures_and_follow_them() -> None:
    for name, word, *parts in (
        ("genomics-7x", "HOLDS WHEN", "DPX instructions"),
        ("ascend-910-2x", "HOLDS WHEN", "fp16_per_s"),
        ("ascend-910b-20", "HOLDS WHEN", "phase = operator"),
        ("days-11-to-4", "HOLDS WHEN", "chips over before"),
        ("stacking", "HOLDS WHEN", "chips"),
        ("h800-slower", "HOLDS WHEN", "ranks = 8"),
        ("bigger-models", "HOLDS WHEN", "ranks as memory needs"),
        ("cpu-efficiency", "HOLDS WHEN", "items per nominal joule"),
        ("gap-by-domain", "HOLDS WHEN", "figure FLOPs", "figure published time: net is not Llama"),
        ("gap-on-lesser-parts", "HOLDS WHEN", "net is not ResNet-50"),
        ("link-cut", "HOLDS WHEN", "fp64"),
        ("h20-28-percent", "REFUTED", "imaging-train", "llm-train", "llm-decode", "bf16_per_s"),
        ("share-price", "OUT OF SCOPE", "wrong", "9.23 %"),
        ("market-sum", "OUT OF SCOPE", "right"),
    ):
        found = verdict(name)
        assert found.word == word, name
        assert all(part in found.reason for part in parts), f"{name}: {found.reason}"
    vendors = verdict("genomics-7x")
    assert vendors.rests_on.startswith("yes: vendor; no: published"), "not told from measurements"
    assert vendors.claim.untested is not None and "DPX" in vendors.claim.untested
    changed = with_ratio("flagperf-910b-a100-bert-bf16", 1.15)
    assert verdict("ascend-910b-20", changed).reason != verdict("ascend-910b-20").reason
    faster = with_chip("h20-96g", field="reaches", gemm=chip("h100-sxm-80g").reaches["gemm"])
    now, then = (
        next(c.value for c in found.cases if c.factors.get("workload") == "imaging-train")
        for found in (verdict("h20-28-percent"), verdict("h20-28-percent", faster))
    )
    assert now is not None and then is not None
    assert then.mid > 1.5 * now.mid, "a chip as fast as the H100 would hold a third less"


UNCUT = partial(with_chip, "a800-sxm-80g", field="facts", link_bytes_per_s=300e9)
DENSE = {chip.id: chip.peak_per_s for chip in load_chips()}


@pytest.mark.parametrize(
    ("name", "before", "change", "after"),
    [
        ("h20-cores", "HOLDS", partial(with_chip, "h20-96g", field="facts", compute_units=100),
         "REFUTED"),
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


def test_files_that_a_wheel_brings_are_named_and_found_where_it_was_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The installer's list of files says where: the prefix is two folders above the packages."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["setuptools"]["data-files"] == {
        "share/gapbench/seeds": ["seeds/*.yaml"],
        "share/gapbench/reference": ["results/reference/*.csv"],
    }
    assert len(list((ROOT / "seeds").glob("*.yaml"))) == 5
    packages = tmp_path / "lib" / "packages"
    information = packages / "gapbench-1.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Name: gapbench\nVersion: 1\n", encoding="utf-8")
    listed = "../../share/gapbench/seeds/F0.yaml,,\n"
    (information / "RECORD").write_text(listed, encoding="utf-8")
    monkeypatch.syspath_prepend(str(packages))
    with pytest.raises(DataError, match="install gapbench again"):
        shipped_folder("seeds", checkout="no-such-folder")
    installed = tmp_path / "share" / "gapbench" / "seeds"
    installed.mkdir(parents=True)
    (installed / "F0.yaml").touch()
    assert shipped_folder("seeds", checkout="no-such-folder").resolve() == installed


@pytest.mark.slow
def test_claims_are_judged_from_an_installed_wheel(tmp_path: Path) -> None:
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns(".git", "build", "*.egg-info", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, source, ignore=ignored)
    wheel = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation"]
    subprocess.run([*wheel, "-q", "-w", str(tmp_path)], cwd=source, check=True)
    place = tmp_path / "place"
    (built,) = tmp_path.glob("*.whl")
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "-q", "--target", str(place)]
    subprocess.run([*install, str(built)], check=True)
    done = subprocess.run(
        [sys.executable, "-m", "bench", "claims", "h20-cores", "cpu-and-gpu"],
        cwd=tmp_path, env={"PYTHONPATH": str(place), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "HOLDS WHEN" in done.stdout, "the reference rows were found as well"
