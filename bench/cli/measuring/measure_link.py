"""`bench measure-link`: time collectives between the devices here, for `--link FILE` elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from bench.cli.options import AsJson
from bench.cli.output import print_answer, print_note
from bench.core.errors import UsageError, one_of
from bench.core.units import format_duration, format_si, parse_bytes, parse_duration_s

if TYPE_CHECKING:
    from bench.hardware.costs.collectives import Op
    from bench.measure.messages import LinkPoint
    from bench.run.link_measure import MeasuredLink

NOISY_FRAC = 0.25
"""Half the distance of the quartiles, over the median: beyond it a rate says little."""


def measure_link(
    devices: Annotated[
        int | None, Option(help="ranks to measure between; default: all devices here")
    ] = None,
    device: Annotated[
        str | None, Option(help="cpu (gloo on the loopback), cuda, ...; default: best")
    ] = None,
    ops: Annotated[
        str | None,
        Option(help="all_reduce,all_gather,reduce_scatter,all_to_all,broadcast,send; default: all"),
    ] = None,
    max_size: Annotated[
        str | None,
        Option(help="largest message; default: 16MiB on a CPU, 512MiB on accelerators"),
    ] = None,
    timeout: Annotated[str, Option(help="longest time for all of it")] = "15m",
    out: Annotated[
        Path | None, Option(help="write a link file (.yaml) that --link accepts")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure the real link between two or more devices or, under torchrun, ranks."""
    import os

    from bench.run import link_measure
    from bench.run.launching.torchrun import check_devices, world_of

    chosen = _ops(ops)
    most_bytes = None if max_size is None else parse_bytes(max_size, what="--max-size")
    timeout_s = parse_duration_s(timeout, what="--timeout")
    _check(most_bytes, out=out)
    world = world_of(os.environ)
    check_devices(world, devices=() if devices is None else (devices,))
    found = link_measure.describe_device(device)
    num_ranks = link_measure.num_ranks_for(found, devices=devices, world=world)
    measured = link_measure.measure_link(
        found,
        num_ranks=num_ranks,
        num_local_ranks=num_ranks if world is None else world.num_local_ranks,
        ops=chosen,
        most_bytes=most_bytes,
        timeout_s=timeout_s,
        note=print_note,
    )
    if out is not None:
        link_measure.write(measured, out)
    _show(measured, out=out, as_json=as_json)


def _ops(text: str | None) -> tuple[Op, ...]:
    from bench.run.link_measure import OPS
    from bench.run.planning.request import parts

    names = parts(text or "")
    for name in names:
        if name not in OPS:
            raise one_of("--ops", name, list(OPS))
    return tuple(op for op in OPS if op in names or not names)


def _check(most_bytes: int | None, *, out: Path | None) -> None:
    from bench.hardware.links.topology import is_link_file
    from bench.results.whole_files import check_folder
    from bench.run.link_measure import LEAST_BYTES

    if most_bytes is not None and not LEAST_BYTES <= most_bytes <= 2**40:
        raise UsageError(f"--max-size must be from {LEAST_BYTES} B to 1 TiB, such as 64MiB")
    if out is None:
        return
    if not is_link_file(str(out)):
        raise UsageError(f"--out {out} must end in .yaml, as --link knows a file by its ending")
    if not out.parent.is_dir():
        raise UsageError(f"--out {out}: there is no folder {out.parent}")
    check_folder(out.parent)


def _show(measured: MeasuredLink, *, out: Path | None, as_json: bool) -> None:
    from bench.report.tables import cells
    from bench.report.tables.grid import Grid

    columns: dict[str, Callable[[LinkPoint], cells.AnyCell]] = {
        "operation": lambda one: one.op,
        "message": lambda one: cells.quantity(one.num_bytes, cells.num_bytes),
        "median": lambda one: cells.quantity(one.median_s, cells.seconds),
        "IQR": lambda one: cells.share(one.iqr_s / one.median_s),
        "bus bandwidth": lambda one: cells.quantity(one.bus_bytes_per_s, cells.of("B/s")),
    }
    lines = [
        f"{measured.num_ranks} x {measured.device.name}, {measured.result.backend}: "
        f"{format_si(measured.bytes_per_s, 'B/s')}, {format_duration(measured.latency_s)} a step "
        f"(fitted; {measured.misfit_frac:.0%} from the points on average)",
        *([] if out is None else [f"link file: {out}; use it with --link {out}"]),
    ]
    print_answer(
        "json" if as_json else "table",
        [Grid.of(measured.result.points, columns)],
        lines=lines,
        document=lambda: _document(measured, out=out),
    )
    if measured.spread_frac > NOISY_FRAC:
        print_note(
            f"the repetitions spread by {measured.spread_frac:.0%} of the median: something else "
            "uses the link or the processor; measure again when it is quiet"
        )
    for op, words in measured.result.missing.items():
        print_note(f"{op}: the backend has none ({words})")


def _document(measured: MeasuredLink, *, out: Path | None) -> dict[str, object]:
    return {
        "path": None if out is None else str(out),
        "device": measured.device.label,
        "device_name": measured.device.name,
        "num_ranks": measured.num_ranks,
        "backend": measured.result.backend,
        "bytes_per_s": measured.bytes_per_s,
        "latency_s": measured.latency_s,
        "misfit_frac": measured.misfit_frac,
        "spread_frac": measured.spread_frac,
        "missing": measured.result.missing,
        "points": [
            {
                "op": point.op,
                "num_ranks": point.num_ranks,
                "message_bytes": point.num_bytes,
                "latency_s": point.median_s,
                "iqr_s": point.iqr_s,
                "bus_bytes_per_s": point.bus_bytes_per_s,
                "seconds": list(point.seconds),
            }
            for point in measured.result.points
        ],
    }
