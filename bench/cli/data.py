"""`bench data`: make input that the real data path can read, offline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from bench.cli.options import AsJson, Verb
from bench.cli.output import print_json, print_note
from bench.core.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="Write input data for --data.")


@app.callback()
def _data() -> None:
    """Write input data for --data."""


@app.command(cls=Verb)
def phantom(
    out: Annotated[Path, Argument(metavar="OUT", help="A new or empty folder.")],
    cases: Annotated[int, Option(help="How many labelled volumes.")] = 8,
    seed: Annotated[int, Option(help="Another seed, other patients.")] = 0,
    shape: Annotated[str, Option(help="Voxels of a volume.")] = "64x64x40",
    as_json: AsJson = False,
) -> None:
    """Write CT-like phantoms as a Medical Segmentation Decathlon folder (real NIfTI files)."""
    from workloads._imaging.phantom import write

    try:
        voxels = tuple(int(part) for part in shape.split("x"))
    except ValueError:
        raise UsageError(f"--shape needs three sizes such as 64x64x40, not {shape!r}") from None
    if seed < 0:
        raise UsageError(f"--seed must not be negative, not {seed}")
    write(out, cases=cases, seed=seed, shape=voxels)
    if as_json:
        print_json({"folder": str(out), "cases": cases, "seed": seed, "shape": list(voxels)})
    else:
        typer.echo(f"{out}: {cases} cases of {shape} voxels, labels background, organ 1, lesion")
    print_note(f"use it with: bench run --workload imaging-train --data {out}")
