"""Named experiments: sets of flags for `bench run`, as data.

A recipe gives what the user leaves out; any flag given beside it wins. Sizes are the machine's
choice. Recipes that measure nothing name the command that answers instead. No torch in here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from bench.core.errors import UsageError, one_of
from bench.run.layouts import make_layouts
from bench.run.request import FLAGS, RunRequest, is_given


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One experiment."""

    name: str
    number: str
    """Its number in the list of experiments, X1 to X12."""
    summary: str
    request: RunRequest | None = None
    instead: str = ""
    """Command that answers where there is nothing to measure."""
    note: str = ""
    """What has to be done more than once, or what the rows cannot say."""

    @property
    def num_configurations(self) -> int:
        """How many configurations it runs at one size."""
        if self.request is None:
            return 0
        layouts = make_layouts(self.request)
        return len(self.request.workloads) * len(layouts) * max(1, len(self.request.batches))


RECIPES: tuple[Recipe, ...] = (
    Recipe(
        name="roofs",
        number="X1",
        summary="matrix and memory roofs of this device, and how near programs come",
        request=RunRequest(workloads=("llm-prefill", "llm-decode", "imaging-infer")),
        note="bench measure-link measures the roof of a link between real ranks",
    ),
    Recipe(
        name="train",
        number="X2",
        summary="a training step of each domain: time, memory, energy",
        request=RunRequest(workloads=("imaging-train", "llm-train")),
    ),
    Recipe(
        name="infer",
        number="X3",
        summary="inference of each domain: latency percentiles, energy",
        request=RunRequest(workloads=("imaging-infer", "llm-prefill", "llm-decode")),
    ),
    Recipe(
        name="limited-link",
        number="X4",
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
        number="X4",
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
        name="project",
        number="X5",
        summary="measured rows on a chip that is absent",
        instead="bench project CSV --to all",
    ),
    Recipe(
        name="stacking",
        number="X6",
        summary="one device against 2, 4 and 8 of them over a host bus",
        request=RunRequest(
            workloads=("imaging-train",),
            devices=(1, 2, 4, 8),
            parallel=("ddp",),
            links=("l40s-pcie",),
        ),
        note="n slower chips against one faster: run it on the slower, `--recipe train` on the "
        "faster; bench claims stacking projects what is absent",
    ),
    Recipe(
        name="export-rules",
        number="X7",
        summary="export thresholds replayed over the catalogue",
        instead="bench claims thresholds --why",
    ),
    Recipe(
        name="cpu-versus-accelerator",
        number="X8",
        summary="the same work on CPU and accelerator, per second and per joule",
        request=RunRequest(workloads=("imaging-infer", "imaging-train")),
        note="run it twice: with --device cpu, and on an accelerator; energy stays blank where "
        "nothing measures it",
    ),
    Recipe(
        name="tabular",
        number="X8",
        summary="a small tabular net at several numbers of rows in a step",
        request=RunRequest(workloads=("tabular-train",), batches=(100, 1_000, 10_000)),
        note="run it twice: with --device cpu, and on an accelerator",
    ),
    Recipe(
        name="input-bound",
        number="X8",
        summary="share of a training step that waits for the loader",
        request=RunRequest(workloads=("imaging-train", "llm-train")),
        note="--data resident is the same without the loader",
    ),
    Recipe(
        name="mitigations",
        number="X9",
        summary="what each workaround wins back on a slow link",
        request=RunRequest(
            workloads=("llm-train",),
            devices=(8,),
            parallel=("ddp",),
            links=("infinite", "25gbe"),
            mitigate=("none", "bf16", "powersgd-4", "diloco-64"),
        ),
        note="time only: virtual ranks cannot show what a workaround does to learning",
    ),
    Recipe(
        name="cross-region",
        number="X10",
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
        number="X11",
        summary="Smith-Waterman recurrence over pairs of sequences",
        request=RunRequest(workloads=("align-infer",)),
        note="torch does not use DPX instructions: no row shows the vendor's seven times",
    ),
    Recipe(
        name="arithmetic",
        number="X12",
        summary="sums that need no measurement",
        instead="bench claims --json",
    ),
)


def recipe(name: str) -> Recipe:
    """Return one recipe; `UsageError` names them all."""
    for known in RECIPES:
        if name == known.name:
            return known
    raise one_of("recipe", name, [known.name for known in RECIPES])


def with_recipe(name: str, given: RunRequest) -> RunRequest:
    """Fill in what `given` leaves at its default; `UsageError` where nothing is to be run."""
    chosen = recipe(name)
    if chosen.request is None:
        raise UsageError(
            f"recipe {name!r} measures nothing ({chosen.summary}); use: {chosen.instead}"
        )
    values = {name: getattr(chosen.request, name) for name in FLAGS if not is_given(given, name)}
    return replace(given, **values)
