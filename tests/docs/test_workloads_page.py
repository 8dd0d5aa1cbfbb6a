"""docs/workloads.md: each workload is described once, with its sizes by formula and its sources."""

import re

import pytest

from scripts.workloads_page import load_yardsticks, shipped, workloads_block

KNOWN = {one.id: one for one in load_yardsticks().workloads}
PAGE = workloads_block()


def test_every_workload_is_described_and_nothing_else_is() -> None:
    assert {one.name for one in shipped()} == KNOWN.keys()
    titles = re.findall(r"^### (\w+)$", PAGE, flags=re.MULTILINE)
    assert titles == [one.name for one in shipped()]


@pytest.mark.parametrize("found", shipped(), ids=lambda one: one.name)
def test_a_part_has_each_phase_size_and_yardstick_with_its_address(found: object) -> None:
    name, cls = found.name, found.cls  # type: ignore[attr-defined]
    part = PAGE.partition(f"### {name}\n")[2].partition("\n##")[0]
    assert all(f"`{name}-{phase.name}` per {phase.item}" in part for phase in cls.phases)
    lines = [line for line in part.splitlines() if line.startswith("| ")][2:]
    assert [line.split()[1] for line in lines] == list(cls.sizes)
    assert all(cell.strip() for line in lines for cell in line.strip("|").split("|")), "blank cell"
    for one in KNOWN[name].yardsticks:
        (line,) = (line for line in part.splitlines() if one.figure in line)
        assert line.count("](https://") == len(one.sources)
