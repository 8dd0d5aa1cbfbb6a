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
    pairs = [(found, phase) for found in everything for phase in found.cls.phases]
    if text == "all":
        return [(found, phase) for found, phase in pairs if not found.cls.is_selftest]
    named = {f"{found.name}-{phase.name}": (found, phase) for found, phase in pairs}
    matched = [one for name, one in named.items() if fnmatchcase(name, text) or one[0].name == text]
    if not matched:
        raise one_of("workload", text, [*named, "all"], hint="(or a file such as ./mine.py)")
    return matched
