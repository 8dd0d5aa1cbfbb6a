"""One concept, one word: the words that were given up do not come back."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
GIVEN_UP = re.compile(
    r"\b(told|tells|kinship|burns?|burnt|deaf|lived|workarounds?|remed(?:y|ies)|wirings?|Wires?"
    r"|Spread|is no whole number|bucket[-_]mb)\b"
)


def test_words_that_were_given_up_do_not_come_back() -> None:
    paths = [*ROOT.glob("bench/**/*.py"), *ROOT.glob("workloads/**/*.py"), ROOT / "README.md"]
    paths += [*ROOT.glob("docs/*.md"), ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}"
        for path in paths
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if (match := GIVEN_UP.search(line))
    ]
    assert len(paths) > 100
    assert not found, "\n".join(found)


def test_names_of_files_and_classes_are_unique() -> None:
    """Found by name, a file or a class is the one that was meant; `Workload` is each author's."""
    files: dict[str, list[str]] = {}
    classes: dict[str, list[str]] = {}
    for path in [*ROOT.glob("bench/**/*.py"), *ROOT.glob("workloads/**/*.py")]:
        if path.stem not in ("__init__", "__main__"):
            files.setdefault(path.name, []).append(str(path))
        for name in re.findall(r"^class (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE):
            if name != "Workload":
                classes.setdefault(name, []).append(str(path))
    assert {name: places for name, places in files.items() if len(places) > 1} == {}
    assert {name: places for name, places in classes.items() if len(places) > 1} == {}
