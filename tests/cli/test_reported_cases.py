"""Inputs after what people reported of other tools; each of a kind, which other tests hold too."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Ask
from tests.cli.in_a_shell import BENCH, shell
from workloads.imaging import Workload

SharedCase = Callable[[str], Path]
FOLDERS = """
01-nnunet-v2-json/data:
01-nnunet-v2-json/half:
07-qform-sform/data: contradicts itself: a voxel is 1.316 x 1.316 x 10 mm by its
13-rgb-complex/rgb: imagesTr/case_001.nii.gz: its voxels are colours (R, G, B)
13-rgb-complex/rgb-label: labelsTr/case_001.nii.gz: its voxels are colours
13-rgb-complex/complex: its voxels are of type complex64
13-rgb-complex/uint64:
13-rgb-complex/5d: 40 x 36 x 24 x 1 x 1, not a volume
14-json-by-hand/comments: line 2, column 17:
14-json-by-hand/comma: comma at the end of line 6
14-json-by-hand/bom:
14-json-by-hand/utf16:
14-json-by-hand/backslash:
14-json-by-hand/int-labels: Expected `object`, got `array` - at `$.labels`
14-json-by-hand/test-as-training: got `str` - at `$.training[0]`
14-json-by-hand/dup: lists case_000.nii.gz twice
"""


def test_folders_run_or_are_refused_for_the_true_cause(ask: Ask, shared_case: SharedCase) -> None:
    run = "run --workload imaging-infer --size tiny --profile smoke --device fake --dry-run --data"
    for line in FOLDERS.strip().splitlines():
        place, _, words = line.partition(":")
        name, _, part = place.partition("/")
        answer = ask(*run.split(), shared_case(name) / part, code=2 if words else 0)
        assert not words or words.strip() in answer.one_line, line


def test_two_modalities_of_a_scanner_are_kept_apart(shared_case: SharedCase) -> None:
    case = shared_case("05-petct")
    workload = Workload.sizes["tiny"] | {"channels": 2}
    for name, ct, pet in (("ct-first", 0, 1), ("pet-first", 1, 0)):
        dataset = Workload(**workload).dataset(Workload.phases[1], data=case / name, seed=0)
        image = dataset[0]["image"]
        assert (image[ct].min(), image[ct].max()) == (-1, 1)
        assert image[pet].max() > 5 and image[pet].std() == pytest.approx(1, abs=1e-3)


def test_merged_files_of_two_machines_are_not_averaged(shared_case: SharedCase, ask: Ask) -> None:
    folder = shared_case("23-merged-machines")
    a, b, merged, same_run = (folder / f"{name}.csv" for name in ("a", "b", "merged", "same-run"))
    for files in ([merged], [a, b], [same_run]):
        demands = ask("gap", *files, "--json").document["demands"]
        machines = {one["machine"][:13] for one in demands}
        assert (len(demands), machines) == (10, {"host aaaaaaaa", "host bbbbbbbb"})
    alone = ask("gap", a, "--json").document["demands"]
    kept = ask("gap", merged, "--json").document["demands"][:5]
    assert [one["time_per_item_s"] for one in kept] == [one["time_per_item_s"] for one in alone]
    document = ask("compare", a, merged, "--json").document
    assert [row["ratio"] for row in document["rows"]] == [pytest.approx(1.0)] * 5
    out = ask("export", "--to", "pytest-benchmark", a, b).out
    assert len(json.loads(out)["benchmarks"]) == 10


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_a_file_system_without_locks_keeps_its_rows(shared_case: SharedCase) -> None:
    folder = shared_case("41-nfs-locks")
    folder.chmod(0o755)
    shell("cc -DSYS -shared -fPIC -o nolock.so nolock.c -ldl", folder=folder)
    library = str(folder / "nolock.so")
    run = "run -w sleep-infer --size tiny --device fake --trials 3 --out OUT"
    done = shell(f"{BENCH} {run}", folder=folder, LD_PRELOAD=library)
    assert done.returncode == 0 and "3 OK" in done.stdout
    assert done.stderr.count("cannot be locked") == 1


def test_a_notebooks_backend_and_an_rc_change_no_page_and_no_trial(
    shared_case: SharedCase, csv: str
) -> None:
    folder = shared_case("49-matplotlib")
    folder.chmod(0o755)
    settings = {
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "MATPLOTLIBRC": str(folder / "mine.rc"),
    }
    pages = []
    for given in ({}, settings):
        done = shell(f"{BENCH} report {csv} -o a.html", folder=folder, **given)
        assert (done.returncode, done.stderr) == (0, "")
        pages.append(re.findall(r"<svg.*?</svg>", (folder / "a.html").read_text(), re.DOTALL))
    assert pages[0] == pages[1] != []
    run = "run -w imaging-train --size tiny --profile smoke --out OUT"
    done = shell(f"{BENCH} {run}", folder=folder, **settings)
    assert done.returncode == 0 and "1 WARN" in done.stdout, done.stdout + done.stderr
