"""README and docs are held to the truth: commands run, the example works, tables are generated."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from bench.cli import app

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands_of(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    console = "\n".join(re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL))
    return [re.split(r"\s+# ", line[2:])[0] for line in console.splitlines() if line[:2] == "$ "]


SETUP = [line for line in commands_of(DOCUMENTS[0]) if line.startswith("python3 -m venv")]
EXAMPLE = re.search(r"<!-- file: mine.py -->\n```python\n(.*?)```", README, flags=re.DOTALL)


def bench(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def test_there_are_exactly_two_set_up_lines_one_to_run_and_one_to_test() -> None:
    assert len(SETUP) == 2
    assert SETUP[0].endswith("bench run --workload imaging-train")
    assert SETUP[1].endswith(".venv/bin/pytest -n 2 --dist loadfile")
    assert all("-c constraints.txt" in line for line in SETUP)
    assert README.index(SETUP[1]) < README.index("## "), "both stand on the first screen"


def test_ci_calls_the_test_line_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    pattern = re.search(r"sed -n '(.*?)' README.md", script)
    assert pattern is not None
    found = subprocess.run(
        ["sed", "-n", pattern[1], "README.md"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.splitlines()[0] == SETUP[1]
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    assert "bash .ci/run" in workflow


def test_the_first_page_is_short_and_names_every_document() -> None:
    assert len(README.encode()) <= 9000
    for path in DOCUMENTS[1:]:
        assert f"(docs/{path.name})" in README


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_every_command_runs(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    run_id = ""
    for command in commands_of(path):
        if command in SETUP:
            continue
        words = shlex.split(command.replace("/tmp/phantoms", str(tmp_path / "phantoms")))
        if words[:2] == ["python", "-m"]:
            done = subprocess.run(
                [sys.executable, *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{command}: {done.stderr}"
            continue
        assert words.pop(0) == "bench", command
        if "--resume" in words:
            assert run_id
            words[words.index("--resume") + 1] = run_id
        elif "--chip-limit" in words:
            words += ["--dry-run"]  # there is nothing to take away from the fake device
        elif words[0] == "run":
            words += ["--device", "fake", "--trials", "1"]
        if words[0] in ("ab", "calibrate"):
            words = [f"{w} --device fake --size tiny" if " " in w else w for w in words]
        if words[0] in ("run", "ab", "calibrate"):
            words += ["--out", str(out)]
        done = bench(*words)
        # The two arms of the example differ on purpose.
        is_slower = "seconds=0.03" in command or "one-thread" in command
        assert done.returncode == int(is_slower), f"{command}: {done.stderr}"
        if words[0] == "run" and "--dry-run" not in words:
            newest = max(out.glob("*.csv"), key=lambda path: path.stat().st_mtime_ns)
            run_id = newest.stem.rpartition("_")[2]


def test_every_verb_is_in_the_readme() -> None:
    documented = set(re.findall(r"^\| .*\| `bench ([\w-]+)` \|", README, flags=re.MULTILINE))
    verbs = {str(command.name) for command in app.registered_commands}
    verbs |= {str(group.name) for group in app.registered_groups}
    assert documented == verbs


def test_the_example_workload_is_short_and_runs_from_outside(tmp_path: Path) -> None:
    assert EXAMPLE is not None
    assert len(EXAMPLE[1].splitlines()) < 50
    (tmp_path / "mine.py").write_text(EXAMPLE[1], encoding="utf-8")
    done = bench(
        "run", "--workload", "./mine.py", "--size", "tiny", "--profile", "smoke", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "mine-train" in done.stdout
    assert "mine-infer" in done.stdout


def test_the_example_counts_its_flops_and_parameters_right(tmp_path: Path) -> None:
    from torch.utils.data import default_collate
    from torch.utils.flop_counter import FlopCounterMode

    from bench import discovery

    assert EXAMPLE is not None
    path = tmp_path / "mine.py"
    path.write_text(EXAMPLE[1], encoding="utf-8")
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
        items = workload.items(phase, batch)
        per_item = workload.flops_per_item(phase)
        assert per_item is not None
        assert counter.get_total_flops() == per_item * items


def test_the_generated_tables_are_what_the_reference_rows_give() -> None:
    from scripts.readme import DOCUMENTS, with_blocks

    for name in DOCUMENTS:
        text = (ROOT / name).read_text(encoding="utf-8")
        assert with_blocks(text) == text, f"{name}: python -m scripts.readme"


def test_paths_named_in_the_documents_exist() -> None:
    for path in [*DOCUMENTS, ROOT / "CONTRIBUTING.md"]:
        name, text = path.name, path.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (path.parent / target).exists(), f"{name} links to {target}"
        for named in re.findall(r"`((?:bench|tests|workloads|scripts|results)/[\w./]+)`", text):
            assert (ROOT / named).exists(), f"{name} names {named}"


def test_every_pin_is_exact_and_covers_every_dependency() -> None:
    import tomllib

    pins = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, equals, version = line.partition("==")
            assert equals and version, line
            pins[name.lower().replace("_", "-")] = version
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    for requirement in [*project["dependencies"], *(one for extra in extras for one in extra)]:
        name = re.match(r"[\w-]+", requirement)
        assert name is not None
        assert name[0].lower().replace("_", "-") in pins, requirement
        assert "<" in requirement, f"{requirement} has no upper bound"


def dockerfile_steps() -> list[str]:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    return re.findall(r"^RUN (.*)$", text, flags=re.MULTILINE)


def test_the_dockerfile_installs_as_the_readme_does() -> None:
    (step,) = dockerfile_steps()
    assert SETUP[0].startswith(step.replace("${VENV_OPTIONS} ", ""))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_dockerfile_s_steps_work_in_a_clean_environment(tmp_path: Path) -> None:
    checkout = tmp_path / "bench"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            target = checkout / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    for step in dockerfile_steps():
        subprocess.run(["sh", "-ec", f"VENV_OPTIONS=; {step}"], cwd=checkout, check=True)
    done = subprocess.run(
        [checkout / ".venv" / "bin" / "bench", "run", "--workload", "sleep", "--device", "fake"],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list((checkout / "results").glob("*.csv"))
