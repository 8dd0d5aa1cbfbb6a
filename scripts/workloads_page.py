"""The generated part of docs/workloads.md: what each workload is, its yardsticks, data and sizes.

Parameters, FLOPs and memory are the classes' own formulas; `yardsticks.yaml` has what no class
knows. `python -m scripts.readme` writes the page.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import discovery
from bench.core.nouns import Dtype
from bench.core.units import format_bytes, format_number, format_si
from bench.discovery import Found
from bench.hardware.loader import Citations, Declared, Text, read_document
from bench.workload import DOMAINS, Workload, memory_bytes_of


class Yardstick(Declared, frozen=True, kw_only=True):
    """What somebody else measured of this net, or of one near to it."""

    figure: Text
    sources: Citations


class Described(Declared, frozen=True, kw_only=True):
    """What no class knows of itself."""

    id: Text
    net: Text
    sources: tuple[Text, ...] = ()
    """Of the net."""
    generated: Text
    left_out: Text | None = None
    yardsticks: tuple[Yardstick, ...] = ()


class Yardsticks(Declared, frozen=True, kw_only=True):
    """Everything in `yardsticks.yaml`."""

    sources: dict[str, Any]
    workloads: tuple[Described, ...]


def load_yardsticks() -> Yardsticks:
    """Return the descriptions of all workloads."""
    return read_document(Path(__file__).with_name("yardsticks.yaml"), into=Yardsticks)


def shipped() -> list[Found]:
    """Every workload but the self-test, by domain."""
    found = [discovery.load(name) for name in discovery.names()]
    real = [one for one in found if one.cls.domain != "selftest"]
    return sorted(real, key=lambda one: (DOMAINS.index(one.cls.domain), one.name))


def workloads_block() -> str:
    """A heading for each domain, and under it a part for each workload."""
    yardsticks = load_yardsticks()
    known = {one.id: one for one in yardsticks.workloads}
    links = dict(_link(entry) for entry in yardsticks.sources.values())
    parts, domain = [], ""
    for one in shipped():
        if one.cls.domain != domain:
            domain = one.cls.domain
            parts.append(f"## {domain.capitalize()}")
        parts.append("\n".join(_part(one, known[one.name], links=links)))
    return "\n\n".join(parts)


def _link(entry: Any) -> tuple[str, str]:
    """Text of a citation, 'title, address', and the same as a link."""
    title, url = entry["title"], entry["url"]
    return f"{title}, {url}", f"[{title}]({url})"


def _part(found: Found, known: Described, *, links: dict[str, str]) -> Iterator[str]:
    cls = found.cls
    yield f"### {found.name}\n\n{cls.summary[:1].upper()}{cls.summary[1:]}.\n"
    yield from _sizes(found)
    yield ""
    about = ", ".join(links[name] for name in known.sources)
    yield f"- Net: {known.net}" + (f" ({about})" if about else "") + "."
    phases = [
        f"`{found.name}-{phase.name}` per {phase.item}"
        + (f" (of {phase.element}s)" if phase.element else "")
        for phase in cls.phases
    ]
    yield f"- Phases: {', '.join(phases)}."
    yield f"- Data: generated, {known.generated}; `--data`: {cls.accepts_data or 'none'}."
    for one in known.yardsticks:
        yield f"- Yardstick: {one.figure} ({', '.join(links[name] for name in one.sources)})."
    if not known.yardsticks:
        yield "- Yardstick: none is published."
    if cls.dtypes:
        yield f"- Precisions: {', '.join(cls.dtypes)}."
    if cls.extras:
        names = ",".join(dict.fromkeys(cls.extras.values()))
        yield f"- Needs: `pip install 'gapbench[{names}]'`."
    if known.left_out:
        yield f"- Left out: {known.left_out}."


def _sizes(found: Found) -> Iterator[str]:
    """One line a size, by formula."""
    cls = found.cls
    phases = [phase for phase in cls.phases if not phase.is_served]
    dtype: Dtype = (cls.dtypes or ("bf16",))[0]
    heads = ["size", "parameters", *(f"{p.name}, FLOP per {p.item}" for p in phases)]
    heads.append(f"memory of {phases[0].name}, {dtype}")
    yield f"| {' | '.join(heads)} |"
    yield f"| --- |{' ---: |' * (len(heads) - 1)}"
    for size in cls.sizes:
        one: Workload = discovery.instance(found, size=size, overrides={})
        cells = [size, format_number(one.num_parameters())]
        for phase in phases:
            flops = one.flops_per_item(phase)
            cells.append("" if flops is None else format_si(flops, "").strip())
        cells.append(format_bytes(memory_bytes_of(one, phases[0], dtype=dtype)))
        yield f"| {' | '.join(cells)} |"
