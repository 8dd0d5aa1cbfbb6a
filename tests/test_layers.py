"""The rooms of the house: who may import whom, read from the source and not from what runs."""

import ast
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted([*ROOT.glob("bench/**/*.py"), *ROOT.glob("workloads/**/*.py")])

MAY_IMPORT: dict[str, set[str]] = {
    "core": set(),
    "workload": {"core"},
    "discovery": {"core", "workload"},
    "hardware": {"core"},
    "results": {"core", "hardware"},
    "analysis": {"core", "hardware", "results"},
    "report": {"core", "hardware", "results", "analysis"},
    "devices": {"core", "hardware"},
    "emulate": {"core", "hardware", "results", "devices"},
    "parallel": {"core", "hardware", "workload", "devices", "emulate"},
}
MAY_IMPORT["measure"] = {"results", "discovery", *MAY_IMPORT["parallel"], "parallel"}
MAY_IMPORT["wrap"] = {*MAY_IMPORT["measure"], "measure", "__init__"}
MAY_IMPORT["serve"] = {*MAY_IMPORT["measure"], "measure"}
MAY_IMPORT["run"] = {*MAY_IMPORT["wrap"], "wrap", "serve"}
MAY_IMPORT["cli"] = {*MAY_IMPORT["run"], *MAY_IMPORT["report"], "run", "report"}
MAY_IMPORT["pytest_plugin"] = MAY_IMPORT["cli"] | {"cli"}
MAY_IMPORT |= {"__main__": {"cli"}, "__init__": set(), "workloads": {"workload", "core"}}

NEVER_TORCH = ("core", "hardware", "results", "analysis", "report", "run", "cli", "discovery")
ASKS_TORCH = ROOT / "bench" / "cli" / "devices.py"
"""The one verb that asks torch itself, in its own process: it ends there."""
HEAVY = {"torch", "monai", "transformers", "numpy", "pandas", "matplotlib", "rich", "yaml", "scipy"}


def module_of(path: Path) -> str:
    """`bench/run/plan.py` is bench.run.plan, `bench/run/__init__.py` bench.run."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room_of(path: Path) -> str:
    """`bench/run/planning/plan.py` is in run, `workloads/llm.py` in workloads."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[0] if parts[0] == "workloads" else parts[1]


def imports(tree: ast.AST, *, only_at_import: bool) -> Iterator[str]:
    """Dotted names that a module imports; `from a import b` gives a.b. Types do not count."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif not (only_at_import and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            yield from imports(node, only_at_import=only_at_import)


def imports_of(path: Path, *, only_at_import: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return set(imports(tree, only_at_import=only_at_import))


def roots_of(path: Path, *, only_at_import: bool = False) -> set[str]:
    return {name.split(".")[0] for name in imports_of(path, only_at_import=only_at_import)}


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_imports_go_downwards() -> None:
    assert {room_of(path) for path in FILES} == MAY_IMPORT.keys(), "the rooms of the house"
    wrong = []
    for path in FILES:
        room = room_of(path)
        for name in imports_of(path) - {"bench", "bench.__version__"}:
            parts = name.split(".")
            if parts[0] == "bench" and parts[1] not in (room, *MAY_IMPORT[room]):
                wrong.append(f"{named(path)} must not import {name}")
    assert wrong == []
    assert imports_of(ROOT / "bench" / "__init__.py") == set(), "importing bench does nothing"


def test_rows_never_import_torch_and_verbs_and_public_workloads_nothing_heavy_at_once() -> None:
    for path in FILES:
        room = room_of(path)
        if room in NEVER_TORCH and path != ASKS_TORCH:
            assert not roots_of(path) & {"torch", "monai", "transformers"}, named(path)
        if room == "cli" or (room == "workloads" and "/_" not in named(path)):
            assert not roots_of(path, only_at_import=True) & HEAVY, named(path)


def test_no_file_imports_itself_by_way_of_others() -> None:
    paths = {module_of(path): path for path in FILES}
    graph = {
        module: {
            name if name in paths else name.rpartition(".")[0]
            for name in imports_of(path, only_at_import=True)
        }
        & paths.keys()
        for module, path in paths.items()
    }
    TopologicalSorter(graph).prepare()  # its error names the circle


def test_no_folder_has_more_than_fifteen_files_beside_its_rooms() -> None:
    folders = Counter(named(path.parent) for path in FILES)
    assert {name: count for name, count in folders.items() if count > 15} == {}


def test_only_the_clock_and_known_places_read_the_time() -> None:
    """Everything that measures a step goes through the clock, or is named here with its reason."""
    may = {
        "bench/measure/timing/clock.py",  # the clock
        "bench/measure/engine/feed.py",  # waiting for the loader, on the host
        "bench/measure/engine/torch_engine.py",  # cold costs
        "bench/measure/trial.py",  # cold costs
    }
    for path in FILES:
        if room_of(path) == "measure" and "perf_counter" in path.read_text():
            assert named(path) in may, named(path)
