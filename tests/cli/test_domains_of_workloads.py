"""Domains choose workloads; a precision or a library that a net needs is said before a trial."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from bench import discovery
from bench.run.planning.selection import ALL
from bench.workload import DOMAINS
from tests.cli.conftest import Ask

ROOT = Path(__file__).resolve().parents[2]
TIMED = (ROOT / "tests" / "workload_files" / "timed.py").read_text()
SHIPPED = {name: discovery.load(name).cls for name in discovery.names()}


def listed(ask: Ask, text: str) -> set[str]:
    entries = ask("list", "-w", text, "--json").document
    return {entry["workload"].rpartition("-")[0] for entry in entries}


def test_a_domain_everything_and_all_choose_shipped_workloads(ask: Ask) -> None:
    for domain in DOMAINS[:-1]:
        names = {name for name, cls in SHIPPED.items() if cls.domain == domain}
        if names:
            assert listed(ask, domain) == names
    assert {"imaging", "align", "tabular"} <= listed(ask, "medical")
    assert listed(ask, "everything") == set(SHIPPED) - {"sleep"}
    assert listed(ask, "all") == set(SHIPPED) & set(ALL) >= {"imaging", "llm"}
    assert {cls.domain for cls in SHIPPED.values()} <= set(DOMAINS) - {"own"}
    trained = ask("list", "-w", "medical:train", "--json").document
    assert {"imaging-train", "tabular-train"} <= {entry["workload"] for entry in trained}
    assert {entry["domain"] for entry in trained} == {"medical"}
    assert "medical" in ask("run", "-w", "medicine", "--device", "fake", code=2).one_line


def test_the_list_is_grouped_by_domain(ask: Ask) -> None:
    out = ask("list").out
    domains = [line for line in out.splitlines() if line in DOMAINS]
    assert domains == [one for one in DOMAINS if one in {cls.domain for cls in SHIPPED.values()}]
    assert out.index("\nmedical\n") < out.index("  imaging-train ") < out.index("\nlanguage\n")


def test_every_extra_that_a_workload_names_is_one_of_ours_and_has_its_library() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    named = {pair for cls in SHIPPED.values() for pair in cls.extras.items()}
    assert ("diffusers", "video") in named
    for module, extra in named:
        assert any(line.startswith(module) for line in extras[extra]), (module, extra)
        assert not any(line.startswith(module) for line in project["dependencies"])


def needing(folder: Path, line: str) -> Path:
    """Write a workload of the fake device with one more line in its class."""
    path = folder / "needing.py"
    path.write_text(TIMED.replace('    summary = "', f'    {line}\n    summary = "'))
    return path


def test_a_dtype_outside_the_workloads_is_refused_in_a_line_and_its_first_is_the_default(
    ask: Ask, tmp_path: Path
) -> None:
    path, out = needing(tmp_path, 'dtypes = ("tf32", "bf16")'), ("--out", tmp_path / "out")
    chosen = ("run", "--device", "fake", "--trials", "1", *out, "-w", path)
    refused = ask(*chosen, "--dtype", "fp16,fp32", code=2).one_line
    assert "--dtype: needing in fp16, fp32: it computes right in tf32, bf16 alone" in refused

    def dtypes(*words: str) -> set[str]:
        return {row["dtype"] for row in ask(*chosen, *words, "--json").document["rows"]}

    assert dtypes() == {"tf32"}
    assert dtypes("--dtype", "fp16,bf16") == {"bf16"}
    together = ask(*chosen, "-w", "sleep", "--dtype", "fp32", "--dry-run")
    assert "left out: needing in fp32" in together.out + together.err


@pytest.mark.parametrize("module", ["no_such_module", "json"])
def test_a_library_that_is_not_here_is_a_reason_to_skip_with_the_line_that_installs_it(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    path = needing(tmp_path, f'extras = {{"{module}": "video", "sys": "speech"}}')
    started: list[Any] = []
    monkeypatch.setattr("bench.run.launching.launch.run_child", lambda *a, **k: started.append(a))
    how = "no_such_module not installed: pip install 'gapbench[video]'"
    (first, *_) = ask("list", "-w", path, "--json").document
    if module == "json":
        assert first["runs_here"].startswith("yes")
        return
    assert first["runs_here"] == f"no: {how}"
    words = ("--device", "cpu", "--profile", "smoke", "--json", "--out", tmp_path / "out")
    rows = ask("run", "-w", path, *words, code=4).document["rows"]
    assert {(row["status"], row["reasons"], row["detail"]) for row in rows} == {
        ("SKIPPED", "missing_library", how)
    }
    assert not started
