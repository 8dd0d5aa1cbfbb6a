"""Named experiments: sets of flags for `bench run`, as data.

`bench claims --run` runs those that bear on its claims, `bench list recipes` prints them as command
lines. Sizes are the machine's choice. No torch in here.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from bench.core.errors import one_of
from bench.run.planning.layout_flags import make_layouts
from bench.run.planning.request import RunRequest, command_words


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One experiment."""

    name: str
    summary: str
    request: RunRequest
    note: str = ""
    """What has to be done more than once, or what the rows cannot say."""

    @property
    def command(self) -> str:
        """The command line that runs it."""
        return f"bench run {shlex.join(command_words(self.request))}"

    @property
    def num_configurations(self) -> int:
        """How many configurations it runs at one size."""
        layouts = make_layouts(self.request)
        return len(self.request.workloads) * len(layouts) * max(1, len(self.request.batches))


RECIPES: tuple[Recipe, ...] = (
    Recipe(
        name="train",
        summary="a training step of each domain: time, memory, energy, waiting for the loader",
        request=RunRequest(workloads=("imaging-train", "llm-train")),
    ),
    Recipe(
        name="infer",
        summary="inference of each domain: latency percentiles, energy, share of the roof",
        request=RunRequest(workloads=("imaging-infer", "llm-prefill", "llm-decode")),
    ),
    Recipe(
        name="limited-link",
        summary="training over the full and the cut NVLink, data parallel",
        request=RunRequest(
            workloads=("llm-train", "imaging-train"),
            devices=(8,),
            parallel=("ddp",),
            links=("h100-nvlink", "h800-nvlink"),
        ),
        note="on a CPU compute is slow and both links are fast: rows of an accelerator decide",
    ),
    Recipe(
        name="limited-link-tensor",
        summary="a language model over the full and the cut NVLink, tensor parallel",
        request=RunRequest(
            workloads=("llm-train",),
            devices=(2,),
            parallel=("tp",),
            links=("h100-nvlink", "h800-nvlink"),
        ),
        note="--devices 8 where the net's heads allow it; rows of an accelerator decide",
    ),
    Recipe(
        name="stacking",
        summary="one device against 2, 4 and 8 of them over a host bus",
        request=RunRequest(
            workloads=("imaging-train",),
            devices=(1, 2, 4, 8),
            parallel=("ddp",),
            links=("l40s-pcie",),
        ),
        note="n slower chips against one faster: run it on the slower, the recipe train on the "
        "faster; bench claims stacking projects what is absent",
    ),
    Recipe(
        name="cpu-versus-accelerator",
        summary="the same work on CPU and accelerator, per second and per joule",
        request=RunRequest(workloads=("imaging-infer", "imaging-train")),
        note="run it twice: with --device cpu, and on an accelerator; energy stays blank where "
        "nothing measures it",
    ),
    Recipe(
        name="tabular",
        summary="a small tabular net at several numbers of rows in a step",
        request=RunRequest(workloads=("tabular-train",), batches=(100, 1_000, 10_000)),
        note="run it twice: with --device cpu, and on an accelerator",
    ),
    Recipe(
        name="mitigations",
        summary="what each mitigation wins back on a slow link",
        request=RunRequest(
            workloads=("llm-train",),
            devices=(8,),
            parallel=("ddp",),
            links=("infinite", "25gbe"),
            mitigate=("none", "bf16", "powersgd-4", "diloco-64"),
        ),
        note="time only: virtual ranks cannot show what a mitigation does to learning",
    ),
    Recipe(
        name="cross-region",
        summary="two sites that train together over a wide-area link",
        request=RunRequest(
            workloads=("llm-train",),
            devices=(2,),
            parallel=("ddp",),
            links=("wan-metro", "wan-hub"),
            mitigate=("none", "diloco-64"),
        ),
        note="rates and delays are assumptions of the presets",
    ),
    Recipe(
        name="alignment",
        summary="Smith-Waterman recurrence over pairs of sequences",
        request=RunRequest(workloads=("align-infer",)),
        note="torch does not use DPX instructions: no row shows the vendor's seven times",
    ),
)


def recipe(name: str) -> Recipe:
    """Return one recipe; `UsageError` names them all."""
    for known in RECIPES:
        if name == known.name:
            return known
    raise one_of("recipe", name, [known.name for known in RECIPES])
