"""Which workloads and phases a `--workload` text names: all, imaging, llm-*, ./mine.py:train."""

from fnmatch import fnmatchcase

from bench import discovery
from bench.core.errors import UsageError, one_of
from bench.workload import Phase

Selected = tuple[discovery.Found, Phase]


def select(texts: tuple[str, ...]) -> list[Selected]:
    """Return the phases named, in order, each once; `UsageError` lists what there is."""
    if not texts:
        raise UsageError("--workload is missing; `bench list` shows what there is")
    selected: list[Selected] = []
    for text in texts:
        for found, phase in _select_one(text):
            if (found, phase) not in selected:
                selected.append((found, phase))
    return selected


def _select_one(text: str) -> list[Selected]:
    if ".py" in text or "/" in text:
        path, _, phase_name = text.partition(":")
        found = discovery.load(path)
        if phase_name:
            return [(found, found.phase(phase_name))]
        return [(found, phase) for phase in found.cls.phases]
    everything = [discovery.load(name) for name in discovery.names()]
    if text == "all":
        return [(f, phase) for f in everything if not f.cls.is_selftest for phase in f.cls.phases]
    matched = [
        (found, phase)
        for found in everything
        for phase in found.cls.phases
        if fnmatchcase(f"{found.name}-{phase.name}", text) or found.name == text
    ]
    if not matched:
        allowed = [
            f"{found.name}-{phase.name}" for found in everything for phase in found.cls.phases
        ]
        raise one_of("workload", text, [*allowed, "all"], hint="(or a file such as ./mine.py)")
    return matched
