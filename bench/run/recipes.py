"""Named experiments: flags for `bench run`, as data.

`bench claims --run` runs those that bear on its claims, `bench list recipes` prints them as command
lines. Sizes are the machine's choice. No torch in here.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from bench.core.errors import one_of


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One experiment."""

    name: str
    summary: str
    flags: str
    """Of `bench run`, each with a value; a comma or the flag once more sweeps."""
    note: str = ""
    """What has to be done more than once, or what the rows cannot say."""

    @property
    def command(self) -> str:
        """The command line that runs it."""
        return f"bench run {self.flags}"

    @property
    def num_configurations(self) -> int:
        """How many configurations it runs at one size."""
        words, num_values = self.flags.split(), Counter[str]()
        for flag, values in zip(words[::2], words[1::2], strict=True):
            num_values[flag] += len(values.split(","))
        return math.prod(num_values.values())


RECIPES: tuple[Recipe, ...] = (
    Recipe(
        name="train",
        summary="a training step of each domain: time, memory, energy, waiting for the loader",
        flags="--workload imaging-train --workload llm-train",
    ),
    Recipe(
        name="infer",
        summary="inference of each domain: latency percentiles, energy, share of the roof",
        flags="--workload imaging-infer --workload llm-prefill --workload llm-decode",
    ),
    Recipe(
        name="limited-link",
        summary="training over the full and the cut NVLink, data parallel",
        flags="--workload llm-train --workload imaging-train --devices 8 --parallel ddp "
        "--link h100-nvlink --link h800-nvlink",
        note="on a CPU compute is slow and both links are fast: rows of an accelerator decide",
    ),
    Recipe(
        name="limited-link-tensor",
        summary="a language model over the full and the cut NVLink, tensor parallel",
        flags="--workload llm-train --devices 2 --parallel tp --link h100-nvlink "
        "--link h800-nvlink",
        note="--devices 8 where the net's heads allow it; rows of an accelerator decide",
    ),
    Recipe(
        name="stacking",
        summary="one device against 2, 4 and 8 of them over a host bus",
        flags="--workload imaging-train --devices 1,2,4,8 --parallel ddp --link l40s-pcie",
        note="n slower chips against one faster: run it on the slower, the recipe train on the "
        "faster; bench claims stacking projects what is absent",
    ),
    Recipe(
        name="cpu-versus-accelerator",
        summary="the same work on CPU and accelerator, per second and per joule",
        flags="--workload imaging-infer --workload imaging-train",
        note="run it twice: with --device cpu, and on an accelerator; energy stays blank where "
        "nothing measures it",
    ),
    Recipe(
        name="tabular",
        summary="a small tabular net at several numbers of rows in a step",
        flags="--workload tabular-train --batch 100,1000,10000",
        note="run it twice: with --device cpu, and on an accelerator",
    ),
    Recipe(
        name="mitigations",
        summary="what each mitigation wins back on a slow link",
        flags="--workload llm-train --devices 8 --parallel ddp --link infinite --link 25gbe "
        "--mitigate none,bf16,powersgd-4,diloco-64",
        note="time only: virtual ranks cannot show what a mitigation does to learning",
    ),
    Recipe(
        name="cross-region",
        summary="two sites that train together over a wide-area link",
        flags="--workload llm-train --devices 2 --parallel ddp --link wan-metro --link wan-hub "
        "--mitigate none,diloco-64",
        note="rates and delays are assumptions of the presets",
    ),
    Recipe(
        name="alignment",
        summary="Smith-Waterman recurrence over pairs of sequences",
        flags="--workload align-infer",
        note="torch does not use DPX instructions: no row shows the vendor's seven times",
    ),
)


def recipe(name: str) -> Recipe:
    """Return one recipe; `UsageError` names them all."""
    for known in RECIPES:
        if name == known.name:
            return known
    raise one_of("recipe", name, [known.name for known in RECIPES])
