"""README and docs are held to the truth: commands run, the example works, tables are generated."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections import Counter
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from torch.utils.data import default_collate
from torch.utils.flop_counter import FlopCounterMode

from bench import discovery
from bench.cli import app
from bench.measure.timing.limits import PROFILES
from bench.run.planning.request import FLAGS
from scripts import readme

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SOURCES = [*ROOT.glob("bench/**/*.py"), *ROOT.glob("workloads/**/*.py")]
GIVEN_UP = re.compile(
    r"\b(told|tells|kinship|burns?|burnt|deaf|lived|workarounds?|remed(?:y|ies)|wirings?|Wires?"
    r"|Spread|is no whole number|bucket[-_]mb)\b"
)


def commands_of(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    console = "\n".join(re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL))
    return [re.split(r"\s+# ", line[2:])[0] for line in console.splitlines() if line[:2] == "$ "]


SETUP = [line for line in commands_of(DOCUMENTS[0]) if line.startswith("python3 -m venv")]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
INSTALLS = re.findall(r"^RUN (.*)$", DOCKERFILE, flags=re.MULTILINE)


def output_of(*words: str | Path, cwd: Path = ROOT, returncode: int = 0) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        words, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == returncode, f"{words}: {done.stderr}"
    return done.stdout


def test_ci_and_the_dockerfile_set_up_as_the_first_screen_does() -> None:
    assert len(SETUP) == 2
    assert SETUP[0].endswith("bench run --workload imaging-train")
    assert SETUP[1].endswith(".venv/bin/pytest -n 2 --dist loadfile")
    assert all("-c constraints.txt" in line for line in SETUP)
    assert README.index(SETUP[1]) < README.index("## "), "both stand on the first screen"
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    pattern = re.search(r"sed -n '(.*?)' README.md", script)
    assert pattern is not None
    assert output_of("sed", "-n", pattern[1], "README.md").splitlines()[0] == SETUP[1]
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    assert "bash .ci/run" in workflow
    (step,) = INSTALLS
    assert SETUP[0].startswith(step.replace("${VENV_OPTIONS} ", ""))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_every_command_runs(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    run_id = ""
    earlier = DOCUMENTS[: DOCUMENTS.index(path)]
    done = {*SETUP, *(command for document in earlier for command in commands_of(document))}
    for command in commands_of(path):
        if command in done:
            continue
        words = shlex.split(command.replace("/tmp/phantoms", str(tmp_path / "phantoms")))
        if words[:2] == ["python", "-m"]:
            output_of(sys.executable, *words[1:])
            continue
        assert words.pop(0) == "bench", command
        if "--resume" in words:
            assert run_id
            words[words.index("--resume") + 1] = run_id
        elif "--chip-limit" in words:
            words += ["--dry-run"]  # there is nothing to take away from the fake device
        elif "--endpoint" in words:
            words += ["--dry-run"]  # no server is there
        elif words[0] == "run":
            words += ["--device", "fake", "--trials", "1"]
        if words[0] == "wrap":
            place = words.index("--")
            flags = ["--profile", "smoke", "--out", str(out)]
            words[place:] = [*flags, "--", sys.executable, *words[place + 2 :]]
        if words[0] in ("ab", "calibrate"):
            words = [f"{w} --device fake --size tiny" if " " in w else w for w in words]
        if words[0] in ("run", "ab", "calibrate"):
            words += ["--out", str(out)]
        # The two arms of the example differ on purpose.
        is_slower = "seconds=0.03" in command or "one-thread" in command
        output_of(sys.executable, "-m", "bench", *words, returncode=int(is_slower))
        if words[0] == "run" and "--dry-run" not in words:
            newest = max(out.glob("*.csv"), key=lambda path: path.stat().st_mtime_ns)
            run_id = newest.stem.rpartition("_")[2]


def test_the_first_page_is_short_and_names_every_document_and_verb() -> None:
    assert len(README.encode()) <= 9000
    assert all(f"(docs/{path.name})" in README for path in DOCUMENTS[1:])
    documented = set(re.findall(r"^\| .*\| `bench ([\w-]+)` \|", README, flags=re.MULTILINE))
    verbs = {str(command.name) for command in app.registered_commands}
    verbs |= {str(group.name) for group in app.registered_groups}
    assert documented == verbs


def test_the_example_is_short_runs_from_outside_and_counts_right(tmp_path: Path) -> None:
    example = re.search(r"<!-- file: mine.py -->\n```python\n(.*?)```", README, flags=re.DOTALL)
    assert example is not None
    assert len(example[1].splitlines()) < 50
    path = tmp_path / "mine.py"
    path.write_text(example[1], encoding="utf-8")
    words = ["run", "--workload", "./mine.py", "--size", "tiny", "--profile", "smoke"]
    printed = output_of(sys.executable, "-m", "bench", *words, cwd=tmp_path)
    assert "mine-train" in printed and "mine-infer" in printed
    found = discovery.load(str(path))
    workload = discovery.instance(found, size="tiny", overrides={})
    net = workload.build_net()
    assert sum(parameter.numel() for parameter in net.parameters()) == workload.num_parameters()
    for phase in found.cls.phases:
        samples = workload.dataset(phase, data=None, seed=0)
        batch = default_collate([samples[index] for index in range(workload.batch)])
        with FlopCounterMode(display=False) as counter:
            if phase.is_training:
                workload.loss(net, batch).backward()
            else:
                workload.infer(net, batch)  # type: ignore[attr-defined]
        per_item = workload.flops_per_item(phase)
        assert per_item is not None
        assert counter.get_total_flops() == per_item * workload.items(phase, batch)


def test_tables_are_those_of_the_reference_rows_and_named_paths_exist() -> None:
    for name in readme.DOCUMENTS:
        text = (ROOT / name).read_text(encoding="utf-8")
        assert readme.with_blocks(text) == text, f"{name}: python -m scripts.readme"
    for path in [*DOCUMENTS, ROOT / "CONTRIBUTING.md"]:
        name, text = path.name, path.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (path.parent / target).exists(), f"{name} links to {target}"
        for named in re.findall(r"`((?:bench|tests|workloads|scripts|results)/[\w./]+)`", text):
            assert (ROOT / named).exists(), f"{name} names {named}"


def test_numbers_of_trials_are_those_of_the_profiles() -> None:
    default, rigorous = (
        f"{PROFILES[name].min_trials} to {PROFILES[name].max_trials}"
        for name in ("default", "rigorous")
    )
    help_text = FLAGS["profile"].help.replace("-", " to ")
    assert help_text.endswith(f": 1, 1, {default} or {rigorous} trials")
    running = (ROOT / "docs" / "running.md").read_text(encoding="utf-8")
    words = f"`default` ({default}), `rigorous` ({rigorous}, for gates)"
    assert words in " ".join(running.split())


def test_every_pin_is_exact_and_covers_every_dependency() -> None:
    pins = set()
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, equals, version = line.partition("==")
            assert equals and version, line
            pins.add(canonicalize_name(name))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for requirement in chain(project["dependencies"], *project["optional-dependencies"].values()):
        assert canonicalize_name(Requirement(requirement).name) in pins, requirement
        assert "<" in requirement, f"{requirement} has no upper bound"


def test_one_concept_has_one_word_and_one_name_means_one_thing() -> None:
    """Words given up do not come back, and no two files or classes share a name.

    `Workload` is each author's.
    """
    pages = [*DOCUMENTS, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}"
        for path in [*SOURCES, *pages]
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if (match := GIVEN_UP.search(line))
    ]
    assert len(SOURCES) > 100
    assert not found, "\n".join(found)
    names = Counter(path.name for path in SOURCES if path.stem not in ("__init__", "__main__"))
    for path in SOURCES:
        names.update(re.findall(r"^class (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE))
    assert [name for name, count in names.items() if count > 1 and name != "Workload"] == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_dockerfile_s_steps_work_in_a_clean_environment(tmp_path: Path) -> None:
    checkout = tmp_path / "bench"
    listed = output_of("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            target = checkout / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    for step in INSTALLS:
        subprocess.run(["sh", "-ec", f"VENV_OPTIONS=; {step}"], cwd=checkout, check=True)
    command = [checkout / ".venv" / "bin" / "bench", "run", "--workload", "sleep"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([*command, "--device", "fake"], cwd=checkout, env=environment, check=True)
    assert list((checkout / "results").glob("*.csv"))
